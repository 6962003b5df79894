//! Loss and gradients of a batch in parts, of which this process has some: the same as of the whole batch, on any number of
//! ranks.
//!
//! Each part is encoded, in micro-batches, and sent back by itself, into gradients of its own; these are added along the
//! [tree](crate::ranks::tree) of the parts. While the gradients of the image encoder are exchanged, the text encoder is
//! sent back.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use dfdx::prelude::*;

use super::engine::Node;
use super::error::ModelError;
use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::replay::{run_back, send_back, LossAndGradients, Recorded, Seconds};
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
    /// Whether the activations of all micro-batches are kept for the way back; else each is encoded twice.
    pub keep: bool,
}

/// A recorded forward pass.
enum Kept<D: Storage<f32>> {
    Node(Node<(usize, usize), f32, D>),
    Taped(Recorded<f32, D>),
}

/// An encoder on the parts of this rank.
struct OfTower<'a, D: Storage<f32>> {
    tower: Tower,
    own: OwnParts<'a>,
    /// What recorded passes add to.
    gradients: TapeGradients<f32, D>,
    /// Recorded passes of all micro-batches where they are kept, part by part.
    kept: Vec<Vec<Kept<D>>>,
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
        let (z_images, images) = self.encode(Tower::Image, own)?;
        let (z_texts, texts) = self.encode(Tower::Text, own)?;
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

        let of_images = self.send_back_parts(images, parts, &dimages)?;
        let (of_images, of_texts) = std::thread::scope(|scope| {
            let wanted = self.wanted(Tower::Image, own.owners);
            let exchange = move || {
                let from = began.elapsed();
                let summed = wanted_sum(ranks, parts, of_images, wanted);
                (summed, from, began.elapsed())
            };
            let exchange = scope.spawn(exchange);
            let from = began.elapsed();
            let of_texts = self.send_back_parts(texts, parts, &dtexts);
            let to = began.elapsed();
            let (of_images, sent_from, sent_to) =
                exchange.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            tracing::trace!(
                target: "flip::ranks",
                exchange_from_us = sent_from.as_micros() as u64, exchange_to_us = sent_to.as_micros() as u64,
                backward_from_us = from.as_micros() as u64, backward_to_us = to.as_micros() as u64,
                "gradients of the image encoder exchanged while the text encoder was sent back"
            );
            Ok::<_, ModelError>((of_images?, of_texts?))
        })?;
        let of_texts = wanted_sum(ranks, parts, of_texts, self.wanted(Tower::Text, own.owners))?;

        let mut gradients = self.sums(ranks, own.owners, of_images, of_texts).map_err(ModelError::device)?;
        let of_scale = if self.logit_scale_learns() { dscale * factor } else { 0.0 };
        let written = gradients.write(self.logit_scale_place(), &[of_scale as f32]);
        written.map_err(ModelError::device)?;
        let backward = (began.elapsed() - forward).as_secs_f64();
        let seconds = Seconds { forward: forward.as_secs_f64(), backward };
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
        of_images: Vec<f32>,
        of_texts: Vec<f32>,
    ) -> Result<Flat<f32, D>, D::Err> {
        let device = self.masters.device();
        let Some(owners) = owners else {
            let [_, _, of_scale] = self.zero_gradients(&[Tower::Loss])?.into_towers();
            let towers = [device.hold(of_images)?, device.hold(of_texts)?, of_scale];
            return Ok(Flat::new(device, self.gradient_layout.clone(), towers));
        };
        let own = Layout::new(self.parameters(), |place| owners.owner(place) == ranks.rank());
        let mut gradients = Flat::zeros(device, Arc::new(own))?;
        for (tower, sums) in [(Tower::Image, of_images), (Tower::Text, of_texts)] {
            let (layout, mut rest) = (gradients.layout().clone(), sums.as_slice());
            for (place, range) in layout.ranges(tower) {
                let (sum, behind) = rest.split_at(range.len());
                gradients.write(place, sum)?;
                rest = behind;
            }
        }
        Ok(gradients)
    }

    /// Where the gradients of a tower lie, and the owner of each where there are owners.
    fn wanted(&self, tower: Tower, owners: Option<&Owners>) -> Wanted {
        let (places, ranges): (Vec<usize>, Vec<_>) = self.gradient_layout.ranges(tower).unzip();
        (ranges, owners.map(|owners| places.into_iter().map(|place| owners.owner(place)).collect()))
    }

    /// Embeddings of every micro-batch of this rank.
    fn encode<'a>(&self, tower: Tower, own: OwnParts<'a>) -> Result<(Vec<f32>, OfTower<'a, D>), ModelError> {
        let mut of_tower = OfTower { tower, own, gradients: TapeGradients::empty(), kept: Vec::new() };
        let mut z = Vec::new();
        for part in 0..own.images.len() {
            let mut of_part = Vec::new();
            for unit in 0..own.images[part].len() {
                if own.keep {
                    let recorded = self.record(&of_tower, part, unit)?;
                    z.extend(match &recorded {
                        Kept::Node(node) => node.value.as_vec(),
                        Kept::Taped(z) => z.as_vec(),
                    });
                    of_part.push(recorded);
                } else {
                    let embedded = match tower {
                        Tower::Image => self.encode_images::<NoneTape>(&own.images[part][unit], None),
                        _ => self.encode_texts::<NoneTape>(&own.texts[part][unit], None),
                    };
                    z.extend(embedded.map_err(ModelError::device)?.as_vec());
                }
            }
            of_tower.kept.push(of_part);
        }
        Ok((z, of_tower))
    }

    /// A micro-batch, recorded.
    fn record(&self, of: &OfTower<'_, D>, part: usize, unit: usize) -> Result<Kept<D>, ModelError> {
        let (images, texts) = (&of.own.images[part][unit], &of.own.texts[part][unit]);
        let recorded = match (of.tower, self.engine.as_deref()) {
            (Tower::Image, Some(engine)) => engine.images(&self.masters, images, true).map(Kept::Node),
            (_, Some(engine)) => engine.texts(&self.masters, texts, true).map(Kept::Node),
            (Tower::Image, None) => self.encode_images(images, Some(&of.gradients)).map(Kept::Taped),
            (_, None) => self.encode_texts(texts, Some(&of.gradients)).map(Kept::Taped),
        };
        recorded.map_err(ModelError::device)
    }

    /// The gradients of a tower's parameters for each [node](nodes) of this rank's parts. `wanted`
    /// are the gradients of all of its embeddings, [rows, embed_dim].
    fn send_back_parts(
        &self,
        mut of: OfTower<'_, D>,
        parts: &Parts,
        wanted: &[f32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mine = parts.own();
        let mut kept = std::mem::take(&mut of.kept).into_iter();
        let of_part = parts.rows() * self.config.embed_dim;
        let mut leaf = |part: usize| -> Result<Vec<f32>, ModelError> {
            let at = part - mine.start;
            let wanted = &wanted[at * of_part..(at + 1) * of_part];
            self.send_back_part(&of, at, kept.next().unwrap_or_default(), wanted)
        };
        nodes(parts.count(), &mine).into_iter().map(|node| node_sum(node, &mut leaf)).collect()
    }

    fn send_back_part(
        &self,
        of: &OfTower<'_, D>,
        part: usize,
        kept: Vec<Kept<D>>,
        wanted: &[f32],
    ) -> Result<Vec<f32>, ModelError> {
        of.gradients.put(self.zero_gradients(&[of.tower]).map_err(ModelError::device)?);
        let mut rest = wanted;
        let mut kept = kept.into_iter();
        for (unit, images) in of.own.images[part].iter().enumerate() {
            let (of_unit, after) = rest.split_at(images.kept.batch * self.config.embed_dim);
            rest = after;
            let recorded = match kept.next() {
                Some(recorded) => recorded,
                None => self.record(of, part, unit)?,
            };
            match recorded {
                Kept::Node(node) => of.gradients.add(|all| run_back(std::iter::once(Ok(node)), of_unit, all)),
                Kept::Taped(z) => send_back(std::iter::once(Ok(z)), of_unit),
            }
            .map_err(ModelError::device)?;
        }
        let mut gradients = of.gradients.take();
        let taken = self.masters.device().take(gradients.tower_mut(of.tower));
        taken.map_err(ModelError::device)
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
