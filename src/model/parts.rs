//! Loss and gradients of a batch in parts, of which this process has some: the same as of the whole batch, on any number of
//! ranks.
//!
//! Each part is encoded, in micro-batches, and sent back by itself, into gradients of its own; these are added along the
//! [tree](crate::ranks::tree) of the parts. While the gradients of the image encoder are exchanged, the text encoder is
//! sent back.

use std::ops::Range;
use std::time::Instant;

use dfdx::prelude::*;

use super::engine::{Engine, Node};
use super::error::ModelError;
use super::input::{ImageInput, TextInput};
use super::replay::{run_back, LossAndGradients, Recorded, Seconds};
use super::ring_loss::{ring_loss, RingLoss};
use super::Flip;
use crate::kernel::isa::Isa;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{blend, Parameter, Walk};
use crate::ranks::tree::{node_sum, nodes, sum, summed_own};
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

/// An encoder.
#[derive(Clone, Copy)]
enum Tower {
    Image,
    Text,
}

/// A recorded forward pass.
enum Kept<D: Storage<f32>> {
    Node(Node<(usize, usize), f32, D>),
    Taped(Recorded<f32, D>),
}

/// The gradient of each parameter of a tower.
type OfTower = Vec<Vec<f32>>;

/// Embeddings of all micro-batches of this rank, and their recorded passes where they are kept, part by part.
type Encoded<D> = (Vec<f32>, Vec<Vec<Kept<D>>>);

impl<D: Device<f32>> Flip<f32, D> {
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
        let (z_images, kept_images) = self.encode(Tower::Image, &own)?;
        let (z_texts, kept_texts) = self.encode(Tower::Text, &own)?;
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

        let of_images = self.send_back_parts(Tower::Image, parts, &own, kept_images, &dimages)?;
        let (of_images, of_texts) = std::thread::scope(|scope| {
            let owners = self.owners(Tower::Image, own.owners);
            let exchange = move || {
                let from = began.elapsed();
                let summed = wanted_sum(ranks, parts, of_images, owners);
                (summed, from, began.elapsed())
            };
            let exchange = scope.spawn(exchange);
            let from = began.elapsed();
            let of_texts = self.send_back_parts(Tower::Text, parts, &own, kept_texts, &dtexts);
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
        let of_texts = wanted_sum(ranks, parts, of_texts, self.owners(Tower::Text, own.owners))?;

        let mine = |place: usize| own.owners.is_none_or(|owners| owners.owner(place) == ranks.rank());
        let mut gradients = Gradients::leaky();
        for (tower, sums) in [(Tower::Image, of_images), (Tower::Text, of_texts)] {
            let sums = self.places(tower).zip(self.tower(tower)).zip(sums);
            for ((_, parameter), sum) in sums.filter(|((place, _), _)| mine(*place)) {
                self.put_gradient(parameter, &mut gradients, sum)?;
            }
        }
        let of_scale = if self.logit_scale_learns() { dscale * factor } else { 0.0 };
        self.put_gradient(&self.logit_scale, &mut gradients, vec![of_scale as f32])?;
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

    fn tower(&self, tower: Tower) -> Vec<&Parameter<f32, D>> {
        match tower {
            Tower::Image => self.image.parameters(),
            Tower::Text => self.text.parameters(),
        }
    }

    /// Where a tower's parameters are in the walk over the model.
    fn places(&self, tower: Tower) -> Range<usize> {
        let images = self.image.parameters().len();
        match tower {
            Tower::Image => 0..images,
            Tower::Text => images..images + self.text.parameters().len(),
        }
    }

    /// The owner of each parameter of a tower.
    fn owners(&self, tower: Tower, owners: Option<&Owners>) -> Option<Vec<usize>> {
        owners.map(|owners| self.places(tower).map(|place| owners.owner(place)).collect())
    }

    /// Encodes every micro-batch of this rank.
    fn encode(&self, tower: Tower, own: &OwnParts<'_>) -> Result<Encoded<D>, ModelError> {
        let (mut z, mut kept) = (Vec::new(), Vec::new());
        for part in 0..own.images.len() {
            let mut of_part = Vec::new();
            for unit in 0..own.images[part].len() {
                if own.keep {
                    let recorded = self.record(tower, own, part, unit)?;
                    z.extend(match &recorded {
                        Kept::Node(node) => node.value.as_vec(),
                        Kept::Taped(z) => z.as_vec(),
                    });
                    of_part.push(recorded);
                } else {
                    let embedded = match tower {
                        Tower::Image => self.encode_images::<NoneTape>(&own.images[part][unit]),
                        Tower::Text => self.encode_texts::<NoneTape>(&own.texts[part][unit]),
                    };
                    z.extend(embedded.map_err(ModelError::device)?.as_vec());
                }
            }
            kept.push(of_part);
        }
        Ok((z, kept))
    }

    /// A micro-batch, recorded.
    fn record(
        &self,
        tower: Tower,
        own: &OwnParts<'_>,
        part: usize,
        unit: usize,
    ) -> Result<Kept<D>, ModelError> {
        let engine: Option<&dyn Engine<f32, D>> = self.engine.as_deref();
        let recorded = match (tower, engine) {
            (Tower::Image, Some(engine)) => {
                engine.images(&self.tower(tower), &own.images[part][unit], true).map(Kept::Node)
            }
            (Tower::Text, Some(engine)) => {
                engine.texts(&self.tower(tower), &own.texts[part][unit], true).map(Kept::Node)
            }
            (Tower::Image, None) => self.encode_images(&own.images[part][unit]).map(Kept::Taped),
            (Tower::Text, None) => self.encode_texts(&own.texts[part][unit]).map(Kept::Taped),
        };
        recorded.map_err(ModelError::device)
    }

    /// The gradients of a tower's parameters for each [node](nodes) of this rank's parts. `wanted`
    /// are the gradients of all of its embeddings, [rows, embed_dim].
    fn send_back_parts(
        &self,
        tower: Tower,
        parts: &Parts,
        own: &OwnParts<'_>,
        kept: Vec<Vec<Kept<D>>>,
        wanted: &[f32],
    ) -> Result<Vec<OfTower>, ModelError> {
        let mine = parts.own();
        let mut kept = kept.into_iter();
        let of_part = parts.rows() * self.config.embed_dim;
        let mut leaf = |part: usize| -> Result<OfTower, ModelError> {
            let at = part - mine.start;
            let wanted = &wanted[at * of_part..(at + 1) * of_part];
            self.send_back_part(tower, own, at, kept.next().unwrap_or_default(), wanted)
        };
        nodes(parts.count(), &mine).into_iter().map(|node| node_sum(node, &mut leaf)).collect()
    }

    fn send_back_part(
        &self,
        tower: Tower,
        own: &OwnParts<'_>,
        part: usize,
        kept: Vec<Kept<D>>,
        wanted: &[f32],
    ) -> Result<OfTower, ModelError> {
        let mut gradients = Gradients::leaky();
        let units = own.images[part].len();
        let mut rest = wanted;
        let mut kept = kept.into_iter();
        for unit in 0..units {
            let rows = own.images[part][unit].kept.batch;
            let (of_unit, after) = rest.split_at(rows * self.config.embed_dim);
            rest = after;
            let recorded = match kept.next() {
                Some(recorded) => recorded,
                None => self.record(tower, own, part, unit)?,
            };
            match (recorded, tower) {
                (Kept::Node(node), _) => run_back(std::iter::once(Ok(node)), of_unit, &mut gradients),
                (Kept::Taped(z), Tower::Image) => {
                    self.send_back(&self.image, std::iter::once(Ok(z)), of_unit, &mut gradients)
                }
                (Kept::Taped(z), Tower::Text) => {
                    self.send_back(&self.text, std::iter::once(Ok(z)), of_unit, &mut gradients)
                }
            }
            .map_err(ModelError::device)?;
        }
        let of_each = self.tower(tower).into_iter().map(|parameter| match &self.engine {
            Some(engine) => engine.take_gradient(parameter, &mut gradients),
            None => {
                gradients.try_alloc_for(&parameter.master).map(|()| gradients.get(&parameter.master).as_vec())
            }
        });
        of_each.map(|gradient| gradient.map_err(ModelError::device)).collect()
    }

    fn put_gradient(
        &self,
        parameter: &Parameter<f32, D>,
        gradients: &mut Gradients<f32, D>,
        values: Vec<f32>,
    ) -> Result<(), ModelError> {
        let put = match &self.engine {
            Some(engine) => engine.put_gradient(parameter, gradients, values),
            None => (parameter.master.device())
                .try_tensor_from_vec(values, *parameter.master.shape())
                .and_then(|values| blend(gradients, parameter, 0.0, values)),
        };
        put.map_err(ModelError::device)
    }
}

/// The sum over all parts: of every gradient, or of those that this rank owns.
fn wanted_sum(
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<OfTower>,
    owners: Option<Vec<usize>>,
) -> Result<OfTower, RanksError> {
    match owners {
        None => sum(ranks, parts, own),
        Some(owners) => summed_own(ranks, parts, own, &owners),
    }
}
