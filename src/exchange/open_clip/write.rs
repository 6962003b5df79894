//! A model as open_clip's configuration: with open_clip's own encoders where they can hold it, else with a tower of timm.

use std::path::Path;

use serde_json::{json, Value};

use super::tensors::{ImageNames, Naming, TimmHead};
use crate::exchange::error::Obstacle;
use crate::exchange::preprocessing;
use crate::exchange::timm::{self, QkvBias};
use crate::exchange::tokenizer_files::TokenizerFiles;
use crate::model::{
    Activation, ImagePool, ImageTowerConfig, ModelConfig, Projection, TextPool, TextTowerConfig,
};

/// open_clip's LayerNorm is PyTorch's.
pub(super) const NORM_EPS: f64 = 1e-5;
/// LayerNorm of timm's towers adds this, and their configuration cannot say otherwise.
const TIMM_NORM_EPS: f64 = 1e-6;

/// True if open_clip's own vision transformer computes the encoder, once its positions are learned and have the patches' bias.
fn is_own(image: &ImageTowerConfig) -> bool {
    image.class_token
        && matches!(image.pool, ImagePool::ClassToken | ImagePool::Patches)
        && image.projection == Projection::Linear
}

/// True if the patch embedding of what a model is exported to has a bias.
pub(in crate::exchange) fn has_patch_bias(image: &ImageTowerConfig) -> bool {
    !is_own(image) && !image.pre_norm
}

/// Options that open_clip's models do not have.
pub(in crate::exchange) fn obstacles(config: &ModelConfig) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |field, why: String| found.push(Obstacle { field, why });
    let (image, text) = (&config.image, &config.text);
    let own = is_own(image);
    if !own && image.norm_eps != TIMM_NORM_EPS && timm::registered(image).is_none() {
        let why = format!(
            "{}: this image encoder is timm's in open_clip, whose LayerNorm adds {TIMM_NORM_EPS}",
            image.norm_eps
        );
        add("image.norm_eps", why);
    }
    if !own && image.pool == ImagePool::Patches {
        add("image.pool", "Patches: open_clip has it with image.projection Linear alone".into());
    }
    if text.pool == TextPool::Mean {
        let why = "Mean: open_clip's CLIP pools one token; it would need EndOfText, First or Last";
        add("text.pool", why.into());
    }
    let (of_image, of_text) = (image.activation, text.activation);
    if own && of_image != of_text && [of_image, of_text].contains(&Activation::QuickGelu) {
        let why =
            format!("{of_text:?} beside {of_image:?}: open_clip has QuickGelu in both encoders or in none");
        add("text.activation", why);
    }
    found
}

/// Names of the tensors of an exported model.
pub(in crate::exchange) fn naming(config: &ModelConfig, vector_scale: bool) -> Naming {
    let head = match config.image.projection {
        Projection::None => TimmHead::None,
        Projection::Linear | Projection::Biased => TimmHead::Adapter,
    };
    let own = is_own(&config.image);
    let image = if own { ImageNames::OpenClip } else { ImageNames::Timm { head, qkv: QkvBias::Whole } };
    Naming { image, custom_text: !own, vector_scale, ..Naming::PLAIN }
}

/// The `config.json` of the tower of timm that is beside the weights, where timm does not know it by a name.
pub(in crate::exchange) fn timm_config(image: &ImageTowerConfig) -> Option<Value> {
    (!is_own(image) && timm::registered(image).is_none()).then(|| timm::config(image))
}

/// The configuration that reads back as `config`, which has learned positions. `tokenizer` is what lies beside it, in the
/// folder `folder`.
pub(in crate::exchange) fn config(
    config: &ModelConfig,
    tokenizer: TokenizerFiles,
    vector_scale: bool,
    folder: &Path,
) -> Value {
    let (image, text) = (&config.image, &config.text);
    let own = is_own(image);
    let vision_cfg = if own { own_vision(image) } else { timm_vision(image, folder) };
    let mut model_cfg = json!({
        "embed_dim": config.embed_dim,
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg(text, tokenizer),
    });
    if let Some(bias) = config.logit_bias {
        model_cfg["init_logit_bias"] = bias.into();
    }
    if !own {
        model_cfg["custom_text"] = true.into();
    }
    if vector_scale {
        model_cfg["nonscalar_logit_scale"] = true.into();
    }
    if text.activation == Activation::QuickGelu {
        model_cfg["quick_gelu"] = true.into();
    }
    json!({
        "model_cfg": model_cfg,
        "preprocess_cfg": preprocessing::for_open_clip(image),
    })
}

fn own_vision(image: &ImageTowerConfig) -> Value {
    let mut vision = json!({
        "image_size": image.size,
        "layers": image.depth,
        "width": image.width,
        "head_width": image.width / image.heads,
        "patch_size": image.patch,
        "mlp_ratio": image.mlp_ratio,
    });
    curve_and_eps(&mut vision, image.activation, image.norm_eps);
    if !image.pre_norm {
        vision["no_ln_pre"] = true.into();
    }
    if image.pool == ImagePool::Patches {
        vision["pool_type"] = "avg".into();
        vision["final_ln_after_pool"] = true.into();
    }
    vision
}

fn timm_vision(image: &ImageTowerConfig, folder: &Path) -> Value {
    let name = timm::registered(image).map_or_else(|| timm::name(folder), String::from);
    let pool = match image.pool {
        ImagePool::ClassToken => "token",
        ImagePool::Attention => "map",
        ImagePool::Mean | ImagePool::Patches => "avg",
    };
    let mut vision = json!({
        "image_size": image.size,
        "timm_model_name": name,
        "timm_model_pretrained": false,
        "timm_pool": pool,
        "timm_proj": if image.projection == Projection::None { "none" } else { "linear" },
    });
    if image.projection == Projection::Biased {
        vision["timm_proj_bias"] = true.into();
    }
    vision
}

fn text_cfg(text: &TextTowerConfig, tokenizer: TokenizerFiles) -> Value {
    let mut cfg = json!({
        "context_length": text.context,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
        "mlp_ratio": text.mlp_ratio,
    });
    curve_and_eps(&mut cfg, text.activation, text.norm_eps);
    if !text.causal {
        cfg["no_causal_mask"] = true.into();
    }
    match text.pool {
        TextPool::First => cfg["pool_type"] = "first".into(),
        TextPool::Last => cfg["pool_type"] = "last".into(),
        TextPool::Token(id) => {
            cfg["pool_type"] = "eos".into();
            cfg["eos_id"] = id.into();
        }
        TextPool::EndOfText | TextPool::Mean => {}
    }
    if text.projection == Projection::Biased {
        cfg["proj_bias"] = true.into();
    }
    if tokenizer == TokenizerFiles::OpenClips || tokenizer == TokenizerFiles::Other {
        // Any name will do: from a local folder open_clip takes the files of that folder.
        cfg["hf_tokenizer_name"] = "local".into();
    }
    if tokenizer == TokenizerFiles::OpenClips {
        cfg["tokenizer_kwargs"] = json!({ "clean": "lower" });
    }
    cfg
}

fn curve_and_eps(cfg: &mut Value, activation: Activation, eps: f64) {
    if activation == Activation::GeluTanh {
        cfg["act_kwargs"] = json!({ "approximate": "tanh" });
    }
    if eps != NORM_EPS {
        cfg["norm_kwargs"] = json!({ "eps": eps });
    }
}
