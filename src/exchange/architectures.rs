//! open_clip's plain vision transformers by name, for weights without a configuration beside them. The numbers are those of
//! its `model_configs`.

use serde_json::{json, Map, Value};

/// Image and text tower of a name.
struct Architecture {
    name: &'static str,
    embed_dim: usize,
    image: ImageTower,
    text: TextTower,
}

struct ImageTower {
    size: usize,
    patch: usize,
    width: usize,
    layers: usize,
    head_width: usize,
    mlp_ratio: f64,
}

struct TextTower {
    width: usize,
    heads: usize,
    layers: usize,
}

const fn image(size: usize, patch: usize, width: usize, layers: usize) -> ImageTower {
    ImageTower { size, patch, width, layers, head_width: 64, mlp_ratio: 4.0 }
}

/// With heads of another width and another width of the MLP.
const fn large(tower: ImageTower, head_width: usize, mlp_ratio: f64) -> ImageTower {
    ImageTower { head_width, mlp_ratio, ..tower }
}

const fn text(width: usize, heads: usize, layers: usize) -> TextTower {
    TextTower { width, heads, layers }
}

const fn named(name: &'static str, embed_dim: usize, image: ImageTower, text: TextTower) -> Architecture {
    Architecture { name, embed_dim, image, text }
}

const ALL: [Architecture; 24] = [
    named("ViT-S-32-alt", 256, image(224, 32, 384, 12), text(256, 4, 10)),
    named("ViT-S-32", 384, image(224, 32, 384, 12), text(384, 6, 12)),
    named("ViT-S-16-alt", 256, image(224, 16, 384, 12), text(256, 4, 10)),
    named("ViT-S-16", 384, image(224, 16, 384, 12), text(384, 6, 12)),
    named("ViT-M-32-alt", 384, image(224, 32, 512, 12), text(384, 6, 12)),
    named("ViT-M-32", 512, image(224, 32, 512, 12), text(512, 8, 12)),
    named("ViT-M-16", 512, image(224, 16, 512, 12), text(512, 8, 12)),
    named("ViT-B-32", 512, image(224, 32, 768, 12), text(512, 8, 12)),
    named("ViT-B-32-256", 512, image(256, 32, 768, 12), text(512, 8, 12)),
    named("ViT-B-32-plus-256", 640, image(256, 32, 896, 12), text(640, 10, 12)),
    named("ViT-B-16", 512, image(224, 16, 768, 12), text(512, 8, 12)),
    named("ViT-B-16-plus", 640, image(224, 16, 896, 12), text(640, 10, 12)),
    named("ViT-B-16-plus-240", 640, image(240, 16, 896, 12), text(640, 10, 12)),
    named("ViT-L-16", 768, image(224, 16, 1024, 24), text(768, 12, 12)),
    named("ViT-L-16-320", 768, image(320, 16, 1024, 24), text(768, 12, 12)),
    named("ViT-L-14", 768, image(224, 14, 1024, 24), text(768, 12, 12)),
    named("ViT-L-14-280", 768, image(280, 14, 1024, 24), text(768, 12, 12)),
    named("ViT-L-14-336", 768, image(336, 14, 1024, 24), text(768, 12, 12)),
    named("ViT-H-16", 1024, large(image(224, 16, 1280, 32), 80, 4.0), text(1024, 16, 24)),
    named("ViT-H-14", 1024, large(image(224, 14, 1280, 32), 80, 4.0), text(1024, 16, 24)),
    named("ViT-H-14-378", 1024, large(image(378, 14, 1280, 32), 80, 4.0), text(1024, 16, 24)),
    named("ViT-g-14", 1024, large(image(224, 14, 1408, 40), 88, 4.3637), text(1024, 16, 24)),
    named("ViT-bigG-14", 1280, large(image(224, 14, 1664, 48), 104, 4.9231), text(1280, 20, 32)),
    named("ViT-e-14", 1280, large(image(224, 14, 1792, 56), 112, 8.5715), text(1280, 20, 36)),
];

/// Ending of a name that says QuickGELU.
const QUICK: &str = "-quickgelu";

/// The configuration of a name, as open_clip's `model_cfg`.
pub(super) fn of(name: &str) -> Option<Map<String, Value>> {
    let (plain, quick) = name.strip_suffix(QUICK).map_or((name, false), |plain| (plain, true));
    let Architecture { embed_dim, image, text, .. } =
        ALL.iter().find(|architecture| architecture.name.eq_ignore_ascii_case(plain))?;
    let config = json!({
        "embed_dim": embed_dim,
        "quick_gelu": quick,
        "vision_cfg": {
            "image_size": image.size, "patch_size": image.patch, "width": image.width, "layers": image.layers,
            "head_width": image.head_width, "mlp_ratio": image.mlp_ratio,
        },
        "text_cfg": { "width": text.width, "heads": text.heads, "layers": text.layers },
    });
    config.as_object().cloned()
}

/// The names, for a message.
pub(super) fn names() -> String {
    let names: Vec<&str> = ALL.iter().map(|architecture| architecture.name).collect();
    format!("{}; each also with {QUICK} behind", names.join(", "))
}

/// The configuration that the shapes of OpenAI's archives tell: heads are 64 wide and the activation is QuickGELU, in all
/// of them.
pub(super) fn of_openai(shapes: &[(String, Vec<usize>)]) -> Option<Map<String, Value>> {
    let shape =
        |name: &str| shapes.iter().find(|(other, _)| other == name).map(|(_, shape)| shape.as_slice());
    let blocks = |tower: &str| {
        let prefix = format!("{tower}.resblocks.");
        let numbers = shapes.iter().filter_map(|(name, _)| name.strip_prefix(&prefix)?.split('.').next());
        numbers.filter_map(|number| number.parse::<usize>().ok()).max().map_or(0, |last| last + 1)
    };
    let &[width, _, patch, _] = shape("visual.conv1.weight")? else { return None };
    let &[positions, _] = shape("visual.positional_embedding")? else { return None };
    let &[context, text_width] = shape("positional_embedding")? else { return None };
    let &[vocabulary, _] = shape("token_embedding.weight")? else { return None };
    let &[_, embed_dim] = shape("text_projection")? else { return None };
    let grid = positions.checked_sub(1)?.isqrt();
    let config = json!({
        "embed_dim": embed_dim,
        "quick_gelu": true,
        "vision_cfg": {
            "image_size": grid.checked_mul(patch)?, "patch_size": patch, "width": width,
            "layers": blocks("visual.transformer"),
        },
        "text_cfg": {
            "context_length": context, "vocab_size": vocabulary, "width": text_width,
            "heads": (text_width / 64).max(1), "layers": blocks("transformer"),
        },
    });
    config.as_object().cloned()
}
