//! Places of our parameters in the `state_dict()` of open_clip's models.

use crate::exchange::layout::{Original, ZEROS};
use crate::exchange::slot::{InBlock, InPool, Linear, Norm, Slot, Tower};
use crate::exchange::timm::QkvBias;
use crate::model::{ModelConfig, Projection};

/// Names of the tensors of a model, which depend on its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) struct Naming {
    pub image: ImageNames,
    /// The text encoder is a module of its own (`CustomTextCLIP`).
    pub custom_text: bool,
    /// Blocks of images and of texts have layer scale.
    pub layer_scale: [bool; 2],
    /// The text encoder ends without a projection, which an identity stands for.
    pub no_text_projection: bool,
    /// Logit scale and bias are vectors of one number.
    pub vector_scale: bool,
}

/// Whose image encoder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) enum ImageNames {
    OpenClip,
    Timm { head: TimmHead, qkv: QkvBias },
}

/// The place of the last linear layer of a tower of timm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) enum TimmHead {
    /// timm's own classifier.
    Trunk,
    /// open_clip's layer behind it.
    Adapter,
    None,
}

impl Naming {
    /// Those of `CLIP` with towers of open_clip.
    pub const PLAIN: Naming = Naming {
        image: ImageNames::OpenClip,
        custom_text: false,
        layer_scale: [false; 2],
        no_text_projection: false,
        vector_scale: false,
    };

    /// Place of a parameter of ours.
    pub fn original(&self, slot: Slot, config: &ModelConfig) -> Original {
        let shape = slot.shape(config);
        let text = |name: String| match self.custom_text {
            true => format!("text.{name}"),
            false => name,
        };
        let single = if self.vector_scale { vec![1] } else { vec![] };
        match slot {
            Slot::LogitScale => Original::reshaped("logit_scale", single),
            Slot::LogitBias => Original::reshaped("logit_bias", single),
            Slot::Tokens => Original::same(text("token_embedding.weight".into()), &shape),
            Slot::Positions(Tower::Text) => Original::same(text("positional_embedding".into()), &shape),
            Slot::FinalNorm(Tower::Text, part) => {
                Original::same(text(format!("ln_final.{}", part.torch())), &shape)
            }
            Slot::Projection(Tower::Text) if self.no_text_projection => Original::identity(&shape),
            Slot::Projection(Tower::Text) => match config.text.projection {
                // Stored as ours are, unlike every other matrix.
                Projection::Linear | Projection::None => {
                    Original::same(text("text_projection".into()), &shape)
                }
                Projection::Biased => Original::torch_linear(text("text_projection.weight".into()), &shape),
            },
            Slot::ProjectionBias(Tower::Text) => Original::same(text("text_projection.bias".into()), &shape),
            Slot::Block(Tower::Text, i, part) => {
                let prefix = text(format!("transformer.resblocks.{i}"));
                resblock(&prefix, part, &shape, self.layer_scale[1])
            }
            of_image => match self.image {
                ImageNames::OpenClip => self.own_image(of_image, config, &shape),
                ImageNames::Timm { head, qkv } => self.timm_image(of_image, config, &shape, head, qkv),
            },
        }
    }

    fn own_image(&self, slot: Slot, config: &ModelConfig, shape: &[usize]) -> Original {
        match slot {
            Slot::Patch(Linear::Weight) => {
                Original::convolution("visual.conv1.weight", config.image.patch, config.image.width)
            }
            Slot::Patch(Linear::Bias) => Original::same("visual.conv1.bias", shape),
            Slot::ClassToken => Original::same("visual.class_embedding", shape),
            Slot::PreNorm(part) => Original::same(format!("visual.ln_pre.{}", part.torch()), shape),
            Slot::Positions(_) => Original::same("visual.positional_embedding", shape),
            Slot::FinalNorm(_, part) => Original::same(format!("visual.ln_post.{}", part.torch()), shape),
            Slot::Projection(_) => Original::same("visual.proj", shape),
            Slot::Block(_, i, part) => {
                resblock(&format!("visual.transformer.resblocks.{i}"), part, shape, self.layer_scale[0])
            }
            // open_clip has none.
            other => Original::same(other.name(), shape),
        }
    }

    fn timm_image(
        &self,
        slot: Slot,
        config: &ModelConfig,
        shape: &[usize],
        head: TimmHead,
        qkv: QkvBias,
    ) -> Original {
        let trunk = |name: &str| format!("visual.trunk.{name}");
        let last = match head {
            TimmHead::Adapter => "visual.head.proj".to_string(),
            TimmHead::Trunk | TimmHead::None => trunk("head"),
        };
        match slot {
            Slot::Patch(Linear::Weight) => {
                let name = trunk("patch_embed.proj.weight");
                Original::convolution(name, config.image.patch, config.image.width)
            }
            Slot::Patch(Linear::Bias) => Original::same(trunk("patch_embed.proj.bias"), shape),
            Slot::ClassToken => Original::reshaped(trunk("cls_token"), [&[1, 1], shape].concat()),
            Slot::Positions(_) => Original::reshaped(trunk("pos_embed"), [&[1], shape].concat()),
            Slot::PreNorm(part) => Original::same(trunk(&format!("norm_pre.{}", part.torch())), shape),
            Slot::FinalNorm(_, part) => Original::same(trunk(&format!("norm.{}", part.torch())), shape),
            Slot::Projection(_) => Original::torch_linear(format!("{last}.weight"), shape),
            Slot::ProjectionBias(_) => Original::same(format!("{last}.bias"), shape),
            Slot::Pool(part) => attention_pool(part, shape),
            Slot::Block(_, i, part) => {
                timm_block(&trunk(&format!("blocks.{i}")), part, shape, qkv, self.layer_scale[0])
            }
            // timm has none.
            other => Original::same(other.name(), shape),
        }
    }
}

/// A parameter of a block of open_clip.
fn resblock(prefix: &str, part: InBlock, shape: &[usize], layer_scale: bool) -> Original {
    let name = |rest: String| format!("{prefix}.{rest}");
    let outputs = shape.last().copied().unwrap_or(1);
    let scaled = |original: Original, number: usize| match layer_scale {
        true => original.times(name(format!("ls_{number}.gamma")), outputs),
        false => original,
    };
    match part {
        InBlock::Norm1(part) => Original::same(name(format!("ln_1.{}", part.torch())), shape),
        InBlock::Norm2(part) => Original::same(name(format!("ln_2.{}", part.torch())), shape),
        InBlock::Qkv(part) => Original::torch_linear(name(format!("attn.in_proj_{}", part.name())), shape),
        InBlock::Out(part) => {
            scaled(Original::torch_linear(name(format!("attn.out_proj.{}", part.name())), shape), 1)
        }
        InBlock::Up(part) => Original::torch_linear(name(format!("mlp.c_fc.{}", part.name())), shape),
        InBlock::Down(part) => {
            scaled(Original::torch_linear(name(format!("mlp.c_proj.{}", part.name())), shape), 2)
        }
    }
}

/// A parameter of a block of timm.
fn timm_block(prefix: &str, part: InBlock, shape: &[usize], qkv: QkvBias, layer_scale: bool) -> Original {
    let name = |rest: String| format!("{prefix}.{rest}");
    let outputs = shape.last().copied().unwrap_or(1);
    let scaled = |original: Original, number: usize| match layer_scale {
        true => original.times(name(format!("ls{number}.gamma")), outputs),
        false => original,
    };
    let zeros = || ZEROS.to_string();
    match part {
        InBlock::Norm1(part) => Original::same(name(format!("norm1.{}", part.torch())), shape),
        InBlock::Norm2(part) => Original::same(name(format!("norm2.{}", part.torch())), shape),
        InBlock::Qkv(Linear::Bias) => match qkv {
            QkvBias::Whole => Original::same(name("attn.qkv.bias".into()), shape),
            QkvBias::None => Original::same("", shape).in_thirds([zeros(), zeros(), zeros()]),
            QkvBias::QueryAndValue => {
                let thirds = [name("attn.q_bias".into()), zeros(), name("attn.v_bias".into())];
                Original::same("", shape).in_thirds(thirds)
            }
        },
        InBlock::Qkv(Linear::Weight) => Original::torch_linear(name("attn.qkv.weight".into()), shape),
        InBlock::Out(part) => {
            scaled(Original::torch_linear(name(format!("attn.proj.{}", part.name())), shape), 1)
        }
        InBlock::Up(part) => Original::torch_linear(name(format!("mlp.fc1.{}", part.name())), shape),
        InBlock::Down(part) => {
            scaled(Original::torch_linear(name(format!("mlp.fc2.{}", part.name())), shape), 2)
        }
    }
}

/// A parameter of timm's `AttentionPoolLatent`.
fn attention_pool(part: InPool, shape: &[usize]) -> Original {
    let name = |rest: &str| format!("visual.trunk.attn_pool.{rest}");
    let linear =
        |layer: &str, part: Linear| Original::torch_linear(name(&format!("{layer}.{}", part.name())), shape);
    let norm = |part: Norm| Original::same(name(&format!("norm.{}", part.torch())), shape);
    match part {
        InPool::Query => Original::output(&name("q"), name("latent"), shape[0]),
        InPool::Kv(part) => linear("kv", part),
        InPool::Out(part) => linear("proj", part),
        InPool::Norm(part) => norm(part),
        InPool::Up(part) => linear("mlp.fc1", part),
        InPool::Down(part) => linear("mlp.fc2", part),
    }
}
