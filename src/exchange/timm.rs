//! timm's plain vision transformers, as open_clip's `vision_cfg` names them. The numbers are those of timm's `vision_transformer.py`
//! and `eva.py`; a folder that `flip export` wrote says its own.

use std::path::Path;

use serde_json::{json, Value};

use super::error::ExchangeError;
use super::options::{read_object, Options};
use crate::model::{Activation, ImagePool, ImageTowerConfig, Projection};

/// Biases of query, key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QkvBias {
    Whole,
    None,
    /// Two vectors; keys have none (EVA).
    QueryAndValue,
}

/// A tower of timm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TimmTower {
    pub patch: usize,
    pub width: usize,
    pub depth: usize,
    pub heads: usize,
    pub mlp_ratio: f64,
    pub activation: Activation,
    pub norm_eps: f64,
    pub class_token: bool,
    pub pre_norm: bool,
    pub qkv: QkvBias,
    pub layer_scale: bool,
    /// Pooling of timm where open_clip's `timm_pool` is empty.
    pub pool: &'static str,
    /// The mean is over the class token, too.
    pub pool_include_prefix: bool,
}

const fn tower(patch: usize, width: usize, depth: usize, heads: usize) -> TimmTower {
    TimmTower {
        patch,
        width,
        depth,
        heads,
        mlp_ratio: 4.0,
        activation: Activation::GeluExact,
        norm_eps: 1e-6,
        class_token: true,
        pre_norm: false,
        qkv: QkvBias::Whole,
        layer_scale: false,
        pool: "token",
        pool_include_prefix: false,
    }
}

const fn siglip(patch: usize, width: usize, depth: usize, heads: usize, activation: Activation) -> TimmTower {
    TimmTower { class_token: false, pool: "map", activation, ..tower(patch, width, depth, heads) }
}

const fn so400m(patch: usize, activation: Activation) -> TimmTower {
    TimmTower { mlp_ratio: 3.7362, ..siglip(patch, 1152, 27, 16, activation) }
}

const EXACT: Activation = Activation::GeluExact;
const TANH: Activation = Activation::GeluTanh;

const ALL: [(&str, TimmTower); 20] = [
    ("vit_large_patch14_clip_224", TimmTower { pre_norm: true, norm_eps: 1e-5, ..tower(14, 1024, 24, 16) }),
    ("vit_base_patch16_siglip_224", siglip(16, 768, 12, 12, EXACT)),
    ("vit_base_patch16_siglip_256", siglip(16, 768, 12, 12, EXACT)),
    ("vit_base_patch16_siglip_384", siglip(16, 768, 12, 12, EXACT)),
    ("vit_base_patch16_siglip_512", siglip(16, 768, 12, 12, EXACT)),
    ("vit_base_patch32_siglip_256", siglip(32, 768, 12, 12, TANH)),
    ("vit_large_patch16_siglip_256", siglip(16, 1024, 24, 16, EXACT)),
    ("vit_large_patch16_siglip_384", siglip(16, 1024, 24, 16, EXACT)),
    ("vit_large_patch16_siglip_512", siglip(16, 1024, 24, 16, TANH)),
    ("vit_so400m_patch14_siglip_224", so400m(14, EXACT)),
    ("vit_so400m_patch14_siglip_378", so400m(14, EXACT)),
    ("vit_so400m_patch14_siglip_384", so400m(14, EXACT)),
    ("vit_so400m_patch16_siglip_256", so400m(16, TANH)),
    ("vit_so400m_patch16_siglip_384", so400m(16, TANH)),
    ("vit_so400m_patch16_siglip_512", so400m(16, TANH)),
    ("vit_giantopt_patch16_siglip_256", siglip(16, 1536, 40, 16, TANH)),
    ("vit_giantopt_patch16_siglip_384", siglip(16, 1536, 40, 16, TANH)),
    (
        "vit_medium_patch16_gap_256",
        TimmTower {
            class_token: false,
            pool: "avg",
            qkv: QkvBias::None,
            layer_scale: true,
            ..tower(16, 512, 12, 8)
        },
    ),
    ("eva_giant_patch14_224", eva_giant()),
    ("eva_giant_patch14_clip_224", eva_giant()),
];

const fn eva_giant() -> TimmTower {
    TimmTower { mlp_ratio: 6144.0 / 1408.0, qkv: QkvBias::QueryAndValue, ..tower(14, 1408, 40, 16) }
}

/// Stands in where a name is not known, until that is told.
pub(super) const UNKNOWN: TimmTower = tower(16, 768, 12, 12);

/// How a name begins whose tower lies in a folder.
const LOCAL: &str = "local-dir:";
/// The folder inside an exported one.
pub(super) const FOLDER: &str = "timm";
/// The architecture that the arguments of an exported tower are for: the first one of [`UNKNOWN`]'s numbers.
const ARCHITECTURE: &str = "vit_base_patch16_224";

/// The tower that a `timm_model_name` means, of a configuration in `folder`.
pub(super) fn of(folder: &Path, name: &str) -> Result<Option<TimmTower>, ExchangeError> {
    if !name.starts_with(LOCAL) {
        return Ok(ALL.iter().find(|(known, _)| *known == name).map(|(_, tower)| tower.clone()));
    }
    // The folder may have moved since: what lies beside counts.
    let path = folder.join(FOLDER).join("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let mut file = Options::new("", read_object(&path)?);
    let architecture = file.text("architecture").unwrap_or_default();
    let known = ALL.iter().find(|(known, _)| *known == architecture).map(|(_, tower)| tower.clone());
    let Some(base) = known.or_else(|| (architecture == ARCHITECTURE).then_some(UNKNOWN)) else {
        file.object_to(
            "architecture",
            format!("\"{architecture}\": not one of timm's plain vision transformers"),
        );
        return Err(ExchangeError::config(&path, file.problems));
    };
    let mut arguments = file.object("model_args");
    let tower = of_arguments(base, &mut arguments);
    arguments.nothing_else();
    match arguments.problems.is_empty() {
        true => Ok(Some(tower)),
        false => Err(ExchangeError::config(&path, arguments.problems)),
    }
}

/// A tower with other arguments than its architecture's.
fn of_arguments(base: TimmTower, arguments: &mut Options) -> TimmTower {
    arguments.ignore(&["img_size", "fc_norm", "dynamic_img_size"]);
    let pool = match arguments.text("global_pool").as_deref() {
        Some("map") => "map",
        Some("avg") => "avg",
        Some("token") => "token",
        _ => base.pool,
    };
    TimmTower {
        patch: arguments.size("patch_size", base.patch),
        width: arguments.size("embed_dim", base.width),
        depth: arguments.size("depth", base.depth),
        heads: arguments.size("num_heads", base.heads),
        mlp_ratio: arguments.number("mlp_ratio", base.mlp_ratio),
        activation: match arguments.text("act_layer").as_deref() {
            Some("gelu_tanh") => TANH,
            Some("quick_gelu") => Activation::QuickGelu,
            Some("gelu") => EXACT,
            _ => base.activation,
        },
        class_token: arguments.flag_or("class_token", base.class_token),
        pre_norm: arguments.flag_or("pre_norm", base.pre_norm),
        pool_include_prefix: arguments.flag_or("pool_include_prefix", base.pool_include_prefix),
        pool,
        ..base
    }
}

/// The `config.json` that timm makes the tower of a model of.
pub(super) fn config(image: &ImageTowerConfig) -> Value {
    let pool = match image.pool {
        ImagePool::Mean | ImagePool::Patches => "avg",
        ImagePool::ClassToken => "token",
        ImagePool::Attention => "map",
    };
    json!({
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": image.width,
        "model_args": {
            "img_size": image.size,
            "patch_size": image.patch,
            "embed_dim": image.width,
            "depth": image.depth,
            "num_heads": image.heads,
            "mlp_ratio": image.mlp_ratio,
            "act_layer": match image.activation {
                Activation::GeluTanh => "gelu_tanh",
                Activation::GeluExact => "gelu",
                Activation::QuickGelu => "quick_gelu",
            },
            "class_token": image.class_token,
            "pre_norm": image.pre_norm,
            "global_pool": pool,
            // The final norm comes before the mean, and the mean is over the class token too.
            "fc_norm": false,
            "pool_include_prefix": image.pool == ImagePool::Mean && image.class_token,
        },
        "pretrained_cfg": {
            "input_size": [3, image.size, image.size],
            "fixed_input_size": true,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    })
}

/// The name under which timm knows a tower of this size, if its tensors are those of a tower written here.
pub(super) fn registered(image: &ImageTowerConfig) -> Option<&'static str> {
    let same = |name: &str, tower: &TimmTower| {
        let pool = match tower.pool {
            "map" => ImagePool::Attention,
            "token" => ImagePool::ClassToken,
            _ => return false,
        };
        name.rsplit('_').next() == Some(&image.size.to_string())
            && tower.qkv == QkvBias::Whole
            && !tower.layer_scale
            && pool == image.pool
            && (tower.patch, tower.width, tower.depth, tower.heads)
                == (image.patch, image.width, image.depth, image.heads)
            && (tower.mlp_ratio, tower.norm_eps) == (image.mlp_ratio, image.norm_eps)
            && (tower.activation, tower.class_token, tower.pre_norm)
                == (image.activation, image.class_token, image.pre_norm)
    };
    ALL.iter().find(|(name, tower)| same(name, tower)).map(|(name, _)| *name)
}

/// The name of an exported tower: timm reads it from the folder, by its whole path.
pub(super) fn name(folder: &Path) -> String {
    format!("{LOCAL}{}", folder.join(FOLDER).display())
}

impl TimmTower {
    /// The image encoder that this is with open_clip's options.
    pub fn image(&self, vision: &mut Options, size: usize) -> ImageTowerConfig {
        let told = vision.text("timm_pool").filter(|pool| !pool.is_empty());
        let pool = told.as_deref().unwrap_or(self.pool);
        let (pool, wrong) = match (pool, self.class_token, self.pool) {
            ("token", true, _) => (ImagePool::ClassToken, None),
            ("map", false, "map") => (ImagePool::Attention, None),
            ("avg", false, "avg") => (ImagePool::Mean, None),
            ("avg", true, "avg") if self.pool_include_prefix => (ImagePool::Mean, None),
            (other, ..) => (ImagePool::Mean, Some(format!("\"{other}\": not with this tower"))),
        };
        if let Some(wrong) = wrong {
            vision.object_to("timm_pool", wrong);
        }
        ImageTowerConfig {
            size,
            patch: self.patch,
            cut_edge: !size.is_multiple_of(self.patch),
            pixels: Default::default(),
            resizing: Default::default(),
            width: self.width,
            depth: self.depth,
            heads: self.heads,
            mlp_ratio: self.mlp_ratio,
            positions: crate::model::ImagePositions::Learned,
            pre_norm: self.pre_norm,
            class_token: self.class_token,
            pool,
            projection: Projection::Linear,
            // timm leaves it out where a norm follows.
            patch_bias: !self.pre_norm,
            activation: self.activation,
            norm_eps: self.norm_eps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// timm's own numbers: tests/data/configurations/make.py towers.
    const TOWERS: &str = include_str!("../../tests/data/configurations/towers.json");

    #[test]
    fn towers_are_those_of_timm() {
        let towers: Value = serde_json::from_str(TOWERS).unwrap();
        let mut seen = 0;
        for (name, told) in towers.as_object().unwrap() {
            let Some((_, tower)) = ALL.iter().find(|(known, _)| known == name) else {
                assert!(told["relative"] == true, "{name} is not known");
                continue;
            };
            seen += 1;
            let size = |key: &str| told[key].as_u64().unwrap() as usize;
            let flag = |key: &str| told[key].as_bool().unwrap();
            let numbers = ["patch", "width", "depth", "heads"].map(size);
            assert_eq!(numbers, [tower.patch, tower.width, tower.depth, tower.heads], "{name}");
            assert_eq!((tower.width as f64 * tower.mlp_ratio) as usize, size("hidden"), "{name}");
            assert_eq!(told["eps"].as_f64(), Some(tower.norm_eps), "{name}");
            assert_eq!(told["curve"].as_str().unwrap().contains("Tanh"), tower.activation == TANH, "{name}");
            let flags = ["class_token", "pre_norm", "layer_scale", "patch_bias"].map(flag);
            assert_eq!(
                flags,
                [tower.class_token, tower.pre_norm, tower.layer_scale, !tower.pre_norm],
                "{name}"
            );
            let qkv = match (flag("qkv_bias"), flag("query_bias")) {
                (true, _) => QkvBias::Whole,
                (false, true) => QkvBias::QueryAndValue,
                (false, false) => QkvBias::None,
            };
            assert_eq!(tower.qkv, qkv, "{name}");
        }
        assert!(seen >= 18, "{seen}");
    }
}
