//! The encoders: what their own check says, and how they fit the tokenizer.

use super::Findings;
use crate::data::text::TokenizerConfig;
use crate::model::{ModelConfig, TextPool, TextTowerConfig, LOGIT_SCALE_RANGE};

/// Entries of CLIP's byte-pair vocabulary, start and end tokens included.
const CLIP_VOCABULARY: usize = 49_408;

pub(super) fn validate(model: &ModelConfig, findings: &mut Findings) {
    for violation in model.check() {
        findings.add(&format!("model.{}", violation.field), violation.problem);
    }
    whole_hidden_width("model.image", model.image.width, model.image.mlp_ratio, findings);
    whole_hidden_width("model.text", model.text.width, model.text.mlp_ratio, findings);
    text(&model.text, findings);
    let [low, high] = LOGIT_SCALE_RANGE;
    let init = model.logit_scale.init;
    if !(low..=high).contains(&init) {
        let message = format!("expected {low} <= init <= ln 100 = {high:.4}, got {init}");
        findings.add("model.logit_scale.init", message).help("outside, it gets no gradient and stays there");
    }
}

/// A hidden width that had to be rounded would surprise whoever loads the weights elsewhere.
fn whole_hidden_width(tower: &str, width: usize, mlp_ratio: f64, findings: &mut Findings) {
    let hidden = width as f64 * mlp_ratio;
    if hidden >= 1.0 && (hidden - hidden.round()).abs() > 1e-6 {
        let message = format!("expected a whole hidden width, got {width} * {mlp_ratio} = {hidden}");
        findings.add(&format!("{tower}.mlp_ratio"), message).also(&format!("{tower}.width"), "the width");
    }
}

fn text(text: &TextTowerConfig, findings: &mut Findings) {
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
