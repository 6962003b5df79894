//! The length of the gradient over all parameters together, and its limit.

use dfdx::prelude::*;

use crate::parameter::{blend, widened, Parameter};

/// The Euclidean norm of all gradients together. Squares are summed row by row on the device and then in
/// double precision.
pub fn global_norm<E: Dtype, D: Device<E>>(
    parameters: &[&Parameter<E, D>],
    gradients: &mut Gradients<E, D>,
) -> Result<f64, D::Err> {
    let mut sum = 0.0;
    for parameter in parameters {
        gradients.try_alloc_for(&parameter.master)?;
        let squares = gradients.get(&parameter.master).try_square()?.try_sum::<(usize,), Axis<1>>()?;
        sum += squares.as_vec().into_iter().map(widened).sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// Scales gradients of global norm `norm` down to `max`, where `norm` is larger.
pub fn clip_global_norm<E: Dtype, D: Device<E>>(
    parameters: &[&Parameter<E, D>],
    gradients: &mut Gradients<E, D>,
    norm: f64,
    max: f64,
) -> Result<(), D::Err> {
    if norm <= max {
        return Ok(());
    }
    for parameter in parameters {
        let nothing = parameter.master.device().try_zeros_like(&parameter.master)?;
        blend(gradients, parameter, max / norm, nothing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::Role;

    #[test]
    fn scales_all_gradients_to_the_limit_or_none() {
        let device = Cpu::default();
        let parameters = [(2, vec![3.0f32, 0.0]), (1, vec![4.0])].map(|(n, values)| {
            let parameter = Parameter {
                name: "p".into(),
                role: Role::Weight,
                shape: vec![n],
                master: device.tensor_from_vec(vec![0.0f32; n], (1, n)),
            };
            (parameter, device.tensor_from_vec(values, (1, n)))
        });
        let mut gradients = Gradients::leaky();
        for (parameter, value) in &parameters {
            blend(&mut gradients, parameter, 1.0, value.clone()).unwrap();
        }
        let parameters: Vec<&Parameter<f32, Cpu>> =
            parameters.iter().map(|(parameter, _)| parameter).collect();
        let norm = global_norm(&parameters, &mut gradients).unwrap();
        assert_eq!(norm, 5.0);
        clip_global_norm(&parameters, &mut gradients, norm, 10.0).unwrap();
        assert_eq!(gradients.get(&parameters[0].master).as_vec(), [3.0, 0.0]);
        clip_global_norm(&parameters, &mut gradients, norm, 0.5).unwrap();
        assert_eq!(gradients.get(&parameters[0].master).as_vec(), [0.3, 0.0]);
        assert_eq!(gradients.get(&parameters[1].master).as_vec(), [0.4]);
    }
}
