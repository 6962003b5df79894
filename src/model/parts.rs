//! Loss and gradients of a batch in parts, of which this process has some: the same as of the whole batch, on any number of
//! ranks.
//!
//! Each part is encoded, in micro-batches, and run backward by itself, into gradients of its own; these are added along the
//! [tree](crate::ranks::tree) of the parts. While the gradients of the image encoder are exchanged, the text encoder is
//! run backward.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use dfdx::prelude::*;

use super::error::ModelError;
use super::grad_cache::{LossAndGradients, Seconds};
use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::micro_batches::{MicroBatches, Recorded};
use super::ring_loss::{ring_loss, RingLoss};
use super::Flip;
use crate::kernel::isa::Isa;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{Flat, Layout, Ranges, Tower};
use crate::ranks::reduce::{all_reduce, reduce_scatter};
use crate::ranks::tree::{node_sum, nodes};
use crate::ranks::{Owners, Parts, Ranks, RanksError};

/// The parts of a batch that this rank computes, in their order; micro-batches of each.
#[derive(Debug, Clone, Copy)]
pub struct OwnParts<'a> {
    pub images: &'a [Vec<ImageInput>],
    pub texts: &'a [Vec<TextInput>],
    /// The rank that wants the gradient of each parameter; all of them want all where there are none.
    pub owners: Option<&'a Owners>,
    /// The activations of all micro-batches are kept for the backward pass; else each is encoded twice.
    pub keep: bool,
}

/// An encoder on the parts of this rank.
struct TowerParts<'a, D: Storage<f32>> {
    tower: Tower,
    own: OwnParts<'a>,
    /// Gradients that recorded passes add to.
    gradients: TapeGradients<f32, D>,
    /// Recorded passes of all micro-batches where they are kept, part by part.
    kept: Vec<Vec<Recorded<f32, D>>>,
}

impl<D: Ranges<f32>> Flip<f32, D> {
    /// Loss and gradients of the batch whose parts the ranks have.
    ///
    /// # Errors
    /// The input does not fit, the device fails, or an exchange does.
    pub fn loss_and_gradients_in_parts(
        &self,
        ranks: &dyn Ranks,
        parts: &Parts,
        own: OwnParts<'_>,
    ) -> Result<LossAndGradients<f32, D>, ModelError> {
        self.check(parts, &own)?;
        let began = Instant::now();
        let (z_images, images) = self.embed_parts(Tower::Image, own)?;
        let (z_texts, texts) = self.embed_parts(Tower::Text, own)?;
        let encode = began.elapsed().as_secs_f64();
        let factor = self.logit_scale().exp();
        let width = self.config.embed_dim;
        let alone;
        let kernels = match &self.engine {
            Some(engine) => engine.kernels(),
            None => {
                let isa = Isa::detect().map_err(ModelError::Kernels)?;
                alone = Kernels::new(isa, 1).map_err(ModelError::Kernels)?;
                &alone
            }
        };
        let z = (z_images.as_slice(), z_texts.as_slice());
        let RingLoss { loss, dscale, dimages, dtexts } =
            ring_loss(ranks, kernels, parts, z, factor as f32, width)?;
        let forward = began.elapsed();

        let image_gradients = self.backward_parts(images, parts, &dimages)?;
        let (image_gradients, text_gradients) = std::thread::scope(|scope| {
            let (wanted, learns) = (self.wanted(Tower::Image, own.owners), self.tower_learns(Tower::Image));
            let exchange = move || {
                let from = began.elapsed();
                let summed = match learns {
                    true => wanted_sum(ranks, parts, image_gradients, wanted),
                    false => Ok(Vec::new()),
                };
                (summed, from, began.elapsed())
            };
            let exchange = scope.spawn(exchange);
            let from = began.elapsed();
            let text_gradients = self.backward_parts(texts, parts, &dtexts);
            let to = began.elapsed();
            let (image_gradients, sent_from, sent_to) =
                exchange.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            tracing::trace!(
                target: "flip::ranks",
                exchange_from_us = sent_from.as_micros() as u64, exchange_to_us = sent_to.as_micros() as u64,
                backward_from_us = from.as_micros() as u64, backward_to_us = to.as_micros() as u64,
                "gradients of the image encoder exchanged while the text encoder ran backward"
            );
            Ok::<_, ModelError>((image_gradients?, text_gradients?))
        })?;
        let text_gradients = match self.tower_learns(Tower::Text) {
            true => wanted_sum(ranks, parts, text_gradients, self.wanted(Tower::Text, own.owners))?,
            false => Vec::new(),
        };

        let mut gradients =
            self.sums(ranks, own.owners, image_gradients, text_gradients).map_err(ModelError::device)?;
        let dlogit_scale = if self.logit_scale_learns() { dscale * factor } else { 0.0 };
        let written = gradients.write(self.logit_scale_place(), &[dlogit_scale as f32]);
        written.map_err(ModelError::device)?;
        let backward = (began.elapsed() - forward).as_secs_f64();
        let seconds = Seconds { encode, forward: forward.as_secs_f64(), backward };
        Ok(LossAndGradients { loss, logit_scale: self.logit_scale(), gradients, seconds })
    }

    fn check(&self, parts: &Parts, own: &OwnParts<'_>) -> Result<(), ModelError> {
        let rows = |part: &Vec<ImageInput>| part.iter().map(|input| input.kept.batch).collect::<Vec<_>>();
        let images: Vec<Vec<usize>> = own.images.iter().map(rows).collect();
        let texts: Vec<Vec<usize>> =
            own.texts.iter().map(|part| part.iter().map(|input| input.kept.batch).collect()).collect();
        let fits = |part: &Vec<usize>| part.iter().sum::<usize>() == parts.rows();
        if images != texts || images.len() != parts.own().len() || !images.iter().all(fits) {
            return Err(ModelError::Batches { images: images.concat(), texts: texts.concat() });
        }
        for (image, text) in own.images.iter().flatten().zip(own.texts.iter().flatten()) {
            image.check(self.config.image.patch)?;
            text.check(self.config.text.context, self.config.text.vocab_size)?;
        }
        Ok(())
    }

    /// Sums over all parts as gradients of those parameters that this rank wants; that of the logit scale is zero.
    fn sums(
        &self,
        ranks: &dyn Ranks,
        owners: Option<&Owners>,
        image_gradients: Vec<f32>,
        text_gradients: Vec<f32>,
    ) -> Result<Flat<f32, D>, D::Err> {
        let device = self.masters.device();
        let Some(owners) = owners else {
            let [_, _, dlogit_scale] = self.zero_gradients(&[Tower::Loss])?.into_towers();
            let towers = [device.hold(image_gradients)?, device.hold(text_gradients)?, dlogit_scale];
            return Ok(Flat::new(device, self.gradient_layout.clone(), towers));
        };
        let mine = |place: usize| owners.owner(place) == ranks.rank() && self.learns(place);
        let own = Layout::new(self.parameters(), mine);
        let mut gradients = Flat::zeros(device, Arc::new(own))?;
        for (tower, sums) in [(Tower::Image, image_gradients), (Tower::Text, text_gradients)] {
            let (layout, mut rest) = (gradients.layout().clone(), sums.as_slice());
            for (place, range) in layout.ranges(tower) {
                let (sum, behind) = rest.split_at(range.len());
                gradients.write(place, sum)?;
                rest = behind;
            }
        }
        Ok(gradients)
    }

    /// Ranges of the gradients of a tower, and the owner of each where there are owners.
    fn wanted(&self, tower: Tower, owners: Option<&Owners>) -> Wanted {
        let (places, ranges): (Vec<usize>, Vec<_>) = self.gradient_layout.ranges(tower).unzip();
        (ranges, owners.map(|owners| places.into_iter().map(|place| owners.owner(place)).collect()))
    }

    /// Embeddings of every micro-batch of this rank.
    fn embed_parts<'a>(
        &self,
        tower: Tower,
        own: OwnParts<'a>,
    ) -> Result<(Vec<f32>, TowerParts<'a, D>), ModelError> {
        let (mut z, mut all) = (Vec::new(), Vec::new());
        let gradients = TapeGradients::empty();
        for part in 0..own.images.len() {
            let keep = own.keep && self.tower_learns(tower);
            let embedded = self.embed(tower, own.part(part), keep.then_some(&gradients));
            let (of_part, kept) = embedded.map_err(ModelError::device)?;
            z.extend(of_part);
            all.push(kept);
        }
        Ok((z, TowerParts { tower, own, gradients, kept: all }))
    }

    /// The gradients of a tower's parameters for each [node](nodes) of this rank's parts. `dz` are the gradients of all of its
    /// embeddings, [rows, embed_dim].
    fn backward_parts(
        &self,
        of: TowerParts<'_, D>,
        parts: &Parts,
        dz: &[f32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let TowerParts { tower, own, gradients, kept } = of;
        if !self.tower_learns(tower) {
            return Ok(Vec::new());
        }
        let (mine, values) = (parts.own(), parts.rows() * self.config.embed_dim);
        let mut kept = kept.into_iter();
        let mut leaf = |part: usize| -> Result<Vec<f32>, ModelError> {
            let at = part - mine.start;
            gradients.put(self.zero_gradients(&[tower]).map_err(ModelError::device)?);
            let (kept, dz) = (kept.next().unwrap_or_default(), &dz[at * values..(at + 1) * values]);
            self.backward(tower, own.part(at), kept, dz, &gradients).map_err(ModelError::device)?;
            let taken = self.masters.device().take(gradients.take().tower_mut(tower));
            taken.map_err(ModelError::device)
        };
        nodes(parts.count(), &mine).into_iter().map(|node| node_sum(node, &mut leaf)).collect()
    }
}

impl<'a> OwnParts<'a> {
    /// The micro-batches of a part.
    fn part(&self, part: usize) -> MicroBatches<'a> {
        MicroBatches { images: &self.images[part], texts: &self.texts[part] }
    }
}

/// Ranges of gradients, and their owners where there are some.
type Wanted = (Vec<Range<usize>>, Option<Vec<usize>>);

/// The sum over all parts: of every gradient, or of those that this rank owns.
fn wanted_sum(
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<Vec<f32>>,
    (ranges, owners): Wanted,
) -> Result<Vec<f32>, RanksError> {
    match owners {
        None => all_reduce(ranks, parts, own, ranges),
        Some(owners) => reduce_scatter(ranks, parts, own, ranges, &owners),
    }
}
