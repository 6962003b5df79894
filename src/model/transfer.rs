//! Weights made with one configuration as the start of a model of another: which options must agree, and
//! positions at another image size.

use std::fmt;

use super::config::{ImagePositions, ModelConfig};
use super::error::Violation;
use super::resample;
use crate::parameter::NamedTensor;

/// Name of the learned positions of image patches.
const POSITIONS: &str = "image.positions";

impl ModelConfig {
    /// The options that no shape of a tensor shows and that decide what weights made with `other` mean, where they
    /// differ. The image size is not among them, and neither is how the temperature is kept in its range.
    pub fn unlike(&self, other: &ModelConfig) -> Vec<Violation> {
        let mut found = Vec::new();
        let (image, text) = (&self.image, &self.text);
        let (of_image, of_text) = (&other.image, &other.text);
        differ(&mut found, "image.pixels", &image.pixels, &of_image.pixels);
        differ(&mut found, "image.heads", &image.heads, &of_image.heads);
        differ(&mut found, "image.positions", &image.positions, &of_image.positions);
        differ(&mut found, "image.pool", &image.pool, &of_image.pool);
        differ(&mut found, "image.class_token", &image.class_token, &of_image.class_token);
        differ(&mut found, "image.projection", &image.projection, &of_image.projection);
        differ(&mut found, "image.activation", &image.activation, &of_image.activation);
        differ(&mut found, "image.norm_eps", &image.norm_eps, &of_image.norm_eps);
        differ(&mut found, "text.heads", &text.heads, &of_text.heads);
        differ(&mut found, "text.causal", &text.causal, &of_text.causal);
        differ(&mut found, "text.pool", &text.pool, &of_text.pool);
        differ(&mut found, "text.projection", &text.projection, &of_text.projection);
        differ(&mut found, "text.activation", &text.activation, &of_text.activation);
        differ(&mut found, "text.norm_eps", &text.norm_eps, &of_text.norm_eps);
        differ(&mut found, "normalisation", &self.normalisation, &other.normalisation);
        found
    }

    /// Brings learned positions of image patches in `tensors`, those of a model of `self`, to the image size of
    /// `to`, as open_clip does: bicubic, antialiased. Returns what was done, where something was. Everything else
    /// is left alone, whether it fits or not.
    pub fn resample_positions(&self, tensors: &mut [NamedTensor], to: &ModelConfig) -> Option<String> {
        let (before, after, width) = (self.image.grid(), to.image.grid(), self.image.width);
        let learned = [self, to].iter().all(|config| config.image.positions == ImagePositions::Learned);
        let prefix = self.image.prefix();
        let expected = [prefix + before * before, width];
        let table = tensors.iter_mut().find(|tensor| tensor.name == POSITIONS && tensor.shape == expected);
        let table = table.filter(|_| learned && before != after)?;
        table.data = resample::positions(&table.data, prefix, before, after, width);
        table.shape[0] = prefix + after * after;
        Some(format!(
            "positions resampled from {before} x {before} to {after} x {after} patches (bicubic, antialiased) for \
             images of {} instead of {}",
            to.image.size, self.image.size
        ))
    }
}

fn differ<T: PartialEq + fmt::Debug>(found: &mut Vec<Violation>, field: &str, here: &T, there: &T) {
    if here != there {
        let problem = format!("the weights to start from were made with {there:?}, got {here:?}");
        found.push(Violation { field: field.into(), problem });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny_config;
    use super::super::{Activation, Flip};
    use super::*;
    use dfdx::prelude::Cpu;

    #[test]
    fn options_that_no_shape_shows_are_told_by_name() {
        let config = tiny_config();
        let mut other = config.clone();
        assert!(config.unlike(&other).is_empty());
        other.image.size *= 2;
        other.text.activation = Activation::QuickGelu;
        other.image.heads = 1;
        let told: Vec<String> = config.unlike(&other).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("model.text.activation: "), "{told:?}");
        assert!(told[1].contains("QuickGelu"), "{told:?}");
    }

    #[test]
    fn positions_follow_the_image_and_nothing_else_moves() {
        let mut config = tiny_config();
        config.image.positions = ImagePositions::Learned;
        let mut larger = config.clone();
        larger.image.size *= 2;
        let weights = Flip::<f32, Cpu>::new(&Cpu::default(), &config, 3).unwrap().export().unwrap();
        let mut moved = weights.clone();
        assert!(config.resample_positions(&mut moved, &larger).unwrap().contains("resampled"));
        let mut model = Flip::<f32, Cpu>::new(&Cpu::default(), &larger, 4).unwrap();
        model.import(&moved).unwrap();
        for (now, before) in moved.iter().zip(&weights) {
            assert_eq!(now == before, now.name != POSITIONS, "{}", now.name);
        }
        assert_eq!(config.resample_positions(&mut moved, &config), None);
    }
}
