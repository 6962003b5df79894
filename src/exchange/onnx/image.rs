//! The image encoder: normalised pixels [batch, 3, size, size] to unit embeddings [batch, embed_dim].

use super::graph::Builder;
use super::proto::{Attribute, ValueInfo, FLOAT};
use super::tower::Tower;
use super::{Encoder, Weights, OUTPUT};
use crate::exchange::layout::{scatter, Original};
use crate::model::{sin_cos_table, ImagePool, ImagePositions, ModelConfig};

/// The graph, unmasked.
pub(super) fn encoder<'a>(config: &ModelConfig, weights: &Weights<'a>) -> Encoder<'a> {
    let image = &config.image;
    let (size, patch, width, grid) = (image.size, image.patch, image.width, image.grid());
    let tower = Tower {
        weights,
        name: "image",
        width,
        depth: image.depth,
        heads: image.heads,
        tokens: image.prefix() + grid * grid,
        activation: image.activation,
        norm_eps: image.norm_eps,
        projection: image.projection,
        hidden: None,
    };
    let mut graph = Builder::default();

    let kernel = scatter(weights.of("image.patch.weight"), &Original::convolution("", patch, width), 0);
    let kernel = graph.floats("image.patch.weight", &[width, 3, patch, patch], kernel);
    let mut inputs = vec!["pixels".to_string(), kernel];
    if image.patch_bias {
        inputs.push(tower.parameter(&mut graph, "patch.bias"));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let side = patch as i64;
    let attributes =
        [Attribute::ints("kernel_shape", &[side, side]), Attribute::ints("strides", &[side, side])];
    let patches = graph.op("patches", "Conv", &inputs, &attributes);
    let patches = graph.reshape("patches.flat", &patches, &[0, width as i64, (grid * grid) as i64]);
    let patches = graph.transpose("patches.tokens", &patches, &[0, 2, 1]);

    let mut table = match image.positions {
        ImagePositions::Learned => weights.of("image.positions").data.clone(),
        ImagePositions::SinCos => sin_cos_table(grid, width)[(1 - image.prefix()) * width..].to_vec(),
    };
    let x = match image.class_token {
        true => {
            // A row of zeros in front makes room for the class token, which stands in the table of positions: any batch
            // size, without a shape that is computed.
            let class_token = &weights.of("image.class_token").data;
            table.iter_mut().zip(class_token).for_each(|(position, class)| *position += class);
            let pads = graph.integers(&[0, 1, 0, 0, 0, 0]);
            graph.op("tokens.patches", "Pad", &[&patches, &pads], &[])
        }
        false => patches,
    };
    let table = graph.floats("image.tokens", &[image.prefix() + grid * grid, width], table);
    let mut x = graph.op("tokens", "Add", &[&x, &table], &[]);
    if image.pre_norm {
        x = tower.layer_norm(&mut graph, "pre_norm", &x);
    }
    let x = tower.blocks(&mut graph, x);
    let pooled = match image.pool {
        ImagePool::Mean => {
            let normal = tower.layer_norm(&mut graph, "norm", &x);
            let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
            graph.op("pooled", "ReduceMean", &[&normal], &attributes)
        }
        // The norm is one of each token alone, so only the pooled token needs it.
        ImagePool::ClassToken => {
            let first = graph.integer(0);
            let class = graph.op("pooled", "Gather", &[&x, &first], &[Attribute::int("axis", 1)]);
            tower.layer_norm(&mut graph, "norm", &class)
        }
        ImagePool::Patches => {
            let (first, last) = (graph.integers(&[image.prefix() as i64]), graph.integers(&[i64::MAX]));
            let axis = graph.integers(&[1]);
            let patches = graph.op("pooled.patches", "Slice", &[&x, &first, &last, &axis], &[]);
            let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
            let mean = graph.op("pooled", "ReduceMean", &[&patches], &attributes);
            tower.layer_norm(&mut graph, "norm", &mean)
        }
        ImagePool::Attention => {
            let normal = tower.layer_norm(&mut graph, "norm", &x);
            tower.attention_pool(&mut graph, &normal)
        }
    };
    tower.embedding(&mut graph, &pooled, config.normalisation, OUTPUT);
    let doc = "RGB, channel first, (value / 255 - mean) / std; mean and std are in the metadata";
    Encoder {
        name: "image",
        graph,
        input: ValueInfo::batched("pixels", FLOAT, &[3, size, size], doc),
        embed_dim: config.embed_dim,
    }
}
