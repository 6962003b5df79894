//! One ticket to one row of a batch: read, decode, crop, tokenize.

use rand::Rng;

use crate::data::decode::{CropDecoder, Draw, View};
use crate::data::load::{LabelFrom, LoaderOptions, Patches};
use crate::data::source::{Order, Ticket};
use crate::data::text::json;
use crate::data::Cursor;
use crate::data::{Defect, LoadError, Raw};
use crate::seed::{rng, Purpose};

/// A row of a batch.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub key: String,
    pub image: Option<u64>,
    /// [size, size, 3], or [kept, patch * patch * 3]
    pub pixels: Vec<u8>,
    /// [kept], or empty
    pub patches: Vec<u32>,
    /// [context]
    pub tokens: Vec<u32>,
    pub length: u32,
    pub captions: Vec<String>,
    pub label: Option<i64>,
    pub label_set: Option<Vec<u32>>,
    pub number: u64,
    pub after: Cursor,
}

/// Does the work of one thread; it keeps what can be used again.
#[derive(Default)]
pub(crate) struct Preparer {
    decoder: CropDecoder,
}

impl Preparer {
    /// # Errors
    /// The sample has to be left out, or the run to end.
    pub fn prepare(
        &mut self,
        options: &LoaderOptions,
        number: u64,
        ticket: &Ticket,
    ) -> Result<Prepared, LoadError> {
        let sample = options.source.load(ticket)?;
        let wanted = options.limits.check(&sample).and_then(|()| match &options.filter {
            Some(filter) => filter.check(options.source.as_ref(), ticket, &sample),
            None => Ok(()),
        });
        let named = |defect: Defect| defect.of(options.source.sample_name(ticket, &sample.key));
        wanted.map_err(named)?;
        let label = match &options.label {
            LabelFrom::None => None,
            LabelFrom::Source => sample.label,
            LabelFrom::JsonField(field) => {
                let meta = sample.meta.as_ref().map_err(|defect| named(defect.clone()))?;
                meta.as_ref().and_then(|meta| json::whole(meta.get(field)?))
            }
        };
        let Raw { key, image, captions, label_set, .. } = sample;
        let label_set = label_set.filter(|_| options.label == LabelFrom::Source);
        let draw = Draw { seed: options.seed, epoch: ticket.epoch, index: ticket.index };
        let caption = match options.order {
            Order::Shuffled { .. } | Order::Lane { .. } if captions.len() > 1 => {
                rng(draw.seed, Purpose::Caption, draw.epoch, draw.index).gen_range(0..captions.len())
            }
            _ => 0,
        };
        let caption = captions.get(caption).map_or("", String::as_str);
        let row = || -> Result<_, Defect> {
            let (tokens, length) = options
                .tokenizer
                .encode(caption, options.context)
                .map_err(|error| Defect::new("caption_tokens", error.to_string()))?;
            let patches = options.patches.as_ref().map(|patches| (patches.keep)(draw.epoch, draw.index));
            let view = match (&options.patches, &patches) {
                (Some(Patches { side, .. }), Some(ids)) => View::Patches { patch: *side, ids },
                _ => View::Whole,
            };
            let most = options.limits.of_images(options.source.max_pixels());
            let pixels = self.decoder.decode_crop(image, most, &options.transform, view, draw)?;
            Ok((tokens, length, pixels, patches.unwrap_or_default()))
        };
        match row() {
            Ok((tokens, length, pixels, patches)) => Ok(Prepared {
                image: options.source.image_of(ticket, &key),
                key,
                pixels,
                patches,
                tokens,
                length: length as u32,
                captions,
                // A negative class number is the usual way to say that there is none.
                label: label.filter(|&label| label >= 0),
                label_set,
                number,
                after: ticket.after,
            }),
            Err(defect) => Err(defect.of(options.source.sample_name(ticket, &key)).into()),
        }
    }
}
