//! Our parameters as places in the model, so that a format can say of each, and of all, where it lies.

use crate::model::{ImagePool, ImagePositions, ModelConfig, Projection};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tower {
    Image,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    Scale,
    Shift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linear {
    Weight,
    Bias,
}

/// A parameter of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InBlock {
    Norm1(Norm),
    Norm2(Norm),
    Qkv(Linear),
    Out(Linear),
    Up(Linear),
    Down(Linear),
}

/// A parameter of the attention pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InPool {
    Query,
    Kv(Linear),
    Out(Linear),
    Norm(Norm),
    Up(Linear),
    Down(Linear),
}

/// A parameter of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Patch(Linear),
    ClassToken,
    PreNorm(Norm),
    Tokens,
    Positions(Tower),
    Block(Tower, usize, InBlock),
    FinalNorm(Tower, Norm),
    Pool(InPool),
    Projection(Tower),
    ProjectionBias(Tower),
    LogitScale,
    LogitBias,
}

/// Every parameter of a model of this configuration, in the model's order.
pub(super) fn slots(config: &ModelConfig) -> Vec<Slot> {
    use Slot::*;
    let mut slots = vec![Patch(Linear::Weight)];
    if config.image.patch_bias {
        slots.push(Patch(Linear::Bias));
    }
    if config.image.class_token {
        slots.push(ClassToken);
    }
    if config.image.positions == ImagePositions::Learned {
        slots.push(Positions(Tower::Image));
    }
    if config.image.pre_norm {
        slots.extend([PreNorm(Norm::Scale), PreNorm(Norm::Shift)]);
    }
    blocks(&mut slots, Tower::Image, config);
    slots.extend([Tokens, Positions(Tower::Text)]);
    blocks(&mut slots, Tower::Text, config);
    slots.push(LogitScale);
    if config.logit_bias.is_some() {
        slots.push(LogitBias);
    }
    slots
}

/// The blocks of a tower and what follows them.
fn blocks(slots: &mut Vec<Slot>, tower: Tower, config: &ModelConfig) {
    use InBlock::*;
    let (depth, projection) = match tower {
        Tower::Image => (config.image.depth, config.image.projection),
        Tower::Text => (config.text.depth, config.text.projection),
    };
    let block = [
        Norm1(Norm::Scale),
        Norm1(Norm::Shift),
        Qkv(Linear::Weight),
        Qkv(Linear::Bias),
        Out(Linear::Weight),
        Out(Linear::Bias),
        Norm2(Norm::Scale),
        Norm2(Norm::Shift),
        Up(Linear::Weight),
        Up(Linear::Bias),
        Down(Linear::Weight),
        Down(Linear::Bias),
    ];
    slots.extend((0..depth).flat_map(|i| block.map(|part| Slot::Block(tower, i, part))));
    slots.extend([Slot::FinalNorm(tower, Norm::Scale), Slot::FinalNorm(tower, Norm::Shift)]);
    if tower == Tower::Image && config.image.pool == ImagePool::Attention {
        slots.extend(POOL.map(Slot::Pool));
    }
    if projection != Projection::None {
        slots.push(Slot::Projection(tower));
    }
    if projection == Projection::Biased {
        slots.push(Slot::ProjectionBias(tower));
    }
}

/// The parameters of an attention pool, in the model's order.
const POOL: [InPool; 11] = {
    use InPool::*;
    [
        Query,
        Kv(Linear::Weight),
        Kv(Linear::Bias),
        Out(Linear::Weight),
        Out(Linear::Bias),
        Norm(self::Norm::Scale),
        Norm(self::Norm::Shift),
        Up(Linear::Weight),
        Up(Linear::Bias),
        Down(Linear::Weight),
        Down(Linear::Bias),
    ]
};

impl Slot {
    /// Its name among our parameters.
    pub fn name(self) -> String {
        match self {
            Slot::Patch(part) => format!("image.patch.{}", part.name()),
            Slot::ClassToken => "image.class_token".into(),
            Slot::PreNorm(part) => format!("image.pre_norm.{}", part.name()),
            Slot::Tokens => "text.tokens".into(),
            Slot::Positions(tower) => format!("{}.positions", tower.name()),
            Slot::Block(tower, i, part) => format!("{}.blocks.{i}.{}", tower.name(), part.name()),
            Slot::FinalNorm(tower, part) => format!("{}.norm.{}", tower.name(), part.name()),
            Slot::Pool(part) => format!("image.attention_pool.{}", part.name()),
            Slot::Projection(tower) => format!("{}.projection", tower.name()),
            Slot::ProjectionBias(tower) => format!("{}.projection_bias", tower.name()),
            Slot::LogitScale => "logit_scale".into(),
            Slot::LogitBias => "logit_bias".into(),
        }
    }

    /// Its shape in a model of this configuration.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let width = |tower| match tower {
            Tower::Image => config.image.width,
            Tower::Text => config.text.width,
        };
        match self {
            Slot::Patch(Linear::Weight) => vec![config.image.patch_values(), config.image.width],
            Slot::Patch(Linear::Bias) | Slot::ClassToken | Slot::PreNorm(_) => vec![config.image.width],
            Slot::Tokens => vec![config.text.vocab_size, config.text.width],
            Slot::Positions(Tower::Image) => {
                vec![config.image.prefix() + config.image.grid().pow(2), config.image.width]
            }
            Slot::Positions(Tower::Text) => vec![config.text.context, config.text.width],
            Slot::Block(tower, _, part) => {
                let hidden = match tower {
                    Tower::Image => config.image.hidden(),
                    Tower::Text => config.text.hidden(),
                };
                part.shape(width(tower), hidden)
            }
            Slot::FinalNorm(tower, _) => vec![width(tower)],
            Slot::Pool(part) => part.shape(config.image.width, config.image.hidden()),
            Slot::Projection(tower) => vec![width(tower), config.embed_dim],
            Slot::ProjectionBias(_) => vec![config.embed_dim],
            Slot::LogitScale | Slot::LogitBias => vec![1],
        }
    }
}

impl InPool {
    fn name(self) -> String {
        match self {
            InPool::Query => "query".into(),
            InPool::Kv(part) => format!("kv.{}", part.name()),
            InPool::Out(part) => format!("out.{}", part.name()),
            InPool::Norm(part) => format!("norm.{}", part.name()),
            InPool::Up(part) => format!("mlp.up.{}", part.name()),
            InPool::Down(part) => format!("mlp.down.{}", part.name()),
        }
    }

    fn shape(self, width: usize, hidden: usize) -> Vec<usize> {
        match self {
            InPool::Query | InPool::Norm(_) => vec![width],
            InPool::Kv(part) => part.shape(width, 2 * width),
            InPool::Out(part) => part.shape(width, width),
            InPool::Up(part) => part.shape(width, hidden),
            InPool::Down(part) => part.shape(hidden, width),
        }
    }
}

impl InBlock {
    fn name(self) -> String {
        match self {
            InBlock::Norm1(part) => format!("norm1.{}", part.name()),
            InBlock::Norm2(part) => format!("norm2.{}", part.name()),
            InBlock::Qkv(part) => format!("attention.qkv.{}", part.name()),
            InBlock::Out(part) => format!("attention.out.{}", part.name()),
            InBlock::Up(part) => format!("mlp.up.{}", part.name()),
            InBlock::Down(part) => format!("mlp.down.{}", part.name()),
        }
    }

    fn shape(self, width: usize, hidden: usize) -> Vec<usize> {
        match self {
            InBlock::Norm1(_) | InBlock::Norm2(_) => vec![width],
            InBlock::Qkv(part) => part.shape(width, 3 * width),
            InBlock::Out(part) => part.shape(width, width),
            InBlock::Up(part) => part.shape(width, hidden),
            InBlock::Down(part) => part.shape(hidden, width),
        }
    }
}

impl Tower {
    fn name(self) -> &'static str {
        match self {
            Tower::Image => "image",
            Tower::Text => "text",
        }
    }
}

impl Norm {
    fn name(self) -> &'static str {
        match self {
            Norm::Scale => "scale",
            Norm::Shift => "shift",
        }
    }
}

impl Linear {
    fn shape(self, inputs: usize, outputs: usize) -> Vec<usize> {
        match self {
            Linear::Weight => vec![inputs, outputs],
            Linear::Bias => vec![outputs],
        }
    }

    /// Also what PyTorch calls it.
    pub fn name(self) -> &'static str {
        match self {
            Linear::Weight => "weight",
            Linear::Bias => "bias",
        }
    }
}

impl Norm {
    /// PyTorch calls the scale of a LayerNorm its weight, and the shift its bias.
    pub fn torch(self) -> &'static str {
        match self {
            Norm::Scale => "weight",
            Norm::Shift => "bias",
        }
    }
}
