//! Hugging Face transformers' CLIP (`models/clip/modeling_clip.py`): a folder as `save_pretrained` writes it.

use std::path::Path;

use serde_json::{json, Value};

use super::described::Described;
use super::error::{ExchangeError, Obstacle};
use super::layout::Original;
use super::options::{read_object, Options};
use super::preprocessing;
use super::slot::{InBlock, Slot, Tower};
use crate::data::decode::Resizing;
use crate::data::text::TokenizerConfig;
use crate::model::{
    Activation, ImagePool, ImagePositions, ImageTowerConfig, LogitScaleClip, LogitScaleConfig, ModelConfig,
    Normalisation, PixelNorm, Projection, TextPool, TextTowerConfig,
};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &[&str] = &["model.safetensors"];
/// Before the id of the end token was corrected (transformers pull request 24773) every configuration said 2;
/// transformers takes it to mean the largest id of the caption, which is how ours pools.
const LEGACY_END: usize = 2;
/// Rows of OpenAI's vocabulary, whose last is the end token.
const OPENAI_VOCABULARY: usize = 49408;

/// Reads the configuration. Defaults are those of `CLIPTextConfig`, `CLIPVisionConfig` and `CLIPConfig`,
/// which `save_pretrained` leaves out.
pub(super) fn describe(folder: &Path) -> Result<Described, ExchangeError> {
    let path = folder.join(CONFIG);
    let mut file = Options::new("", read_object(&path)?);
    let mut notes = Vec::new();
    match file.text("model_type").as_deref() {
        Some("clip") => {}
        other => file.object_to("model_type", format!("expected \"clip\", got {other:?}")),
    }
    // Old files carry a second copy, which transformers lets win.
    let mut tower = |name: &str| match file.has(&format!("{name}_dict")) {
        true => file.object(&format!("{name}_dict")),
        false => file.object(name),
    };
    let (mut vision, mut text) = (tower("vision_config"), tower("text_config"));
    let embed_dim = file.size("projection_dim", 512);
    let init = file.number("logit_scale_init_value", 2.6592);
    let image = image_tower(&mut vision);
    let text_tower = text_tower(&mut text);
    let problems: Vec<_> = [file, vision, text].into_iter().flat_map(|options| options.problems).collect();
    if !problems.is_empty() {
        return Err(ExchangeError::config(&path, problems));
    }
    let images = preprocessing::of_transformers(folder, image.size, &mut notes)?;
    let config = ModelConfig {
        image: ImageTowerConfig { pixels: images.pixels, resizing: images.resizing, ..image },
        text: text_tower,
        embed_dim,
        normalisation: Normalisation::MaxEps,
        logit_scale: LogitScaleConfig { init, clip: LogitScaleClip::AfterUpdate },
        logit_bias: None,
    };
    Ok(Described {
        config,
        built_in_tokenizer: false,
        notes,
        original: Box::new(original),
        text: Default::default(),
    })
}

fn image_tower(vision: &mut Options) -> ImageTowerConfig {
    let channels = vision.size("num_channels", 3);
    if channels != 3 {
        vision.object_to("num_channels", format!("expected 3, got {channels}"));
    }
    let (width, mlp_ratio) = widths(vision, 768, 3072);
    ImageTowerConfig {
        size: vision.side("image_size", 224),
        patch: vision.side("patch_size", 32),
        cut_edge: false,
        pixels: PixelNorm::OPENAI,
        resizing: Resizing::default(),
        width,
        depth: vision.size("num_hidden_layers", 12),
        heads: vision.size("num_attention_heads", 12),
        mlp_ratio,
        positions: ImagePositions::Learned,
        pre_norm: true,
        class_token: true,
        pool: ImagePool::ClassToken,
        projection: Projection::Linear,
        patch_bias: false,
        activation: activation(vision),
        norm_eps: vision.number("layer_norm_eps", 1e-5),
    }
}

fn text_tower(text: &mut Options) -> TextTowerConfig {
    let (width, mlp_ratio) = widths(text, 512, 2048);
    let vocab_size = text.size("vocab_size", OPENAI_VOCABULARY);
    let end = text.size("eos_token_id", OPENAI_VOCABULARY - 1);
    // transformers takes the first end token; where no id is larger, that is the first largest.
    let pool = match end {
        LEGACY_END => TextPool::EndOfText,
        end if end + 1 == vocab_size => TextPool::EndOfText,
        end => TextPool::Token(end as u32),
    };
    TextTowerConfig {
        tokenizer: TokenizerConfig::ClipBpe("bpe_simple_vocab_16e6.txt.gz".into()),
        vocab_size,
        context: text.size("max_position_embeddings", 77),
        width,
        depth: text.size("num_hidden_layers", 12),
        heads: text.size("num_attention_heads", 8),
        mlp_ratio,
        causal: true,
        pool,
        projection: Projection::Linear,
        activation: activation(text),
        norm_eps: text.number("layer_norm_eps", 1e-5),
    }
}

/// The width, and the ratio that gives exactly the hidden width.
fn widths(tower: &mut Options, width: usize, hidden: usize) -> (usize, f64) {
    let (width, hidden) = (tower.size("hidden_size", width), tower.size("intermediate_size", hidden));
    let ratio = hidden as f64 / width as f64;
    // The hidden width is the product cut to a whole number: a ratio that was rounded down falls short of it.
    let exact = if (width as f64 * ratio) as usize == hidden { ratio } else { ratio.next_up() };
    (width, exact)
}

fn activation(tower: &mut Options) -> Activation {
    match tower.text("hidden_act").as_deref() {
        None | Some("quick_gelu") => Activation::QuickGelu,
        Some("gelu") => Activation::GeluExact,
        Some("gelu_pytorch_tanh" | "gelu_new") => Activation::GeluTanh,
        Some(other) => {
            tower.object_to(
                "hidden_act",
                format!("\"{other}\": expected quick_gelu, gelu, gelu_new or gelu_pytorch_tanh"),
            );
            Activation::QuickGelu
        }
    }
}

/// Stored by old versions though it is only 0, 1, 2, ...
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
}

/// Place of a parameter of ours in `state_dict()`.
pub(super) fn original(slot: Slot, config: &ModelConfig) -> Original {
    let shape = slot.shape(config);
    let vision = |rest: String| format!("vision_model.{rest}");
    match slot {
        Slot::Patch(_) if shape.len() == 2 => Original::convolution(
            "vision_model.embeddings.patch_embedding.weight",
            config.image.patch,
            config.image.width,
        ),
        Slot::Patch(_) => Original::same("vision_model.embeddings.patch_embedding.bias", &shape),
        Slot::ClassToken => Original::same("vision_model.embeddings.class_embedding", &shape),
        // [sic]
        Slot::PreNorm(part) => Original::same(vision(format!("pre_layrnorm.{}", part.torch())), &shape),
        Slot::Tokens => Original::same("text_model.embeddings.token_embedding.weight", &shape),
        Slot::Positions(Tower::Image) => {
            Original::same("vision_model.embeddings.position_embedding.weight", &shape)
        }
        Slot::Positions(Tower::Text) => {
            Original::same("text_model.embeddings.position_embedding.weight", &shape)
        }
        Slot::FinalNorm(Tower::Image, part) => {
            Original::same(vision(format!("post_layernorm.{}", part.torch())), &shape)
        }
        Slot::FinalNorm(Tower::Text, part) => {
            Original::same(format!("text_model.final_layer_norm.{}", part.torch()), &shape)
        }
        Slot::Projection(Tower::Image) => Original::torch_linear("visual_projection.weight", &shape),
        Slot::Projection(Tower::Text) => Original::torch_linear("text_projection.weight", &shape),
        // This format has none.
        Slot::Pool(_) | Slot::ProjectionBias(_) => Original::same(slot.name(), &shape),
        Slot::LogitScale => Original::reshaped("logit_scale", vec![]),
        // CLIP has none; this is what SigLIP calls it.
        Slot::LogitBias => Original::same("logit_bias", &shape),
        Slot::Block(tower, i, part) => {
            let model = match tower {
                Tower::Image => "vision_model",
                Tower::Text => "text_model",
            };
            let name = |rest: String| format!("{model}.encoder.layers.{i}.{rest}");
            match part {
                InBlock::Norm1(part) => Original::same(name(format!("layer_norm1.{}", part.torch())), &shape),
                InBlock::Norm2(part) => Original::same(name(format!("layer_norm2.{}", part.torch())), &shape),
                InBlock::Qkv(part) => {
                    let thirds =
                        ["q", "k", "v"].map(|third| name(format!("self_attn.{third}_proj.{}", part.name())));
                    Original::torch_linear("", &shape).in_thirds(thirds)
                }
                InBlock::Out(part) => {
                    Original::torch_linear(name(format!("self_attn.out_proj.{}", part.name())), &shape)
                }
                InBlock::Up(part) => Original::torch_linear(name(format!("mlp.fc1.{}", part.name())), &shape),
                InBlock::Down(part) => {
                    Original::torch_linear(name(format!("mlp.fc2.{}", part.name())), &shape)
                }
            }
        }
    }
}

/// Options that transformers' CLIP does not have.
pub(super) fn obstacles(config: &ModelConfig) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |wrong: bool, field, why: String| {
        if wrong {
            found.push(Obstacle { field, why });
        }
    };
    let (image, text) = (&config.image, &config.text);
    add(
        image.pool != ImagePool::ClassToken,
        "image.pool",
        format!("{:?}: transformers' CLIP takes the class token; it would need ClassToken", image.pool),
    );
    add(
        !image.pre_norm,
        "image.pre_norm",
        "false: transformers' CLIP always norms before the first block".into(),
    );
    add(config.logit_bias.is_some(), "logit_bias", "transformers' CLIP has none".into());
    add(!text.causal, "text.causal", "false: transformers' CLIP is always causal".into());
    add(
        !matches!(text.pool, TextPool::EndOfText | TextPool::Token(_))
            || text.pool == TextPool::Token(LEGACY_END as u32),
        "text.pool",
        format!("{:?}: transformers' CLIP takes the end token; it would need EndOfText", text.pool),
    );
    add(!image.class_token, "image.class_token", "false: transformers' CLIP always has a class token".into());
    for (field, projection) in [("image.projection", image.projection), ("text.projection", text.projection)]
    {
        let why =
            format!("{projection:?}: transformers' CLIP has a matrix without a bias; it would need Linear");
        add(projection != Projection::Linear, field, why);
    }
    found.extend(preprocessing::obstacle(image));
    found
}

/// The configuration that [`describe`] reads as `config`, which has learned positions and no patch bias.
pub(super) fn config(config: &ModelConfig) -> Value {
    let (image, text) = (&config.image, &config.text);
    let end = match (text.pool, text.vocab_size) {
        (TextPool::Token(id), _) => id as usize,
        (_, OPENAI_VOCABULARY) => OPENAI_VOCABULARY - 1,
        _ => LEGACY_END,
    };
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale.init,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": text.hidden(),
            "projection_dim": config.embed_dim,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context,
            "hidden_act": activation_name(text.activation),
            "layer_norm_eps": text.norm_eps,
            "bos_token_id": end.saturating_sub(1),
            "eos_token_id": end,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": image.width,
            "intermediate_size": image.hidden(),
            "projection_dim": config.embed_dim,
            "num_hidden_layers": image.depth,
            "num_attention_heads": image.heads,
            "num_channels": 3,
            "image_size": image.size,
            "patch_size": image.patch,
            "hidden_act": activation_name(image.activation),
            "layer_norm_eps": image.norm_eps,
        },
    })
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::GeluExact => "gelu",
        Activation::QuickGelu => "quick_gelu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_widths_that_are_no_round_multiple_are_exact() {
        for width in [7, 24, 96, 1152, 1280, 1408, 1664] {
            for hidden in (1..6 * width).step_by(1 + width / 50) {
                let fields = json!({ "hidden_size": width, "intermediate_size": hidden });
                let Value::Object(fields) = fields else { unreachable!() };
                let (width, ratio) = widths(&mut Options::new("vision_config", fields), 1, 1);
                assert_eq!((width as f64 * ratio) as usize, hidden, "{width}");
            }
        }
    }
}
