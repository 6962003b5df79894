//! Checks of sizes. Everything that is wrong is told at once, without building anything.

use super::config::{
    ImagePool, ImagePositions, ImageTowerConfig, ModelConfig, Projection, TextPool, TextTowerConfig,
};
use super::error::Violation;

/// Largest width, vocabulary, image and so on: far above any model, low enough that no count overflows.
const LARGEST: usize = 1 << 20;
/// Largest number of blocks.
const DEEPEST: usize = 1 << 12;

impl ModelConfig {
    /// Every size that cannot be built, in the order of the fields; empty where the model can be.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Findings::default();
        self.image.check(&mut found);
        self.text.check(&mut found);
        found.size("embed_dim", self.embed_dim, LARGEST);
        if self.image.projection == Projection::None {
            if self.image.pool != ImagePool::Attention {
                let problem =
                    format!("expected Linear or Biased with image.pool {:?}, got None", self.image.pool);
                found.add("image.projection", problem);
            } else if self.image.width != self.embed_dim {
                let problem = format!(
                    "None needs as many embed_dim ({}) as image.width ({})",
                    self.embed_dim, self.image.width
                );
                found.add("image.projection", problem);
            }
        }
        if !self.logit_scale.init.is_finite() {
            found.add("logit_scale.init", format!("expected a finite number, got {}", self.logit_scale.init));
        }
        if let Some(bias) = self.logit_bias.filter(|bias| !bias.is_finite()) {
            found.add("logit_bias", format!("expected a finite number, got {bias}"));
        }
        found.0
    }
}

impl ImageTowerConfig {
    fn check(&self, found: &mut Findings) {
        let sized =
            found.size("image.size", self.size, LARGEST) & found.size("image.patch", self.patch, 1024);
        if sized && self.size < self.patch {
            found.add(
                "image.size",
                format!("expected at least image.patch ({}), got {}", self.patch, self.size),
            );
        } else if sized && !self.cut_edge && !self.size.is_multiple_of(self.patch) {
            let near = (self.size / self.patch).max(1) * self.patch;
            let problem = format!(
                "expected a multiple of image.patch ({}), got {}; {near} would do",
                self.patch, self.size
            );
            found.add("image.size", problem);
        }
        if let Some(mean) = self.pixels.mean.into_iter().find(|mean| !mean.is_finite()) {
            found.add("image.pixels.mean", format!("expected three finite numbers, got {mean}"));
        }
        if let Some(std) = self.pixels.std.into_iter().find(|std| !(*std > 0.0 && std.is_finite())) {
            found.add("image.pixels.std", format!("expected three positive numbers, got {std}"));
        }
        found.blocks("image", self.width, self.depth, self.heads, self.mlp_ratio, self.norm_eps);
        if !self.class_token && matches!(self.pool, ImagePool::ClassToken | ImagePool::Patches) {
            let problem =
                format!("expected Mean or Attention without image.class_token, got {:?}", self.pool);
            found.add("image.pool", problem);
        }
        if self.positions == ImagePositions::SinCos && !self.width.is_multiple_of(4) {
            let problem = format!(
                "expected a multiple of 4, as the sines and cosines of row and column each take a quarter, got {}",
                self.width
            );
            found.add("image.width", problem);
        }
    }
}

impl TextTowerConfig {
    fn check(&self, found: &mut Findings) {
        found.size("text.vocab_size", self.vocab_size, LARGEST);
        found.size("text.context", self.context, LARGEST);
        if self.projection == Projection::None {
            found.add("text.projection", "expected Linear or Biased, got None".into());
        }
        if let TextPool::Token(id) = self.pool {
            if id as usize >= self.vocab_size {
                let problem =
                    format!("expected Token of an id below text.vocab_size ({}), got {id}", self.vocab_size);
                found.add("text.pool", problem);
            }
        }
        found.blocks("text", self.width, self.depth, self.heads, self.mlp_ratio, self.norm_eps);
    }
}

#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, field: impl Into<String>, problem: String) {
        self.0.push(Violation { field: field.into(), problem });
    }

    /// True if `value` is a size that can be counted with.
    fn size(&mut self, field: &str, value: usize, largest: usize) -> bool {
        let fits = (1..=largest).contains(&value);
        if !fits {
            self.add(field, format!("expected 1 to {largest}, got {value}"));
        }
        fits
    }

    fn blocks(&mut self, tower: &str, width: usize, depth: usize, heads: usize, mlp_ratio: f64, eps: f64) {
        let wide = self.size(&format!("{tower}.width"), width, LARGEST);
        self.size(&format!("{tower}.depth"), depth, DEEPEST);
        let headed = self.size(&format!("{tower}.heads"), heads, LARGEST);
        if wide && headed && !width.is_multiple_of(heads) {
            let problem = format!("expected a divisor of {tower}.width ({width}), got {heads}");
            self.add(format!("{tower}.heads"), problem);
        }
        let hidden = width as f64 * mlp_ratio;
        if wide && !(1.0..=LARGEST as f64).contains(&hidden) {
            let problem = format!("expected a hidden width of 1 to {LARGEST}, got {width} * {mlp_ratio}");
            self.add(format!("{tower}.mlp_ratio"), problem);
        }
        if !(eps > 0.0 && eps.is_finite()) {
            self.add(format!("{tower}.norm_eps"), format!("expected a positive number, got {eps}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny_config;

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut config = tiny_config();
        config.image.size = 30;
        config.image.width = 18;
        config.image.heads = 4;
        config.text.depth = 0;
        config.text.norm_eps = 0.0;
        config.embed_dim = 1 << 30;
        let told: Vec<String> = config.check().iter().map(ToString::to_string).collect();
        let expected = [
            "model.image.size: expected a multiple of image.patch (4), got 30; 28 would do",
            "model.image.heads: expected a divisor of image.width (18), got 4",
            "model.image.width: expected a multiple of 4, as the sines and cosines of row and column each take a \
             quarter, got 18",
            "model.text.depth: expected 1 to 4096, got 0",
            "model.text.norm_eps: expected a positive number, got 0",
            "model.embed_dim: expected 1 to 1048576, got 1073741824",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_zero_is_told_and_divides_nothing() {
        let mut config = tiny_config();
        config.image.patch = 0;
        config.text.heads = 0;
        let fields: Vec<String> = config.check().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["image.patch", "text.heads"]);
    }
}
