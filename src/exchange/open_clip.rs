//! open_clip's CLIP (`open_clip/model.py`): a folder as `save_for_hf` writes it and `local-dir:` reads it.

use std::path::Path;

use serde_json::{json, Map, Value};

use super::error::{ExchangeError, Obstacle};
use super::layout::Original;
use super::options::{read_object, Options};
use super::preprocessing::{self, Preprocessing};
use super::slot::{InBlock, Slot, Tower};
use super::tensors::Described;
use super::tokenizer_files::TokenizerFiles;
use crate::data::text::TokenizerConfig;
use crate::model::{
    Activation, ImagePool, ImagePositions, ImageTowerConfig, LogitScaleClip, LogitScaleConfig, ModelConfig,
    Normalisation, Projection, TextPool, TextTowerConfig,
};

pub(super) const CONFIG: &str = "open_clip_config.json";
/// In the order in which open_clip prefers them.
pub(super) const WEIGHTS: &[&str] =
    &["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors", PICKLE];
const PICKLE: &str = "open_clip_pytorch_model.bin";
/// Rows of the built-in byte-pair vocabulary, which open_clip takes where no other tokenizer is named.
const BUILT_IN_VOCABULARY: usize = 49408;
/// open_clip's LayerNorm is PyTorch's.
const NORM_EPS: f64 = 1e-5;

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
    model.without("custom_text", &[], "a text encoder of its own (CustomTextCLIP) is not read");
    model.without("multimodal_cfg", &[], "CoCa's decoder is not part of the model");
    let logit_bias = model.has("init_logit_bias").then(|| model.number("init_logit_bias", 0.0));
    // Only decides whether the logit scale is stored as a number or as a vector of one.
    model.ignore(&["nonscalar_logit_scale"]);
    let image = image_tower(&mut vision, quick, images);
    // open_clip takes its own where none is named, or an empty one.
    let built_in_tokenizer = text.text("hf_tokenizer_name").is_none_or(|name| name.is_empty());
    let text_tower = text_tower(&mut text, quick, &mut notes);

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
    Ok(Described { config, built_in_tokenizer, notes })
}

fn preprocessing(file: &mut Options) -> Preprocessing {
    let mut options = file.object("preprocess_cfg");
    let told = preprocessing::of_open_clip(&mut options);
    file.problems.append(&mut options.problems);
    told
}

fn image_tower(vision: &mut Options, quick: bool, images: Preprocessing) -> ImageTowerConfig {
    let activation = activation(vision, quick);
    let norm_eps = norm_eps(vision);
    if vision.has("timm_model_name") {
        vision.without("timm_model_name", &[], "an encoder of timm, not a plain vision transformer");
    }
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
        // The norm is one of each token alone: before or after choosing the class token is the same.
        "final_ln_after_pool",
    ]);
    vision.without("attentional_pool", &[], "attention pooling is not part of the model");
    vision.without("pool_type", &["tok"], "open_clip's mean leaves the class token out, and ours does not");
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
        pixels: images.pixels,
        resizing: images.resizing,
        width,
        depth,
        heads: (width / head_width).max(1),
        mlp_ratio: vision.number("mlp_ratio", 4.0),
        positions: ImagePositions::Learned,
        pre_norm: !vision.flag("no_ln_pre"),
        class_token: true,
        pool: ImagePool::ClassToken,
        projection: Projection::Linear,
        patch_bias: false,
        activation,
        norm_eps,
    }
}

fn text_tower(text: &mut Options, quick: bool, notes: &mut Vec<String>) -> TextTowerConfig {
    let activation = activation(text, quick);
    let norm_eps = norm_eps(text);
    if text.has("hf_model_name") {
        text.without("hf_model_name", &[], "an encoder of transformers, not open_clip's own");
    }
    text.without("embed_cls", &[], "a class token behind the caption (CoCa) is not part of the model");
    text.without("proj_bias", &[], "the projection has no bias here");
    text.without("proj_type", &["linear"], "the projection is linear here");
    text.without("output_tokens", &[], "tokens are not given out");
    unsupported_blocks(text);
    let kwargs = text.object("tokenizer_kwargs");
    if !kwargs.is_empty() {
        notes.push(
            "text_cfg.tokenizer_kwargs are not applied: compare token ids before trusting results".into(),
        );
    }
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
        Some("eos") => {
            let end = end.unwrap_or(2);
            text.object_to(
                "pool_type",
                format!(
                    "\"eos\" with eos_id {end}: ours pools at the largest id, which is {}",
                    vocab_size - 1
                ),
            );
            TextPool::EndOfText
        }
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
        projection: Projection::Linear,
        activation,
        norm_eps,
    }
}

/// Options that blocks of both towers may have and ours do not.
fn unsupported_blocks(tower: &mut Options) {
    tower.without("ls_init_value", &[], "layer scale is not part of the model");
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

/// Place of a parameter of ours in `state_dict()`.
pub(super) fn original(slot: Slot, config: &ModelConfig) -> Original {
    let shape = slot.shape(config);
    match slot {
        Slot::Patch(_) if shape.len() == 2 => {
            Original::convolution("visual.conv1.weight", config.image.patch, config.image.width)
        }
        Slot::Patch(_) => Original::same("visual.conv1.bias", &shape),
        Slot::ClassToken => Original::same("visual.class_embedding", &shape),
        Slot::PreNorm(part) => Original::same(format!("visual.ln_pre.{}", part.torch()), &shape),
        Slot::Tokens => Original::same("token_embedding.weight", &shape),
        Slot::Positions(Tower::Image) => Original::same("visual.positional_embedding", &shape),
        Slot::Positions(Tower::Text) => Original::same("positional_embedding", &shape),
        Slot::FinalNorm(Tower::Image, part) => {
            Original::same(format!("visual.ln_post.{}", part.torch()), &shape)
        }
        Slot::FinalNorm(Tower::Text, part) => Original::same(format!("ln_final.{}", part.torch()), &shape),
        // Stored as ours are, unlike every other matrix.
        Slot::Projection(Tower::Image) => Original::same("visual.proj", &shape),
        Slot::Projection(Tower::Text) => Original::same("text_projection", &shape),
        Slot::LogitScale => Original::reshaped("logit_scale", vec![]),
        Slot::LogitBias => Original::reshaped("logit_bias", vec![]),
        Slot::Block(tower, i, part) => {
            let prefix = match tower {
                Tower::Image => "visual.",
                Tower::Text => "",
            };
            let name = |rest: String| format!("{prefix}transformer.resblocks.{i}.{rest}");
            match part {
                InBlock::Norm1(part) => Original::same(name(format!("ln_1.{}", part.torch())), &shape),
                InBlock::Norm2(part) => Original::same(name(format!("ln_2.{}", part.torch())), &shape),
                InBlock::Qkv(part) => {
                    Original::torch_linear(name(format!("attn.in_proj_{}", part.name())), &shape)
                }
                InBlock::Out(part) => {
                    Original::torch_linear(name(format!("attn.out_proj.{}", part.name())), &shape)
                }
                InBlock::Up(part) => {
                    Original::torch_linear(name(format!("mlp.c_fc.{}", part.name())), &shape)
                }
                InBlock::Down(part) => {
                    Original::torch_linear(name(format!("mlp.c_proj.{}", part.name())), &shape)
                }
            }
        }
    }
}

/// Options that open_clip's CLIP does not have.
pub(super) fn obstacles(config: &ModelConfig) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if config.image.pool == ImagePool::Mean {
        let why = "Mean: open_clip's mean leaves the class token out; it would need ClassToken";
        found.push(Obstacle { field: "image.pool", why: why.into() });
    }
    if config.text.pool == TextPool::Mean {
        let why = "Mean: open_clip's CLIP pools one token; it would need EndOfText or First";
        found.push(Obstacle { field: "text.pool", why: why.into() });
    }
    let (image, text) = (config.image.activation, config.text.activation);
    if image != text && [image, text].contains(&Activation::QuickGelu) {
        let why = format!("{text:?} beside {image:?}: open_clip has QuickGelu in both encoders or in none");
        found.push(Obstacle { field: "text.activation", why });
    }
    found
}

/// The configuration that [`describe`] reads as `config`, which has learned positions and no patch bias.
/// `tokenizer` is what lies beside it.
pub(super) fn config(config: &ModelConfig, tokenizer: TokenizerFiles) -> Value {
    let (image, text) = (&config.image, &config.text);
    let quick = image.activation == Activation::QuickGelu;
    let mut vision_cfg = json!({
        "image_size": image.size,
        "layers": image.depth,
        "width": image.width,
        "head_width": image.width / image.heads,
        "patch_size": image.patch,
        "mlp_ratio": image.mlp_ratio,
    });
    let mut text_cfg = json!({
        "context_length": text.context,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
        "mlp_ratio": text.mlp_ratio,
    });
    for (cfg, activation, eps) in
        [(&mut vision_cfg, image.activation, image.norm_eps), (&mut text_cfg, text.activation, text.norm_eps)]
    {
        if activation == Activation::GeluTanh {
            cfg["act_kwargs"] = json!({ "approximate": "tanh" });
        }
        if eps != NORM_EPS {
            cfg["norm_kwargs"] = json!({ "eps": eps });
        }
    }
    if !image.pre_norm {
        vision_cfg["no_ln_pre"] = true.into();
    }
    if !text.causal {
        text_cfg["no_causal_mask"] = true.into();
    }
    if text.pool == TextPool::First {
        text_cfg["pool_type"] = "first".into();
    }
    if tokenizer == TokenizerFiles::OpenClips || tokenizer == TokenizerFiles::Other {
        // Any name will do: from a local folder open_clip takes the files of that folder.
        text_cfg["hf_tokenizer_name"] = "local".into();
    }
    if tokenizer == TokenizerFiles::OpenClips {
        text_cfg["tokenizer_kwargs"] = json!({ "clean": "lower" });
    }
    let mut model_cfg =
        json!({ "embed_dim": config.embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg });
    if let Some(bias) = config.logit_bias {
        model_cfg["init_logit_bias"] = bias.into();
    }
    if quick {
        model_cfg["quick_gelu"] = true.into();
    }
    json!({
        "model_cfg": model_cfg,
        "preprocess_cfg": preprocessing::for_open_clip(image),
    })
}

/// True if open_clip's built-in tokenizer serves where none lies beside the weights.
pub(super) fn has_built_in_tokenizer(config: &ModelConfig) -> bool {
    config.text.vocab_size == BUILT_IN_VOCABULARY
}
