//! Checkpoints of the official FLIP code (`t5x/checkpoints.py` of facebookresearch/flip): an index in msgpack
//! and a zarr folder an array. Only the parameters are read, not the optimizer's state.
//!
//! Linear layers are [inputs, outputs] and the patch kernel is [row, column, channel, width] there, as here; only
//! query, key and value are apart. The architecture follows from the shapes, all but the number of heads,
//! which no tensor shows.

mod index;
mod zarr;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::described::Described;
use super::error::{ExchangeError, Problem};
use super::layout::Original;
use super::numbers::Numbers;
use super::slot::{InBlock, Linear, Norm, Slot, Tower};
use super::tensors::Tensors;
use crate::data::text::TokenizerConfig;
use crate::model::{
    sin_cos_table, Activation, ImagePool, ImagePositions, ImageTowerConfig, LogitScaleConfig, ModelConfig,
    Normalisation, PixelNorm, Projection, TextPool, TextTowerConfig,
};
use index::Leaf;

/// The index, written last: a folder without it is unfinished.
const INDEX: &str = "checkpoint";
/// Fixed sin-cos positions are stored like a parameter.
const IMAGE_POSITIONS: &str = "img_encoder/posembed_encoder/pos_embedding";
/// Largest difference from those computed here.
const POSITION_TOLERANCE: f32 = 1e-5;
/// Widths of the published image encoders and their heads.
const IMAGE_HEADS: &[(usize, usize)] = &[(768, 12), (1024, 16), (1280, 16)];
/// Widths of the published text encoders and their heads.
const TEXT_HEADS: &[(usize, usize)] = &[(512, 8), (768, 12), (1024, 16)];
/// Of the official LayerNorm.
const NORM_EPS: f64 = 1e-6;

/// An indexed checkpoint.
pub(super) struct Checkpoint {
    folder: PathBuf,
    step: Option<i64>,
    arrays: BTreeMap<String, Leaf>,
}

/// True of a checkpoint folder, or a folder of them.
pub(super) fn is_checkpoint(folder: &Path) -> bool {
    newest(folder).is_some()
}

/// The folder itself, or its `checkpoint_<step>` of the largest step, if it has an index.
fn newest(folder: &Path) -> Option<PathBuf> {
    let indexed = |folder: &Path| folder.join(INDEX).is_file();
    let steps = std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let step: u64 = entry.file_name().to_str()?.strip_prefix("checkpoint_")?.parse().ok()?;
        indexed(&entry.path()).then(|| (step, entry.path()))
    });
    steps.max().map(|(_, path)| path).or_else(|| indexed(folder).then(|| folder.to_path_buf()))
}

impl Checkpoint {
    /// Reads the index of the checkpoint in `folder`, or of the newest one in it.
    pub fn open(folder: &Path) -> Result<Self, ExchangeError> {
        let Some(folder) = newest(folder) else {
            let reason = format!(
                "no checkpoint_<step>/{INDEX} here, and no {INDEX}: not a checkpoint, or an unfinished one"
            );
            return Err(ExchangeError::NoCheckpoint { path: folder.to_path_buf(), reason });
        };
        let index = index::read(&folder.join(INDEX))?;
        Ok(Checkpoint { folder, step: index.step, arrays: index.target })
    }

    /// The architecture that the shapes show.
    pub fn describe(
        &self,
        image_heads: Option<usize>,
        text_heads: Option<usize>,
    ) -> Result<Described, ExchangeError> {
        let mut problems = Vec::new();
        let image = self.tower("img", image_heads, IMAGE_HEADS, "image_heads", &mut problems);
        let text = self.tower("txt", text_heads, TEXT_HEADS, "text_heads", &mut problems);
        let [patch_rows, patch_columns, channels, _] =
            self.axes("img_encoder/embedding/kernel", &mut problems);
        if (patch_rows, channels) != (patch_columns, 3) {
            let problem =
                format!("expected [patch, patch, 3, width], got {patch_rows} x {patch_columns} x {channels}");
            problems.push(Problem { field: "img_encoder/embedding/kernel".into(), problem });
        }
        let [_, positions, _] = self.axes(IMAGE_POSITIONS, &mut problems);
        let grid = positions.saturating_sub(1).isqrt();
        if grid.checked_mul(grid).and_then(|patches| patches.checked_add(1)) != Some(positions) || grid == 0 {
            let problem = format!("expected a class token and a square of patches, got {positions} rows");
            problems.push(Problem { field: IMAGE_POSITIONS.into(), problem });
        }
        let [_, context, _] = self.axes("txt_encoder/posembed_encoder/pos_embedding", &mut problems);
        let [vocab_size, _] = self.axes("txt_encoder/token_embedding/embedding", &mut problems);
        let [_, embed_dim] = self.axes("img_mlp1/kernel", &mut problems);
        if !problems.is_empty() {
            return Err(ExchangeError::config(&self.folder, problems));
        }
        self.check_positions(grid, image.width)?;
        let config = ModelConfig {
            image: ImageTowerConfig {
                size: grid.saturating_mul(patch_rows),
                patch: patch_rows,
                cut_edge: false,
                pixels: PixelNorm::IMAGENET,
                resizing: Default::default(),
                width: image.width,
                depth: image.depth,
                heads: image.heads,
                mlp_ratio: image.mlp_ratio,
                positions: ImagePositions::SinCos,
                pre_norm: false,
                class_token: true,
                pool: ImagePool::Mean,
                projection: Projection::Linear,
                patch_bias: true,
                activation: Activation::GeluTanh,
                norm_eps: NORM_EPS,
            },
            text: TextTowerConfig {
                tokenizer: TokenizerConfig::WordPiece("vocab.txt".into()),
                vocab_size,
                context,
                width: text.width,
                depth: text.depth,
                heads: text.heads,
                mlp_ratio: text.mlp_ratio,
                causal: false,
                pool: TextPool::First,
                projection: Projection::Linear,
                activation: Activation::GeluTanh,
                norm_eps: NORM_EPS,
            },
            embed_dim,
            normalisation: Normalisation::AddEps,
            logit_scale: LogitScaleConfig::default(),
            logit_bias: None,
        };
        let notes = self.step.map(|step| format!("step {step} of a run of the official code")).into_iter();
        Ok(Described {
            config,
            built_in_tokenizer: false,
            notes: notes.collect(),
            original: Box::new(original),
            text: Default::default(),
        })
    }

    fn tower(
        &self,
        prefix: &str,
        heads: Option<usize>,
        known: &[(usize, usize)],
        option: &str,
        problems: &mut Vec<Problem>,
    ) -> TowerShape {
        let blocks = format!("{prefix}_encoder/Transformer/encoderblock_");
        let depth = self
            .arrays
            .keys()
            .filter_map(|name| name.strip_prefix(&blocks)?.split('/').next()?.parse::<usize>().ok())
            .max()
            .map_or(0, |last| last.saturating_add(1));
        let [width, hidden] = self.axes(&format!("{blocks}00/MlpBlock_0/Dense_0/kernel"), problems);
        let published = known.iter().find(|(known, _)| *known == width).map(|(_, heads)| *heads);
        let heads = heads.or(published).unwrap_or_else(|| {
            let problem = format!(
                "no published encoder has width {width}, and no tensor shows the number of its attention heads: say it"
            );
            problems.push(Problem { field: option.into(), problem });
            1
        });
        TowerShape { width, depth, heads, mlp_ratio: hidden as f64 / width as f64 }
    }

    /// The shape of a tensor of a known rank.
    fn axes<const RANK: usize>(&self, name: &str, problems: &mut Vec<Problem>) -> [usize; RANK] {
        let shape = self.arrays.get(name).map(Leaf::shape);
        match shape.and_then(|shape| shape.try_into().ok()) {
            Some(axes) => axes,
            None => {
                let problem = match shape {
                    Some(shape) => format!("expected {RANK} axes, got {shape:?}"),
                    None => "missing".into(),
                };
                problems.push(Problem { field: name.into(), problem });
                [1; RANK]
            }
        }
    }

    /// Positions are computed here: those of the checkpoint must be the same.
    fn check_positions(&self, grid: usize, width: usize) -> Result<(), ExchangeError> {
        let stored = self.values(IMAGE_POSITIONS)?;
        // A row for the class token is stored and never added.
        let expected = if width.is_multiple_of(4) { sin_cos_table(grid, width) } else { Vec::new() };
        let same = stored.len() == expected.len()
            && stored.iter().zip(&expected).skip(width).all(|(a, b)| (a - b).abs() <= POSITION_TOLERANCE);
        match same {
            true => Ok(()),
            false => {
                let reason = "expected the fixed sin-cos positions of its grid; learned ones are not read";
                Err(ExchangeError::tensor(&self.folder, IMAGE_POSITIONS, reason))
            }
        }
    }

    fn values(&self, name: &str) -> Result<Vec<f32>, ExchangeError> {
        let fail = |reason: String| ExchangeError::tensor(&self.folder, name, reason);
        match self.arrays.get(name) {
            None => Err(fail("is missing".into())),
            Some(Leaf::Stored { values, .. }) => Ok(values.clone()),
            Some(Leaf::Folder { folder, shape, dtype }) => {
                zarr::read(&self.folder.join(folder), shape, dtype).map_err(fail)
            }
        }
    }
}

struct TowerShape {
    width: usize,
    depth: usize,
    heads: usize,
    mlp_ratio: f64,
}

impl Tensors for Checkpoint {
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.arrays.iter().map(|(name, leaf)| (name.clone(), leaf.shape().to_vec())).collect()
    }

    fn numbers(&self, _: &str) -> Numbers {
        Numbers::F32
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, ExchangeError> {
        self.values(name)
    }
}

/// Checked by [`Checkpoint::describe`], and not a parameter of ours.
pub(super) fn is_constant(name: &str) -> bool {
    name == IMAGE_POSITIONS
}

/// Place of a parameter of ours under `target`.
pub(super) fn original(slot: Slot, config: &ModelConfig) -> Original {
    let shape = slot.shape(config);
    let linear = |part| match part {
        Linear::Weight => "kernel",
        Linear::Bias => "bias",
    };
    let norm = |part| match part {
        Norm::Scale => "scale",
        Norm::Shift => "bias",
    };
    let prefix = |tower| match tower {
        Tower::Image => "img",
        Tower::Text => "txt",
    };
    match slot {
        Slot::Patch(Linear::Weight) => Original::reshaped(
            "img_encoder/embedding/kernel",
            vec![config.image.patch, config.image.patch, 3, config.image.width],
        ),
        Slot::Patch(Linear::Bias) => Original::same("img_encoder/embedding/bias", &shape),
        Slot::ClassToken => Original::reshaped("img_encoder/cls", vec![1, 1, config.image.width]),
        // FLIP has none; this is what big_vision would call it.
        Slot::PreNorm(part) => Original::same(format!("img_encoder/pre_norm/{}", norm(part)), &shape),
        Slot::Tokens => Original::same("txt_encoder/token_embedding/embedding", &shape),
        Slot::Positions(tower) => Original::reshaped(
            format!("{}_encoder/posembed_encoder/pos_embedding", prefix(tower)),
            [&[1], &shape[..]].concat(),
        ),
        Slot::FinalNorm(tower, part) => Original::same(
            format!("{}_encoder/Transformer/encoder_norm/{}", prefix(tower), norm(part)),
            &shape,
        ),
        Slot::Projection(tower) => Original::same(format!("{}_mlp1/kernel", prefix(tower)), &shape),
        // This format has none.
        Slot::Pool(_) | Slot::ProjectionBias(_) => Original::same(slot.name(), &shape),
        Slot::LogitScale => Original::same("logit_scale", &shape),
        // FLIP has none.
        Slot::LogitBias => Original::same("logit_bias", &shape),
        Slot::Block(tower, i, part) => {
            let block = format!("{}_encoder/Transformer/encoderblock_{i:02}", prefix(tower));
            let attention = format!("{block}/MultiHeadDotProductAttention_0");
            match part {
                InBlock::Norm1(part) => Original::same(format!("{block}/LayerNorm_0/{}", norm(part)), &shape),
                InBlock::Norm2(part) => Original::same(format!("{block}/LayerNorm_1/{}", norm(part)), &shape),
                InBlock::Qkv(part) => Original::same("", &shape).in_thirds(
                    ["query", "key", "value"].map(|third| format!("{attention}/{third}/{}", linear(part))),
                ),
                InBlock::Out(part) => Original::same(format!("{attention}/out/{}", linear(part)), &shape),
                InBlock::Up(part) => {
                    Original::same(format!("{block}/MlpBlock_0/Dense_0/{}", linear(part)), &shape)
                }
                InBlock::Down(part) => {
                    Original::same(format!("{block}/MlpBlock_0/Dense_1/{}", linear(part)), &shape)
                }
            }
        }
    }
}
