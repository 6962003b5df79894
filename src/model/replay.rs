//! Loss and gradients of a batch, at once or in micro-batches. The loss compares every pair with every
//! other, so micro-batches cannot simply be averaged: all are embedded first, unrecorded; the loss of
//! the full batch gives the gradient of every embedding; then each micro-batch is encoded once more,
//! recorded, and its embeddings' gradients are sent back. The result is the full batch's gradient.

use std::time::Instant;

use dfdx::prelude::*;

use super::engine::Node;
use super::error::ModelError;
use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::Flip;
use crate::parameter::{widened, Flat, Ranges, Tower};

/// What one step learns about a batch.
#[derive(Debug)]
pub struct LossAndGradients<E: Dtype, D: Storage<E>> {
    /// Of the full batch.
    pub loss: f64,
    /// See [`Flip::logit_scale`].
    pub logit_scale: f64,
    pub gradients: Flat<E, D>,
    /// How long it took.
    pub seconds: Seconds,
}

/// Where the time of a step went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    /// Both encoders and the loss; with several micro-batches, their first, unrecorded pass.
    pub forward: f64,
    /// The rest: the backward pass, and with several micro-batches the second, recorded forward pass.
    pub backward: f64,
}

/// A loss, and when the way back from it began.
type LossAt = (f64, Instant);

pub(super) type Recorded<E, D> = Matrix<E, D, OwnedTape<E, D>>;

impl<E: Dtype, D: Ranges<E>> Flip<E, D> {
    /// Loss and gradients of the batch made of all micro-batches; `images[i]` and `texts[i]` are the same
    /// pairs. A single one is encoded once, several twice.
    pub fn loss_and_gradients(
        &self,
        images: &[ImageInput],
        texts: &[TextInput],
    ) -> Result<LossAndGradients<E, D>, ModelError> {
        let rows_of_images: Vec<usize> = images.iter().map(|input| input.kept.batch).collect();
        let rows_of_texts: Vec<usize> = texts.iter().map(|input| input.kept.batch).collect();
        if rows_of_images != rows_of_texts || images.is_empty() {
            return Err(ModelError::Batches { images: rows_of_images, texts: rows_of_texts });
        }
        for (image, text) in images.iter().zip(texts) {
            image.check(self.config.image.patch)?;
            text.check(self.config.text.context, self.config.text.vocab_size)?;
        }
        let began = Instant::now();
        let gradients = TapeGradients::empty();
        gradients.put(self.zero_gradients(&Tower::ALL).map_err(ModelError::device)?);
        let (loss, from) = match (images, texts) {
            ([images], [texts]) => self.at_once(images, texts, &gradients),
            _ => self.replayed(images, texts, &gradients),
        }
        .map_err(ModelError::device)?;
        let seconds =
            Seconds { forward: (from - began).as_secs_f64(), backward: from.elapsed().as_secs_f64() };
        let gradients = gradients.take();
        Ok(LossAndGradients { loss, logit_scale: self.logit_scale(), gradients, seconds })
    }

    fn at_once(
        &self,
        images: &ImageInput,
        texts: &TextInput,
        gradients: &TapeGradients<E, D>,
    ) -> Result<LossAt, D::Err> {
        let images = self.encode_images(images, Some(gradients))?;
        let texts = self.encode_texts(texts, Some(gradients))?;
        let (_, at) = self.backward_of_loss(images, texts, gradients)?;
        Ok(at)
    }

    fn replayed(
        &self,
        images: &[ImageInput],
        texts: &[TextInput],
        gradients: &TapeGradients<E, D>,
    ) -> Result<LossAt, D::Err> {
        let z_images = images.iter().map(|input| self.encode_images::<NoneTape>(input, None));
        let z_images = self.gathered(z_images)?;
        let z_texts = texts.iter().map(|input| self.encode_texts::<NoneTape>(input, None));
        let z_texts = self.gathered(z_texts)?;
        let (of_loss, at) = self.backward_of_loss(z_images.retaped(), z_texts.retaped(), gradients)?;
        let (dimages, dtexts) = (of_loss.get(&z_images).as_vec(), of_loss.get(&z_texts).as_vec());
        drop((z_images, z_texts, of_loss));
        match &self.engine {
            None => {
                let parts = images.iter().map(|input| self.encode_images(input, Some(gradients)));
                send_back(parts, &dimages)?;
                let parts = texts.iter().map(|input| self.encode_texts(input, Some(gradients)));
                send_back(parts, &dtexts)?;
            }
            Some(engine) => {
                let nodes = images.iter().map(|input| engine.images(&self.masters, input, true));
                gradients.add(|all| run_back(nodes, &dimages, all))?;
                let nodes = texts.iter().map(|input| engine.texts(&self.masters, input, true));
                gradients.add(|all| run_back(nodes, &dtexts, all))?;
            }
        }
        Ok(at)
    }

    /// The loss of recorded embeddings; what is left on their tape are the gradients of the embeddings.
    fn backward_of_loss(
        &self,
        images: Recorded<E, D>,
        texts: Recorded<E, D>,
        gradients: &TapeGradients<E, D>,
    ) -> Result<(Gradients<E, D>, LossAt), D::Err> {
        let loss = self.loss(images, texts, gradients)?;
        let value = loss.as_vec().first().map_or(f64::NAN, |&x| widened(x));
        let from = Instant::now();
        Ok((loss.try_backward()?, (value, from)))
    }

    /// The embeddings of all micro-batches, [batch, embed_dim].
    fn gathered(
        &self,
        parts: impl Iterator<Item = Result<Matrix<E, D>, D::Err>>,
    ) -> Result<Matrix<E, D>, D::Err> {
        let mut all = Vec::new();
        for z in parts {
            all.extend(z?.as_vec());
        }
        let width = self.config.embed_dim;
        let rows = all.len() / width;
        self.masters.device().try_tensor_from_vec(all, (rows, width))
    }
}

/// Runs recorded embeddings backward, where `wanted` [batch, embed_dim] is the loss's gradient of all of them. Every part has
/// a tape of its own, so that one part's activations are freed before the next is encoded.
pub(super) fn send_back<E: Dtype, D: Device<E>>(
    parts: impl Iterator<Item = Result<Recorded<E, D>, D::Err>>,
    mut wanted: &[E],
) -> Result<(), D::Err> {
    for z in parts {
        let z = z?;
        let shape = *z.shape();
        let (of_part, rest) = wanted.split_at(shape.0 * shape.1);
        wanted = rest;
        // d <z, wanted> / dz = wanted.
        let of_part = z.device().try_tensor_from_vec(of_part.to_vec(), shape)?;
        let product: Tensor<(), E, D, _> = z.try_mul(of_part)?.try_sum()?;
        product.try_backward()?;
    }
    Ok(())
}

/// Runs nodes backward, each on its own and straight into `gradients`, where `wanted` [batch, embed_dim] is the loss's
/// gradient of all their results.
pub(super) fn run_back<E: Dtype, D: Ranges<E>>(
    nodes: impl Iterator<Item = Result<Node<(usize, usize), E, D>, D::Err>>,
    mut wanted: &[E],
    gradients: &mut Flat<E, D>,
) -> Result<(), D::Err> {
    for node in nodes {
        let Node { value, back } = node?;
        let shape = *value.shape();
        let (of_part, rest) = wanted.split_at(shape.0 * shape.1);
        wanted = rest;
        let mut entries = Gradients::leaky();
        let dz = entries.get_or_alloc_mut(&value)?;
        value.device().write(dz, 0, of_part)?;
        if let Some(back) = back {
            back(&mut entries, gradients)?;
        }
    }
    Ok(())
}
