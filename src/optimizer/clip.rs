//! The length of the gradient over all parameters together, and its limit.

use dfdx::prelude::*;

use crate::model::Flip;
use crate::parameter::{widened, Parameter};

/// The Euclidean norm of all gradients of a model together.
pub fn global_norm<E: Dtype, D: Device<E>>(
    model: &Flip<E, D>,
    gradients: &mut Gradients<E, D>,
) -> Result<f64, D::Err> {
    let squares = match model.engine() {
        Some(engine) => engine.square_sum(&model.parameters(), gradients)?,
        None => square_sum(&model.parameters(), gradients)?,
    };
    Ok(squares.sqrt())
}

/// The sum of the squares of the gradient of each parameter that stands at one of these `places` of the walk over the model.
/// The sum over all, in the order of the walk, is the square of [`global_norm`].
pub fn squares<E: Dtype, D: Device<E>>(
    model: &Flip<E, D>,
    places: &[usize],
    gradients: &mut Gradients<E, D>,
) -> Result<Vec<f64>, D::Err> {
    let parameters = model.parameters();
    let own = places.iter().map(|&place| parameters[place]);
    own.map(|parameter| match model.engine() {
        Some(engine) => engine.square_sum(&[parameter], gradients),
        None => square_sum(&[parameter], gradients),
    })
    .collect()
}

/// Squares are summed row by row on the device and then in double precision.
fn square_sum<E: Dtype, D: Device<E>>(
    parameters: &[&Parameter<E, D>],
    gradients: &mut Gradients<E, D>,
) -> Result<f64, D::Err> {
    let mut sum = 0.0;
    for parameter in parameters {
        gradients.try_alloc_for(&parameter.master)?;
        let squares = gradients.get(&parameter.master).try_square()?.try_sum::<(usize,), Axis<1>>()?;
        sum += squares.as_vec().into_iter().map(widened).sum::<f64>();
    }
    Ok(sum)
}

/// What a gradient of norm `norm` is multiplied by so that its norm is at most `max`.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    if norm <= max {
        1.0
    } else {
        max / norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::{blend, Role};

    #[test]
    fn the_norm_is_over_all_parameters_and_only_larger_ones_are_scaled_down() {
        let device = Cpu::default();
        let parameters = [(2, vec![3.0f32, 0.0]), (1, vec![4.0])].map(|(n, values)| {
            let parameter = Parameter {
                name: "p".into(),
                role: Role::Weight,
                shape: vec![n],
                master: device.tensor_from_vec(vec![0.0f32; n], (1, n)),
                given_up: false,
            };
            (parameter, device.tensor_from_vec(values, (1, n)))
        });
        let mut gradients = Gradients::leaky();
        for (parameter, value) in &parameters {
            blend(&mut gradients, parameter, 1.0, value.clone()).unwrap();
        }
        let parameters: Vec<&Parameter<f32, Cpu>> =
            parameters.iter().map(|(parameter, _)| parameter).collect();
        assert_eq!(square_sum(&parameters, &mut gradients).unwrap(), 25.0);
        assert_eq!([clip_factor(5.0, 10.0), clip_factor(5.0, 5.0), clip_factor(5.0, 0.5)], [1.0, 1.0, 0.1]);
    }
}
