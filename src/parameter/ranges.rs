//! Ranges of storage that a dfdx device allocates. dfdx itself works on whole tensors.

use std::ops::Range;

use dfdx::optim::{Momentum, SgdConfig};
use dfdx::prelude::*;

/// Storage of a dfdx device.
pub type Values<E, D> = <D as Storage<E>>::Vec;

/// A device whose storage can be used range by range.
pub trait Ranges<E: Dtype>: Device<E> {
    /// Zeros.
    ///
    /// # Errors
    /// The device has no room.
    fn allocate(&self, len: usize) -> Result<Values<E, Self>, Self::Err> {
        Storage::<E>::try_alloc_len(self, len)
    }

    /// Copies a range into storage of its own.
    ///
    /// # Errors
    /// The device fails.
    fn cut(&self, from: &Values<E, Self>, range: Range<usize>) -> Result<Values<E, Self>, Self::Err>;

    /// Overwrites the values from `at` on.
    ///
    /// # Errors
    /// The device fails.
    fn paste(&self, to: &mut Values<E, Self>, at: usize, from: &Values<E, Self>) -> Result<(), Self::Err>;

    /// Shows the values of a range on the host.
    ///
    /// # Errors
    /// The device fails.
    fn show(
        &self,
        from: &Values<E, Self>,
        range: Range<usize>,
        see: &mut dyn FnMut(&[E]),
    ) -> Result<(), Self::Err>;

    /// Overwrites the values from `at` on with some of the host.
    ///
    /// # Errors
    /// The device fails.
    fn write(&self, to: &mut Values<E, Self>, at: usize, from: &[E]) -> Result<(), Self::Err>;

    /// Moves all values to the host; nothing is left where that costs no copy.
    ///
    /// # Errors
    /// The device fails.
    fn take(&self, from: &mut Values<E, Self>) -> Result<Vec<E>, Self::Err> {
        let mut taken = Vec::new();
        self.show(from, 0..Storage::<E>::len(self, from), &mut |values| taken = values.to_vec())?;
        Ok(taken)
    }

    /// Storage of values of the host.
    ///
    /// # Errors
    /// The device has no room.
    fn hold(&self, values: Vec<E>) -> Result<Values<E, Self>, Self::Err> {
        let mut held = self.allocate(values.len())?;
        self.write(&mut held, 0, &values)?;
        Ok(held)
    }

    /// Adds a gradient to the values from `at` on; its memory may be freed.
    ///
    /// # Errors
    /// The device fails.
    fn add(
        &self,
        to: &mut Values<E, Self>,
        range: Range<usize>,
        gradient: &mut Values<E, Self>,
    ) -> Result<(), Self::Err> {
        // dfdx has no sum of bare storage, but a velocity: v <- g + 1 v. The parameter that it moves is moved by nothing.
        let rule = SgdConfig { lr: 0.0, momentum: Some(Momentum::Classic(1.0)), weight_decay: None };
        let (mut unmoved, mut sum) = (self.allocate(range.len())?, self.cut(to, range.clone())?);
        self.sgd_kernel(&rule, &mut unmoved, &mut sum, gradient)?;
        self.paste(to, range.start, &sum)
    }

    /// Moves a range of values by a share of the way to those of another, which lie at the same place: to += share (from - to).
    ///
    /// # Errors
    /// The device fails.
    fn move_towards(
        &self,
        to: &mut Values<E, Self>,
        range: Range<usize>,
        from: &Values<E, Self>,
        share: f64,
    ) -> Result<(), Self::Err> {
        let (mut moved, goal) = (self.cut(to, range.clone())?, self.cut(from, range.clone())?);
        dfdx_moves_towards(self, &mut moved, &goal, range.len(), share)?;
        self.paste(to, range.start, &moved)
    }

    /// Storage of the values of a tensor.
    ///
    /// # Errors
    /// The device fails.
    fn values(&self, tensor: &Tensor<(usize, usize), E, Self>) -> Result<Values<E, Self>, Self::Err> {
        // dfdx gives the storage of a tensor to nobody, but moves a velocity by it: v <- 0 v + (0 + values).
        let rule = SgdConfig {
            lr: 0.0,
            momentum: Some(Momentum::Classic(0.0)),
            weight_decay: Some(WeightDecay::L2(1.0)),
        };
        let len = tensor.shape().0 * tensor.shape().1;
        let (mut values, nothing) = (self.allocate(len)?, self.allocate(len)?);
        rule.try_update(&mut tensor.clone(), &mut values, &nothing)?;
        Ok(values)
    }

    /// A tensor of a range.
    ///
    /// # Errors
    /// The device fails.
    fn tensor(
        &self,
        from: &Values<E, Self>,
        range: Range<usize>,
        shape: (usize, usize),
    ) -> Result<Tensor<(usize, usize), E, Self>, Self::Err> {
        let like = self.try_zeros_like(&shape)?;
        // An entry of a gradient store is storage that can be made a tensor.
        let mut held = Gradients::leaky();
        *held.get_or_alloc_mut(&like)? = self.cut(from, range)?;
        Ok(held.get(&like))
    }
}

/// to += share (from - to), in one kernel of dfdx: with a decay of -1, p <- p - lr (g - p) for lr = -share.
fn dfdx_moves_towards<E: Dtype, D: Ranges<E>>(
    device: &D,
    to: &mut Values<E, D>,
    from: &Values<E, D>,
    len: usize,
    share: f64,
) -> Result<(), D::Err> {
    let rule = SgdConfig { lr: -share, momentum: None, weight_decay: Some(WeightDecay::L2(-1.0)) };
    device.sgd_kernel(&rule, to, &mut device.allocate(len)?, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_move_by_a_share_of_the_way() {
        let device = Cpu::default();
        let (from, to) = (vec![3.0f64, -1.0, 0.5], vec![1.0f64, 1.0, 0.5]);
        let [goal, mut by_dfdx, mut here] = [from, to.clone(), to].map(|values| device.hold(values).unwrap());
        dfdx_moves_towards(&device, &mut by_dfdx, &goal, 3, 0.25).unwrap();
        device.move_towards(&mut here, 0..3, &goal, 0.25).unwrap();
        for values in [&by_dfdx, &here] {
            values
                .iter()
                .zip([1.5, 0.5, 0.5])
                .for_each(|(&x, y): (&f64, f64)| assert!((x - y).abs() < 1e-15));
        }
    }
}

macro_rules! ranges_on_the_host {
    ($($number:ty),+) => {$(
        impl Ranges<$number> for Cpu {
            fn cut(
                &self,
                from: &Values<$number, Cpu>,
                range: Range<usize>,
            ) -> Result<Values<$number, Cpu>, CpuError> {
                self.hold(from[range].to_vec())
            }

            fn take(&self, from: &mut Values<$number, Cpu>) -> Result<Vec<$number>, CpuError> {
                Ok(std::mem::take(&mut **from))
            }

            fn hold(&self, values: Vec<$number>) -> Result<Values<$number, Cpu>, CpuError> {
                let mut held = Ranges::<$number>::allocate(self, 0)?;
                *held = values;
                Ok(held)
            }

            fn paste(
                &self,
                to: &mut Values<$number, Cpu>,
                at: usize,
                from: &Values<$number, Cpu>,
            ) -> Result<(), CpuError> {
                Ranges::<$number>::write(self, to, at, from)
            }

            fn show(
                &self,
                from: &Values<$number, Cpu>,
                range: Range<usize>,
                see: &mut dyn FnMut(&[$number]),
            ) -> Result<(), CpuError> {
                see(&from[range]);
                Ok(())
            }

            fn write(
                &self,
                to: &mut Values<$number, Cpu>,
                at: usize,
                from: &[$number],
            ) -> Result<(), CpuError> {
                to[at..at + from.len()].copy_from_slice(from);
                Ok(())
            }

            fn add(
                &self,
                to: &mut Values<$number, Cpu>,
                range: Range<usize>,
                gradient: &mut Values<$number, Cpu>,
            ) -> Result<(), CpuError> {
                to[range].iter_mut().zip(gradient.iter()).for_each(|(to, from)| *to += from);
                **gradient = Vec::new();
                Ok(())
            }

            fn move_towards(
                &self,
                to: &mut Values<$number, Cpu>,
                range: Range<usize>,
                from: &Values<$number, Cpu>,
                share: f64,
            ) -> Result<(), CpuError> {
                let (to, from, share) = (&mut to[range.clone()], &from[range], share as $number);
                to.iter_mut().zip(from).for_each(|(to, from)| *to += share * (from - *to));
                Ok(())
            }

            fn values(
                &self,
                tensor: &Tensor<(usize, usize), $number, Cpu>,
            ) -> Result<Values<$number, Cpu>, CpuError> {
                self.hold(tensor.as_vec())
            }

            fn tensor(
                &self,
                from: &Values<$number, Cpu>,
                range: Range<usize>,
                shape: (usize, usize),
            ) -> Result<Tensor<(usize, usize), $number, Cpu>, CpuError> {
                self.try_tensor_from_vec(from[range].to_vec(), shape)
            }
        }
    )+};
}

ranges_on_the_host!(f32, f64);
