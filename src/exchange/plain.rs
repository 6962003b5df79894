//! A model in plainer terms that compute the same: what other architectures can hold.

use std::borrow::Cow;

use super::slot::{slots, Tower};
use super::slot::{Linear, Slot};
use crate::model::{
    sin_cos_table, ImagePositions, LogitScaleClip, ModelConfig, Normalisation, LOGIT_SCALE_RANGE,
};
use crate::parameter::{Mismatch, NamedTensor};

/// A model with learned positions, with a bias of the patch embedding only where it is wanted, and with a temperature that
/// needs no clipping.
pub(super) struct Plain<'a> {
    pub config: ModelConfig,
    /// A tensor for each of the configuration's slots.
    pub tensors: Vec<(Slot, Cow<'a, NamedTensor>)>,
    /// Notes on changes, a sentence each.
    pub notes: Vec<String>,
}

/// Rewrites a model, with a bias of the patch embedding where `patch_bias`; or says how the tensors are not those of the
/// configuration.
pub(super) fn plain<'a>(
    config: &ModelConfig,
    tensors: &'a [NamedTensor],
    patch_bias: bool,
) -> Result<Plain<'a>, Mismatch> {
    let ours = slots(config);
    let expected: Vec<_> = ours.iter().map(|slot| (slot.name(), slot.shape(config))).collect();
    let paired: Vec<(Slot, &NamedTensor)> =
        ours.into_iter().zip(Mismatch::pair(&expected, tensors)?).collect();
    let of = |wanted: Slot| paired.iter().find(|(slot, _)| *slot == wanted).map(|(_, tensor)| *tensor);
    let mut notes = Vec::new();

    let (grid, width, prefix) = (config.image.grid(), config.image.width, config.image.prefix());
    let mut positions = of(Slot::Positions(Tower::Image)).map(Cow::Borrowed).unwrap_or_else(|| {
        notes.push("fixed sin-cos positions are stored as a table".into());
        Cow::Owned(NamedTensor {
            name: Slot::Positions(Tower::Image).name(),
            shape: vec![prefix + grid * grid, width],
            data: sin_cos_table(grid, width)[(1 - prefix) * width..].to_vec(),
        })
    });
    let bias = of(Slot::Patch(Linear::Bias));
    if let Some(bias) = bias.filter(|_| !patch_bias) {
        notes.push("the bias of the patch embedding is part of the positions of the patches".into());
        for row in positions.to_mut().data.chunks_exact_mut(width).skip(prefix) {
            row.iter_mut().zip(&bias.data).for_each(|(position, bias)| *position += bias);
        }
    }
    let mut scale = of(Slot::LogitScale).map(Cow::Borrowed);
    if let (Some(scale), LogitScaleClip::Forward) = (&mut scale, config.logit_scale.clip) {
        let clamp = |value: f32| f64::from(value).clamp(LOGIT_SCALE_RANGE[0], LOGIT_SCALE_RANGE[1]) as f32;
        if scale.data.iter().any(|&value| clamp(value) != value) {
            notes.push("the logit scale is stored as the forward pass uses it, clipped".into());
            scale.to_mut().data.iter_mut().for_each(|value| *value = clamp(*value));
        }
    }
    if config.normalisation == Normalisation::AddEps {
        notes.push(
            "embeddings are divided by their length without the 1e-8 that is added to it here: the same in single \
             precision unless they are shorter than 0.1"
                .into(),
        );
    }

    let mut config = config.clone();
    config.image.positions = ImagePositions::Learned;
    config.image.patch_bias = patch_bias;
    let tensors = slots(&config).into_iter().filter_map(|slot| {
        let tensor = match slot {
            Slot::Positions(Tower::Image) => Some(positions.clone()),
            Slot::LogitScale => scale.clone(),
            Slot::Patch(Linear::Bias) => Some(bias.map(Cow::Borrowed).unwrap_or_else(|| {
                let data = vec![0.0; width];
                Cow::Owned(NamedTensor { name: slot.name(), shape: vec![width], data })
            })),
            other => of(other).map(Cow::Borrowed),
        };
        tensor.map(|tensor| (slot, tensor))
    });
    let tensors = tensors.collect();
    Ok(Plain { config, tensors, notes })
}
