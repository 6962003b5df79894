//! An encoder on micro-batches: the embeddings of all first, and when the loss has given their gradients, the backward pass of
//! each. Activations are kept in between, or each micro-batch is encoded once more.

use dfdx::prelude::*;

use super::engine::Node;
use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::Flip;
use crate::parameter::{Ranges, Tower};

/// Micro-batches; `images[i]` and `texts[i]` are the same pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct MicroBatches<'a> {
    pub images: &'a [ImageInput],
    pub texts: &'a [TextInput],
}

/// Unit embeddings [pairs, embed_dim] on the host, and the recorded pass of each micro-batch.
type Embedded<E, D> = (Vec<E>, Vec<Recorded<E, D>>);

/// A recorded forward pass.
pub(super) enum Recorded<E: Dtype, D: Storage<E>> {
    Node(Node<(usize, usize), E, D>),
    Taped(Matrix<E, D, OwnedTape<E, D>>),
}

impl<E: Dtype, D: Ranges<E>> Recorded<E, D> {
    fn embeddings(&self) -> Vec<E> {
        match self {
            Recorded::Node(node) => node.value.as_vec(),
            Recorded::Taped(z) => z.as_vec(),
        }
    }

    /// Runs it backward, where `dz` is the gradient of the embeddings.
    fn backward(self, dz: &[E], gradients: &TapeGradients<E, D>) -> Result<(), D::Err> {
        match self {
            Recorded::Node(Node { value, back }) => {
                let mut entries = Gradients::leaky();
                value.device().write(entries.get_or_alloc_mut(&value)?, 0, dz)?;
                back.map_or(Ok(()), |back| gradients.add(|all| back(&mut entries, all)))
            }
            Recorded::Taped(z) => {
                // d <z, dz> / dz = dz.
                let dz = z.device().try_tensor_from_vec(dz.to_vec(), *z.shape())?;
                let product: Tensor<(), E, D, _> = z.try_mul(dz)?.try_sum()?;
                product.try_backward().map(|_| ())
            }
        }
    }
}

impl<E: Dtype, D: Ranges<E>> Flip<E, D> {
    fn record(
        &self,
        tower: Tower,
        of: MicroBatches,
        i: usize,
        gradients: &TapeGradients<E, D>,
    ) -> Result<Recorded<E, D>, D::Err> {
        match (tower, self.engine.as_deref()) {
            (Tower::Image, Some(engine)) => {
                engine.images(&self.masters, &of.images[i], true).map(Recorded::Node)
            }
            (_, Some(engine)) => engine.texts(&self.masters, &of.texts[i], true).map(Recorded::Node),
            (Tower::Image, None) => self.encode_images(&of.images[i], Some(gradients)).map(Recorded::Taped),
            (_, None) => self.encode_texts(&of.texts[i], Some(gradients)).map(Recorded::Taped),
        }
    }

    /// Unit embeddings of all, [pairs, embed_dim] on the host, and their recorded passes where there are gradients for these to add
    /// to later.
    pub(super) fn embed(
        &self,
        tower: Tower,
        of: MicroBatches,
        keep: Option<&TapeGradients<E, D>>,
    ) -> Result<Embedded<E, D>, D::Err> {
        let (mut z, mut kept) = (Vec::new(), Vec::new());
        for i in 0..of.images.len() {
            match keep {
                Some(gradients) => {
                    kept.push(self.record(tower, of, i, gradients)?);
                    z.extend(kept[i].embeddings());
                }
                None if tower == Tower::Image => {
                    z.extend(self.encode_images::<NoneTape>(&of.images[i], None)?.as_vec())
                }
                None => z.extend(self.encode_texts::<NoneTape>(&of.texts[i], None)?.as_vec()),
            }
        }
        Ok((z, kept))
    }

    /// Adds to the gradients of an encoder what the gradients `dz` [pairs, embed_dim] of all embeddings contribute. Each pass is
    /// over before the next is recorded, unless they were `kept`.
    pub(super) fn backward(
        &self,
        tower: Tower,
        of: MicroBatches,
        kept: Vec<Recorded<E, D>>,
        mut dz: &[E],
        gradients: &TapeGradients<E, D>,
    ) -> Result<(), D::Err> {
        let mut kept = kept.into_iter();
        for (i, images) in of.images.iter().enumerate() {
            let (own, rest) = dz.split_at(images.kept.batch * self.config.embed_dim);
            dz = rest;
            let recorded = match kept.next() {
                Some(recorded) => recorded,
                None => self.record(tower, of, i, gradients)?,
            };
            recorded.backward(own, gradients)?;
        }
        Ok(())
    }
}
