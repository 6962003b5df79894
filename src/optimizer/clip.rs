//! The length of the gradient over all parameters together, and its limit.

use dfdx::prelude::*;

use crate::model::Flip;
use crate::parameter::{widened, Flat, Parameter, Ranges};

/// The Euclidean norm of all gradients of a model together.
pub fn global_norm<E: Dtype, D: Ranges<E>>(
    model: &Flip<E, D>,
    gradients: &Flat<E, D>,
) -> Result<f64, D::Err> {
    let all = model.learning();
    let squares = match model.engine() {
        Some(engine) => engine.square_sum(gradients, &all)?,
        None => square_sum(model.parameters(), gradients, &all)?,
    };
    Ok(squares.sqrt())
}

/// The sum of the squares of the gradient of each parameter that stands at one of these `places` of the list.
/// The sum over all, in the order of the list, is the square of [`global_norm`].
pub fn squares<E: Dtype, D: Ranges<E>>(
    model: &Flip<E, D>,
    places: &[usize],
    gradients: &Flat<E, D>,
) -> Result<Vec<f64>, D::Err> {
    let of_each = places.iter().map(|place| match model.engine() {
        Some(engine) => engine.square_sum(gradients, &[*place]),
        None => square_sum(model.parameters(), gradients, &[*place]),
    });
    of_each.collect()
}

/// Squares are summed row by row on the device and then in double precision.
fn square_sum<E: Dtype, D: Ranges<E>>(
    parameters: &[Parameter],
    gradients: &Flat<E, D>,
    places: &[usize],
) -> Result<f64, D::Err> {
    let mut sum = 0.0;
    for &place in places {
        let gradient = gradients.tensor(place, parameters[place].matrix())?;
        let squares = gradient.try_square()?.try_sum::<(usize,), Axis<1>>()?;
        sum += squares.as_vec().into_iter().map(widened).sum::<f64>();
    }
    Ok(sum)
}

/// Factor that makes the norm of a gradient of norm `norm` at most `max`.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    if norm <= max {
        1.0
    } else {
        max / norm
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parameter::{Init, Layout, Role, Tower};

    #[test]
    fn the_norm_is_over_all_parameters_and_only_larger_ones_are_scaled_down() {
        let values = [vec![3.0f32, 0.0], vec![4.0]];
        let parameters = values.clone().map(|values| Parameter {
            name: "p".into(),
            tower: Tower::Image,
            role: Role::Weight,
            shape: vec![values.len()],
            init: Init::Constant(0.0),
            rounded: true,
        });
        let layout = Arc::new(Layout::new(&parameters, |_| true));
        let mut gradients = Flat::zeros(&Cpu::default(), layout).unwrap();
        values.iter().enumerate().for_each(|(place, values)| gradients.write(place, values).unwrap());
        assert_eq!(square_sum(&parameters, &gradients, &[0, 1]).unwrap(), 25.0);
        assert_eq!([clip_factor(5.0, 10.0), clip_factor(5.0, 5.0), clip_factor(5.0, 0.5)], [1.0, 1.0, 0.1]);
    }
}
