//! Named parameters. dfdx's own module traits need sizes known at compile time; a recipe's are not, so
//! the model is plain structs of these, and a walk over them serves optimizer and checkpoint.

use std::collections::BTreeMap;
use std::fmt;

use dfdx::optim::{Momentum, SgdConfig, WeightDecay};
use dfdx::prelude::*;

/// What weight decay and importers need to know of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A matrix: decayed.
    Weight,
    /// A bias: not decayed.
    Bias,
    /// LayerNorm scale or shift: not decayed.
    Norm,
    /// Learned positions: not decayed.
    Position,
    /// Token embedding and class token: decayed by the official filter.
    Token,
    /// The logit scale: decayed by the official filter (its name is not exactly `scale`).
    LogitScale,
}

impl Role {
    /// The decay filter of the official code: everything but biases, norm parameters and positions.
    pub fn decays(self) -> bool {
        matches!(self, Role::Weight | Role::Token | Role::LogitScale)
    }
}

/// The encoder that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    Image,
    Text,
    /// Neither: the logit scale.
    Loss,
}

/// The distribution of a parameter's first values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform from minus `bound` to `bound`.
    Uniform {
        bound: f64,
    },
    /// Normal around zero.
    Normal {
        deviation: f64,
    },
    Constant(f64),
}

/// Name, kind and size of a parameter: an entry of the list that a model is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Dotted path, for example `image.blocks.3.attention.qkv.weight`.
    pub name: String,
    pub tower: Tower,
    pub role: Role,
    pub shape: Vec<usize>,
    pub init: Init,
}

impl ParameterSpec {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        count(&self.shape)
    }

    /// Whether it holds no number at all; a checked model has no such parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns; a vector of n is [1, n].
    pub fn matrix(&self) -> (usize, usize) {
        let last = self.shape.last().copied().unwrap_or(1);
        (self.len() / last, last)
    }

    /// What tensors of it are known by.
    pub fn outline(&self) -> (String, Vec<usize>) {
        (self.name.clone(), self.shape.clone())
    }
}

/// One trainable tensor. All masters have rank two so that one walk serves them all: a vector of n is
/// stored as [1, n]; `shape` is the logical shape, as checkpoints show it.
#[derive(Debug, Clone)]
pub struct Parameter<E: Dtype, D: Storage<E>> {
    /// Dotted path, for example `image.blocks.3.attention.qkv.weight`.
    pub name: String,
    pub role: Role,
    pub shape: Vec<usize>,
    pub master: Tensor<(usize, usize), E, D>,
    /// Whether another rank keeps the values: then those of `master` are not numbers, and take no memory.
    pub given_up: bool,
}

/// A tensor on the host, as checkpoints hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// How a set of tensors differs from what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// Expected and not there.
    pub missing: Vec<String>,
    /// There and not expected, or there twice.
    pub left_over: Vec<String>,
    /// Name, the expected shape, the shape that is there.
    pub reshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Pairs every expected name and shape with its tensor, in the expected order; or says everything that
    /// does not fit.
    pub fn pair<'a>(
        expected: &[(String, Vec<usize>)],
        tensors: &'a [NamedTensor],
    ) -> Result<Vec<&'a NamedTensor>, Mismatch> {
        // One that has more or fewer values than its shape says fits nowhere.
        let shape = |tensor: &'a NamedTensor| match tensor.data.len() == count(&tensor.shape) {
            true => tensor.shape.clone(),
            false => vec![tensor.data.len()],
        };
        let places = Mismatch::places(expected, tensors.iter().map(|t| (t.name.as_str(), shape(t))))?;
        Ok(places.into_iter().map(|place| &tensors[place]).collect())
    }

    /// As [`pair`](Self::pair), of names and shapes alone: the place of each expected tensor among those that are there.
    pub fn places<'a>(
        expected: &[(String, Vec<usize>)],
        there: impl Iterator<Item = (&'a str, Vec<usize>)>,
    ) -> Result<Vec<usize>, Mismatch> {
        let mut mismatch = Mismatch::default();
        let mut by_name = BTreeMap::new();
        for (place, (name, shape)) in there.enumerate() {
            if by_name.insert(name, (place, shape)).is_some() {
                mismatch.left_over.push(name.into());
            }
        }
        let mut places = Vec::with_capacity(expected.len());
        for (name, shape) in expected {
            match by_name.remove(name.as_str()) {
                Some((place, found)) if found == *shape => places.push(place),
                Some((_, found)) => mismatch.reshaped.push((name.clone(), shape.clone(), found)),
                None => mismatch.missing.push(name.clone()),
            }
        }
        mismatch.left_over.extend(by_name.into_keys().map(String::from));
        if mismatch.is_empty() {
            Ok(places)
        } else {
            Err(mismatch)
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.left_over.is_empty() && self.reshaped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.iter().map(|name| format!("{name}: missing"));
        let left_over =
            self.left_over.iter().map(|name| format!("{name}: expected no such tensor, or only one"));
        let reshaped = self
            .reshaped
            .iter()
            .map(|(name, expected, got)| format!("{name}: expected shape {expected:?}, got {got:?}"));
        let lines: Vec<String> = missing.chain(left_over).chain(reshaped).collect();
        write!(f, "{}", lines.join("\n"))
    }
}

impl<E: Dtype, D: Storage<E>> Parameter<E, D> {
    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        count(&self.shape)
    }

    /// Whether it holds no number at all; a checked model has no such parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy on the host.
    pub fn to_host(&self) -> NamedTensor {
        NamedTensor { name: self.name.clone(), shape: self.shape.clone(), data: host_f32(&self.master) }
    }
}

impl<E: Dtype, D: Device<E>> Parameter<E, D> {
    /// Lets go of the values, which another rank keeps.
    pub fn give_up(&mut self) -> Result<(), D::Err> {
        // One value, seen as many: whoever reads it by mistake computes no numbers.
        let nothing = self.master.device().try_tensor(rounded::<E>(f64::NAN))?;
        self.master = nothing.try_broadcast_like(self.master.shape())?;
        self.given_up = true;
        Ok(())
    }
}

impl<E: Dtype, D: CopySlice<E>> Parameter<E, D> {
    /// Overwrites the master with `data`, row-major, exactly [`Parameter::len`] numbers.
    pub fn set(&mut self, data: &[f32]) {
        let data: Vec<E> = data.iter().map(|&x| rounded(f64::from(x))).collect();
        self.master.copy_from(&data);
    }
}

/// Something made of parameters: visits them in a fixed order, the order of checkpoints and draws.
pub trait Walk<E: Dtype, D: Storage<E>> {
    fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter<E, D>));
    fn walk_mut<'a>(&'a mut self, visit: &mut dyn FnMut(&'a mut Parameter<E, D>));

    /// Every parameter, in that order.
    fn parameters(&self) -> Vec<&Parameter<E, D>> {
        let mut all = Vec::new();
        self.walk(&mut |parameter| all.push(parameter));
        all
    }
}

impl<E: Dtype, D: Storage<E>> Walk<E, D> for Parameter<E, D> {
    fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter<E, D>)) {
        visit(self)
    }
    fn walk_mut<'a>(&'a mut self, visit: &mut dyn FnMut(&'a mut Parameter<E, D>)) {
        visit(self)
    }
}

impl<E: Dtype, D: Storage<E>, P: Walk<E, D>> Walk<E, D> for Option<P> {
    fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter<E, D>)) {
        self.iter().for_each(|part| part.walk(visit))
    }
    fn walk_mut<'a>(&'a mut self, visit: &mut dyn FnMut(&'a mut Parameter<E, D>)) {
        self.iter_mut().for_each(|part| part.walk_mut(visit))
    }
}

impl<E: Dtype, D: Storage<E>, P: Walk<E, D>> Walk<E, D> for Vec<P> {
    fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter<E, D>)) {
        self.iter().for_each(|part| part.walk(visit))
    }
    fn walk_mut<'a>(&'a mut self, visit: &mut dyn FnMut(&'a mut Parameter<E, D>)) {
        self.iter_mut().for_each(|part| part.walk_mut(visit))
    }
}

/// Implements [`Walk`] for a struct over `<E, D>` by visiting the listed fields in the listed order.
macro_rules! walk_fields {
    ($part:ident { $($field:ident),+ $(,)? }) => {
        impl<E: dfdx::prelude::Dtype, D: dfdx::prelude::Storage<E>> $crate::parameter::Walk<E, D>
            for $part<E, D>
        {
            fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a $crate::parameter::Parameter<E, D>)) {
                $($crate::parameter::Walk::walk(&self.$field, visit);)+
            }
            fn walk_mut<'a>(
                &'a mut self,
                visit: &mut dyn FnMut(&'a mut $crate::parameter::Parameter<E, D>),
            ) {
                $($crate::parameter::Walk::walk_mut(&mut self.$field, visit);)+
            }
        }
    };
}
pub(crate) use walk_fields;

/// `gradients[parameter] <- keep * gradients[parameter] + value`, on the device, in one pass; an entry that
/// is not there yet counts as zero. `value` has the master's size.
///
/// dfdx lends the storage of a gradient only to its own update rules. The velocity of its SGD,
/// `v <- momentum * v + (g + decay * p)`, is this very formula with g = 0 and p = `value`; a learning
/// rate of zero leaves p alone.
pub fn blend<E: Dtype, D: Device<E>>(
    gradients: &mut Gradients<E, D>,
    parameter: &Parameter<E, D>,
    keep: f64,
    value: Tensor<(usize, usize), E, D>,
) -> Result<(), D::Err> {
    blend_into(gradients, &parameter.master, keep, value)
}

/// As [`blend`], for the gradient of any matrix.
pub(crate) fn blend_into<E: Dtype, D: Device<E>>(
    gradients: &mut Gradients<E, D>,
    of: &Tensor<(usize, usize), E, D>,
    keep: f64,
    mut value: Tensor<(usize, usize), E, D>,
) -> Result<(), D::Err> {
    let velocity = SgdConfig {
        lr: 0.0,
        momentum: Some(Momentum::Classic(keep)),
        weight_decay: Some(WeightDecay::L2(1.0)),
    };
    let mut zeros = Gradients::leaky();
    let zeros = zeros.get_or_alloc_mut(&value)?;
    velocity.try_update(&mut value, gradients.get_or_alloc_mut(of)?, zeros)
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The nearest `E` to `value`.
pub(crate) fn rounded<E: Dtype>(value: f64) -> E {
    E::from_f64(value).expect("the dtypes with a Device, f32 and f64, convert from every f64")
}

/// `value` in double precision.
pub(crate) fn widened<E: Dtype>(value: E) -> f64 {
    value.to_f64().expect("the dtypes with a Device, f32 and f64, convert to f64")
}

/// A tensor's values on the host, row-major, in single precision.
pub(crate) fn host_f32<S: Shape, E: Dtype, D: Storage<E>>(tensor: &Tensor<S, E, D>) -> Vec<f32> {
    tensor.as_vec().into_iter().map(|x| widened(x) as f32).collect()
}
