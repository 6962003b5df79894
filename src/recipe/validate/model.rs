//! Sizes of the encoders.

use super::Findings;
use crate::data::tokenizer::TokenizerConfig;
use crate::model::{ImagePositions, ModelConfig, TextPool, TextTowerConfig};

/// Entries of CLIP's byte-pair vocabulary, start and end tokens included.
const CLIP_VOCABULARY: usize = 49_408;

pub(super) fn validate(model: &ModelConfig, findings: &mut Findings) {
    let image = &model.image;
    if image.size % image.patch != 0 {
        let fitting = (image.size / image.patch).max(1) * image.patch;
        let message = format!("expected a multiple of the patch ({}), got {}", image.patch, image.size);
        findings
            .add("model.image.size", message)
            .help(format!("{fitting} and {} are multiples", fitting + image.patch))
            .also("model.image.patch", "the patch");
    }
    heads("model.image", image.width, image.heads, findings);
    hidden("model.image", image.width, image.mlp_ratio, findings);
    if image.positions == ImagePositions::SinCos && image.width % 4 != 0 {
        let message = format!("expected a multiple of 4 for sin-cos positions, got {}", image.width);
        findings
            .add("model.image.width", message)
            .help("sine and cosine of row and column take a quarter each; or write `positions: Learned`");
    }
    text(&model.text, findings);
    for (tower, eps) in [("image", image.norm_eps), ("text", model.text.norm_eps)] {
        if eps <= 0.0 {
            findings.add(&format!("model.{tower}.norm_eps"), format!("expected norm_eps > 0, got {eps}"));
        }
    }
    let (init, most) = (model.logit_scale.init, 100f64.ln());
    if !(0.0..=most).contains(&init) {
        let message = format!("expected 0 <= init <= ln 100 = {most:.4}, got {init}");
        findings.add("model.logit_scale.init", message).help("outside, it gets no gradient and stays there");
    }
}

fn heads(tower: &str, width: usize, heads: usize, findings: &mut Findings) {
    if width % heads != 0 {
        let message = format!("expected a divisor of the width ({width}), got {heads}");
        let fitting = (1..heads).rev().find(|heads| width % heads == 0).unwrap_or(1);
        findings
            .add(&format!("{tower}.heads"), message)
            .help(format!("{fitting} heads of {} would do", width / fitting))
            .also(&format!("{tower}.width"), "the width");
    }
}

fn hidden(tower: &str, width: usize, mlp_ratio: f64, findings: &mut Findings) {
    let hidden = width as f64 * mlp_ratio;
    let whole = (hidden - hidden.round()).abs() < 1e-6;
    if !whole || hidden.round() < 1.0 {
        let message =
            format!("expected a ratio that gives a whole hidden width, got {width} * {mlp_ratio} = {hidden}");
        findings.add(&format!("{tower}.mlp_ratio"), message).also(&format!("{tower}.width"), "the width");
    }
}

fn text(text: &TextTowerConfig, findings: &mut Findings) {
    heads("model.text", text.width, text.heads, findings);
    hidden("model.text", text.width, text.mlp_ratio, findings);
    let clip = matches!(text.tokenizer, TokenizerConfig::ClipBpe(_));
    if clip && text.vocab_size < CLIP_VOCABULARY {
        let message = format!(
            "expected at least the {CLIP_VOCABULARY} entries of CLIP's vocabulary, got {}",
            text.vocab_size
        );
        findings.add("model.text.vocab_size", message).also("model.text.tokenizer", "this tokenizer");
    }
    if clip && text.context < 3 {
        let message = format!("expected room for start, one word and end, got {}", text.context);
        findings.add("model.text.context", message).also("model.text.tokenizer", "adds start and end");
    }
    let ends = matches!(text.tokenizer, TokenizerConfig::ClipBpe(_) | TokenizerConfig::Json(_));
    if text.pool == TextPool::EndOfText && !ends {
        findings
            .add("model.text.pool", "EndOfText needs a tokenizer that adds an end token".into())
            .help("use ClipBpe or Json, or pool First or Mean")
            .also("model.text.tokenizer", "adds none");
    }
    if text.pool == TextPool::First && text.causal {
        findings
            .add(
                "model.text.pool",
                "First reads a token that, in a causal encoder, sees nothing but itself".into(),
            )
            .help("pool EndOfText or Mean, or write `causal: false`")
            .also("model.text.causal", "causal");
    }
}
