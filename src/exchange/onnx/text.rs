//! The text encoder: token ids [batch, context] to unit embeddings [batch, embed_dim].

use super::graph::Builder;
use super::proto::{Attribute, ValueInfo, INT32, INT64};
use super::tower::Tower;
use super::{Encoder, Weights, OUTPUT};
use crate::model::{ModelConfig, TextPool};

/// Added to the score of a token that lies ahead: its share of attention is zero in single precision, and stays
/// a number where a runtime computes in half.
const AHEAD: f32 = -1e9;

/// The graph, unmasked.
pub(super) fn encoder<'a>(config: &ModelConfig, weights: &Weights<'a>) -> Encoder<'a> {
    let (text, context) = (&config.text, config.text.context);
    let mut graph = Builder::default();
    let hidden = text.causal.then(|| {
        let row = |query: usize| (0..context).map(move |key| if key <= query { 0.0 } else { AHEAD });
        let mask: Vec<f32> = (0..context).flat_map(row).collect();
        graph.floats("ahead", &[context, context], mask)
    });
    let tower = Tower {
        weights,
        name: "text",
        width: text.width,
        depth: text.depth,
        heads: text.heads,
        tokens: context,
        activation: text.activation,
        norm_eps: text.norm_eps,
        projection: text.projection,
        hidden,
    };
    let tokens = tower.parameter(&mut graph, "tokens");
    let positions = tower.parameter(&mut graph, "positions");
    let x = graph.op("tokens", "Gather", &[&tokens, "ids"], &[Attribute::int("axis", 0)]);
    let x = graph.op("placed", "Add", &[&x, &positions], &[]);
    let x = tower.blocks(&mut graph, x);
    let pooled = match text.pool {
        TextPool::Mean => {
            let normal = tower.layer_norm(&mut graph, "norm", &x);
            let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
            graph.op("pooled", "ReduceMean", &[&normal], &attributes)
        }
        TextPool::First | TextPool::Last => {
            let place = if text.pool == TextPool::First { 0 } else { context as i64 - 1 };
            let place = graph.integer(place);
            let token = graph.op("pooled", "Gather", &[&x, &place], &[Attribute::int("axis", 1)]);
            tower.layer_norm(&mut graph, "norm", &token)
        }
        TextPool::Token(id) => {
            let id = graph.integer(i64::from(id));
            let there = graph.op("end.there", "Equal", &["ids", &id], &[]);
            let there = graph.op("end.first", "Cast", &[&there], &[Attribute::int("to", INT32.into())]);
            // The first of equals.
            let place = [Attribute::int("axis", 1), Attribute::int("keepdims", 1)];
            let place = graph.op("end", "ArgMax", &[&there], &place);
            let end = graph.op("pooled", "GatherND", &[&x, &place], &[Attribute::int("batch_dims", 1)]);
            tower.layer_norm(&mut graph, "norm", &end)
        }
        TextPool::EndOfText => {
            // Not every runtime finds the largest of 64-bit numbers.
            let ids = graph.op("ids.narrow", "Cast", &["ids"], &[Attribute::int("to", INT32.into())]);
            let place = [Attribute::int("axis", 1), Attribute::int("keepdims", 1)];
            let place = graph.op("end", "ArgMax", &[&ids], &place);
            let end = graph.op("pooled", "GatherND", &[&x, &place], &[Attribute::int("batch_dims", 1)]);
            tower.layer_norm(&mut graph, "norm", &end)
        }
    };
    tower.embedding(&mut graph, &pooled, config.normalisation, OUTPUT);
    let doc = "ids of the tokenizer beside the model, padded and cut to the context";
    Encoder {
        name: "text",
        graph,
        input: ValueInfo::batched("ids", INT64, &[context], doc),
        embed_dim: config.embed_dim,
    }
}
