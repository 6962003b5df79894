//! open_clip's CLIP (`open_clip/model.py`): a folder as `save_for_hf` writes it and `local-dir:` reads it.

mod tensors;
mod write;

use std::path::Path;

use serde_json::{Map, Value};

use super::described::Described;
use super::error::ExchangeError;
use super::options::{read_object, Options};
use super::preprocessing::{self, Preprocessing};
use super::timm;
use crate::data::text::{Preparation, TokenizerConfig};
use crate::model::{
    Activation, ImagePool, ImagePositions, ImageTowerConfig, LogitScaleClip, LogitScaleConfig, ModelConfig,
    Normalisation, Projection, TextPool, TextTowerConfig,
};
use tensors::{ImageNames, Naming, TimmHead};
use write::NORM_EPS;
pub(super) use write::{config, has_patch_bias, naming, obstacles, timm_config};

pub(super) const CONFIG: &str = "open_clip_config.json";
/// In the order in which open_clip prefers them.
pub(super) const WEIGHTS: &[&str] =
    &["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors", PICKLE];
const PICKLE: &str = "open_clip_pytorch_model.bin";
/// Rows of the built-in byte-pair vocabulary, which open_clip takes where no other tokenizer is named.
const BUILT_IN_VOCABULARY: usize = 49408;

/// Reads the configuration. Defaults are those of `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`.
pub(super) fn describe(folder: &Path) -> Result<Described, ExchangeError> {
    let path = folder.join(CONFIG);
    let object = read_object(&path)?;
    described(&path, object)
}

/// Follows a configuration; `path` is named in errors.
pub(super) fn described(path: &Path, object: Map<String, Value>) -> Result<Described, ExchangeError> {
    let mut file = Options::new("", object);
    let mut notes = Vec::new();
    // A bare model_cfg is accepted too, as open_clip's own list of models has it.
    let mut model = if file.has("model_cfg") {
        file.object("model_cfg")
    } else {
        std::mem::replace(&mut file, Options::new("", Map::new()))
    };
    let mut vision = model.object("vision_cfg");
    let mut text = model.object("text_cfg");
    let quick = model.flag("quick_gelu");
    let images = preprocessing(&mut file);

    let embed_dim = model.required_size("embed_dim");
    let init = model.number("init_logit_scale", LogitScaleConfig::default().init);
    let custom_text = model.flag("custom_text");
    model.without("multimodal_cfg", &[], "CoCa's decoder is not part of the model");
    let logit_bias = model.has("init_logit_bias").then(|| model.number("init_logit_bias", 0.0));
    let vector_scale = model.flag("nonscalar_logit_scale");
    let (image, image_names, image_scaled) = match vision.has("timm_model_name") {
        true => timm_tower(path, &mut vision)?,
        false => {
            let scaled = vision.has("ls_init_value");
            (image_tower(&mut vision, quick), ImageNames::OpenClip, scaled)
        }
    };
    let image = ImageTowerConfig { pixels: images.pixels, resizing: images.resizing, ..image };
    // open_clip takes its own where none is named, or an empty one.
    let built_in_tokenizer = text.text("hf_tokenizer_name").is_none_or(|name| name.is_empty());
    let preparation = preparation(&mut text);
    let (text_scaled, no_text_projection) = (text.has("ls_init_value"), ends_without_projection(&mut text));
    let text_tower = text_tower(&mut text, quick);
    if no_text_projection {
        notes.push("an identity stands for the projection of texts, which this model does without".into());
        if text_tower.width != embed_dim {
            text.object_to(
                "proj_type",
                format!("none, with {} wide texts and {embed_dim} wide embeddings", text_tower.width),
            );
        }
    }
    let layer_scale = [image_scaled, text_scaled];
    if layer_scale.contains(&true) {
        notes.push("layer scale is part of the matrices before it".into());
    }
    let naming = Naming { image: image_names, custom_text, layer_scale, no_text_projection, vector_scale };

    let mut problems = Vec::new();
    for options in [&mut model, &mut vision, &mut text] {
        options.nothing_else();
    }
    for options in [file, model, vision, text] {
        problems.extend(options.problems);
    }
    if !problems.is_empty() {
        return Err(ExchangeError::config(path, problems));
    }
    let config = ModelConfig {
        image,
        text: text_tower,
        embed_dim,
        normalisation: Normalisation::MaxEps,
        logit_scale: LogitScaleConfig { init, clip: LogitScaleClip::AfterUpdate },
        logit_bias,
    };
    let original = Box::new(move |slot, config: &ModelConfig| naming.original(slot, config));
    Ok(Described { config, built_in_tokenizer, notes, original, text: preparation })
}

/// How captions are prepared besides the tokenizer's own files.
fn preparation(text: &mut Options) -> Preparation {
    let mut kwargs = text.object("tokenizer_kwargs");
    let canonicalize = match kwargs.text("clean").as_deref() {
        Some("canonicalize") => true,
        None | Some("whitespace" | "lower") => false,
        Some(other) => {
            kwargs.object_to("clean", format!("\"{other}\": expected whitespace, lower or canonicalize"));
            false
        }
    };
    let strip_end = kwargs.flag("strip_sep_token");
    kwargs.nothing_else();
    text.problems.append(&mut kwargs.problems);
    Preparation { strip_end, canonicalize, pad: None }
}

/// True if `proj_type` says none, which is read here.
fn ends_without_projection(text: &mut Options) -> bool {
    match text.text("proj_type").as_deref() {
        None | Some("linear") => false,
        Some("none") => true,
        Some(other) => {
            text.object_to("proj_type", format!("\"{other}\": the projection is linear here, or none"));
            false
        }
    }
}

/// A tower of timm, as `TimmModel` of open_clip wraps it.
fn timm_tower(
    path: &Path,
    vision: &mut Options,
) -> Result<(ImageTowerConfig, ImageNames, bool), ExchangeError> {
    let name = vision.text("timm_model_name").unwrap_or_default();
    let size = vision.side("image_size", 224);
    vision.ignore(&["timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout"]);
    // A null is not an absent field: timm's own classifier is the projection then.
    let own_head = vision.is_null("timm_proj");
    let told = vision.text("timm_proj");
    let biased = vision.flag("timm_proj_bias");
    let (head, projection) = match told.as_deref() {
        None if own_head => (TimmHead::Trunk, Projection::Biased),
        Some("") => (TimmHead::Trunk, Projection::Biased),
        Some("none") => (TimmHead::None, Projection::None),
        None | Some("linear") if biased => (TimmHead::Adapter, Projection::Biased),
        None | Some("linear") => (TimmHead::Adapter, Projection::Linear),
        Some(other) => {
            vision.object_to("timm_proj", format!("\"{other}\": expected linear or none"));
            (TimmHead::Adapter, Projection::Linear)
        }
    };
    let tower = timm::of(path.parent().unwrap_or(Path::new("")), &name)?.unwrap_or_else(|| {
        let problem = format!("\"{name}\": an encoder of timm, not one of its plain vision transformers");
        vision.object_to("timm_model_name", problem);
        timm::UNKNOWN
    });
    let image = ImageTowerConfig { projection, ..tower.image(vision, size) };
    Ok((image, ImageNames::Timm { head, qkv: tower.qkv }, tower.layer_scale))
}

fn preprocessing(file: &mut Options) -> Preprocessing {
    let mut options = file.object("preprocess_cfg");
    let told = preprocessing::of_open_clip(&mut options);
    file.problems.append(&mut options.problems);
    told
}

fn image_tower(vision: &mut Options, quick: bool) -> ImageTowerConfig {
    let activation = activation(vision, quick);
    let norm_eps = norm_eps(vision);
    vision.ignore(&[
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
        "timm_drop",
        "timm_drop_path",
        // A mask, and a matter of training.
        "patch_dropout",
        // Without a pooler.
        "attn_pooler_queries",
        "attn_pooler_heads",
    ]);
    vision.without("attentional_pool", &[], "attention pooling is not part of the model");
    // The norm is one of each token alone: before or after choosing the class token is the same.
    let norm_last = vision.flag("final_ln_after_pool");
    let pool = match vision.text("pool_type").as_deref() {
        None | Some("tok") => ImagePool::ClassToken,
        Some("avg") if norm_last => ImagePool::Patches,
        Some(other) => {
            let problem = format!("\"{other}\": expected tok, or avg with final_ln_after_pool");
            vision.object_to("pool_type", problem);
            ImagePool::ClassToken
        }
    };
    // Stored as a table of weights either way.
    vision.without("pos_embed_type", &["learnable", "sin_cos_2d"], "unknown positions");
    vision.without("output_tokens", &[], "tokens are not given out");
    unsupported_blocks(vision);
    let depth = match vision.has("layers") {
        true => vision.layers("ModifiedResNet, not a vision transformer"),
        false => 12,
    };
    let (width, head_width) = (vision.size("width", 768), vision.size("head_width", 64));
    if width % head_width != 0 {
        vision.object_to("head_width", format!("expected a divisor of the width {width}, got {head_width}"));
    }
    ImageTowerConfig {
        size: vision.side("image_size", 224),
        patch: vision.side("patch_size", 16),
        cut_edge: false,
        pixels: Preprocessing::OPENAI.pixels,
        resizing: Preprocessing::OPENAI.resizing,
        width,
        depth,
        heads: (width / head_width).max(1),
        mlp_ratio: vision.number("mlp_ratio", 4.0),
        positions: ImagePositions::Learned,
        pre_norm: !vision.flag("no_ln_pre"),
        class_token: true,
        pool,
        projection: Projection::Linear,
        patch_bias: false,
        activation,
        norm_eps,
    }
}

fn text_tower(text: &mut Options, quick: bool) -> TextTowerConfig {
    let activation = activation(text, quick);
    let norm_eps = norm_eps(text);
    if text.has("hf_model_name") {
        text.without("hf_model_name", &[], "an encoder of transformers, not open_clip's own");
    }
    text.without("embed_cls", &[], "a class token behind the caption (CoCa) is not part of the model");
    let projection = if text.flag("proj_bias") { Projection::Biased } else { Projection::Linear };
    text.without("output_tokens", &[], "tokens are not given out");
    unsupported_blocks(text);
    text.ignore(&[
        "tokenizer_mode",
        // Only of encoders of transformers.
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
        // Padding is not masked by open_clip's CLIP.
        "pad_id",
        // Not applied by open_clip's CLIP.
        "final_ln_after_pool",
    ]);
    let vocab_size = text.size("vocab_size", BUILT_IN_VOCABULARY);
    let end = text.has("eos_id").then(|| text.size("eos_id", 2));
    let pool = match text.text("pool_type").as_deref() {
        None | Some("argmax") => TextPool::EndOfText,
        Some("first") => TextPool::First,
        Some("last") => TextPool::Last,
        // The first largest id is the first end token if no id is larger.
        Some("eos") if end.is_some_and(|end| end + 1 == vocab_size) => TextPool::EndOfText,
        Some("eos") => TextPool::Token(end.unwrap_or(2) as u32),
        Some(other) => {
            text.object_to("pool_type", format!("\"{other}\": expected argmax, first, last or eos"));
            TextPool::EndOfText
        }
    };
    TextTowerConfig {
        tokenizer: TokenizerConfig::ClipBpe("bpe_simple_vocab_16e6.txt.gz".into()),
        vocab_size,
        context: text.size("context_length", 77),
        width: text.size("width", 512),
        depth: text.size("layers", 12),
        heads: text.size("heads", 8),
        mlp_ratio: text.number("mlp_ratio", 4.0),
        causal: !text.flag("no_causal_mask"),
        pool,
        projection,
        activation,
        norm_eps,
    }
}

/// Options that blocks of both towers may have and ours do not.
fn unsupported_blocks(tower: &mut Options) {
    // Its values are folded into the matrices before it.
    tower.ignore(&["ls_init_value"]);
    tower.without("block_type", &["default"], "only open_clip's default block is read");
    for key in ["qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"]
    {
        tower.without(key, &[], "only open_clip's default block is read");
    }
}

fn activation(tower: &mut Options, quick: bool) -> Activation {
    let mut arguments = tower.object("act_kwargs");
    let approximate = arguments.text("approximate");
    arguments.nothing_else();
    tower.problems.append(&mut arguments.problems);
    match (approximate.as_deref(), quick) {
        (None, true) => Activation::QuickGelu,
        (None | Some("none"), false) => Activation::GeluExact,
        (Some("tanh"), false) => Activation::GeluTanh,
        (Some(other), _) => {
            tower.object_to("act_kwargs.approximate", format!("\"{other}\" with quick_gelu {quick}"));
            Activation::GeluExact
        }
    }
}

fn norm_eps(tower: &mut Options) -> f64 {
    let mut arguments = tower.object("norm_kwargs");
    let eps = arguments.number("eps", NORM_EPS);
    arguments.nothing_else();
    tower.problems.append(&mut arguments.problems);
    eps
}

/// True if open_clip's built-in tokenizer serves where none lies beside the weights.
pub(super) fn has_built_in_tokenizer(config: &ModelConfig) -> bool {
    config.text.vocab_size == BUILT_IN_VOCABULARY
}
