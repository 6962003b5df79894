//! Loss and gradients of a batch, at once or in micro-batches. The loss compares every pair with every
//! other, so micro-batches cannot simply be averaged: all are embedded first, unrecorded; the loss of
//! the full batch gives the gradient of every embedding; then each micro-batch is encoded once more,
//! recorded, and the gradients of its embeddings are run backward. The result is the full batch's gradient.

use std::time::Instant;

use dfdx::prelude::*;

use super::error::ModelError;
use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::micro_batches::MicroBatches;
use super::Flip;
use crate::parameter::{widened, Flat, Ranges, Tower};

/// Loss and gradients of one step.
#[derive(Debug)]
pub struct LossAndGradients<E: Dtype, D: Storage<E>> {
    /// Of the full batch.
    pub loss: f64,
    /// See [`Flip::logit_scale`].
    pub logit_scale: f64,
    pub gradients: Flat<E, D>,
    /// Time that it took.
    pub seconds: Seconds,
}

/// Time of the parts of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    /// Both encoders; of a batch in parts without the loss, so that nothing in it waits for another rank.
    pub encode: f64,
    /// Both encoders and the loss; with several micro-batches, their first, unrecorded pass.
    pub forward: f64,
    /// The rest: the backward pass, and with several micro-batches the second, recorded forward pass.
    pub backward: f64,
}

/// A loss, and when its backward pass began.
type LossAt = (f64, Instant);

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
        let learning: Vec<Tower> = Tower::ALL.into_iter().filter(|&tower| self.tower_learns(tower)).collect();
        gradients.put(self.zero_gradients(&learning).map_err(ModelError::device)?);
        let (loss, from) = match (images, texts) {
            ([images], [texts]) => self.at_once(images, texts, &gradients),
            _ => self.with_grad_cache(MicroBatches { images, texts }, &gradients),
        }
        .map_err(ModelError::device)?;
        let forward = (from - began).as_secs_f64();
        let seconds = Seconds { encode: forward, forward, backward: from.elapsed().as_secs_f64() };
        let gradients = gradients.take();
        Ok(LossAndGradients { loss, logit_scale: self.logit_scale(), gradients, seconds })
    }

    fn at_once(
        &self,
        images: &ImageInput,
        texts: &TextInput,
        gradients: &TapeGradients<E, D>,
    ) -> Result<LossAt, D::Err> {
        let images = match self.tower_learns(Tower::Image) {
            true => self.encode_images(images, Some(gradients))?,
            false => self.encode_images::<NoneTape>(images, None)?.retaped(),
        };
        let texts = match self.tower_learns(Tower::Text) {
            true => self.encode_texts(texts, Some(gradients))?,
            false => self.encode_texts::<NoneTape>(texts, None)?.retaped(),
        };
        let (_, at) = self.backward_of_loss(images, texts, gradients)?;
        Ok(at)
    }

    fn with_grad_cache(&self, of: MicroBatches, gradients: &TapeGradients<E, D>) -> Result<LossAt, D::Err> {
        let width = self.config.embed_dim;
        let embed = |tower: Tower| {
            let (z, _) = self.embed(tower, of, None)?;
            let rows = z.len() / width;
            self.masters.device().try_tensor_from_vec(z, (rows, width))
        };
        let (images, texts) = (embed(Tower::Image)?, embed(Tower::Text)?);
        let (of_loss, at) = self.backward_of_loss(images.retaped(), texts.retaped(), gradients)?;
        let (dimages, dtexts) = (of_loss.get(&images).as_vec(), of_loss.get(&texts).as_vec());
        drop((images, texts, of_loss));
        for (tower, dz) in [(Tower::Image, &dimages), (Tower::Text, &dtexts)] {
            if self.tower_learns(tower) {
                self.backward(tower, of, Vec::new(), dz, gradients)?;
            }
        }
        Ok(at)
    }

    /// The loss of recorded embeddings; the gradients of the embeddings are left on their tape.
    fn backward_of_loss(
        &self,
        images: Matrix<E, D, OwnedTape<E, D>>,
        texts: Matrix<E, D, OwnedTape<E, D>>,
        gradients: &TapeGradients<E, D>,
    ) -> Result<(Gradients<E, D>, LossAt), D::Err> {
        let loss = self.loss(images, texts, gradients)?;
        let value = loss.as_vec().first().map_or(f64::NAN, |&x| widened(x));
        let from = Instant::now();
        Ok((loss.try_backward()?, (value, from)))
    }
}
