//! Parts of both encoders: LayerNorm, blocks, the projection into the shared space.

use super::graph::Builder;
use super::proto::Attribute;
use super::Weights;
use crate::model::{Activation, Normalisation, Projection};

/// Sizes and options of the blocks of an encoder.
pub(super) struct Tower<'w, 'a> {
    pub weights: &'w Weights<'a>,
    /// `image` or `text`: how names of parameters begin.
    pub name: &'static str,
    pub width: usize,
    pub depth: usize,
    pub heads: usize,
    pub tokens: usize,
    pub activation: Activation,
    pub norm_eps: f64,
    pub projection: Projection,
    /// A value that is added to the scores of attention, [tokens, tokens].
    pub hidden: Option<String>,
}

impl<'a> Tower<'_, 'a> {
    /// A parameter as a constant of the graph; `part` is what follows the name of the tower.
    pub fn parameter(&self, graph: &mut Builder<'a>, part: &str) -> String {
        let tensor = self.weights.of(&format!("{}.{part}", self.name));
        graph.floats(&tensor.name, &tensor.shape, &tensor.data[..])
    }

    /// `part` is for example `norm` or `blocks.0.norm1`.
    pub fn layer_norm(&self, graph: &mut Builder<'a>, part: &str, x: &str) -> String {
        let scale = self.parameter(graph, &format!("{part}.scale"));
        let shift = self.parameter(graph, &format!("{part}.shift"));
        let attributes = [Attribute::int("axis", -1), Attribute::float("epsilon", self.norm_eps as f32)];
        graph.op(part, "LayerNormalization", &[x, &scale, &shift], &attributes)
    }

    fn linear(&self, graph: &mut Builder<'a>, part: &str, x: &str) -> String {
        let weight = self.parameter(graph, &format!("{part}.weight"));
        let bias = self.parameter(graph, &format!("{part}.bias"));
        let product = graph.op(format!("{part}.product"), "MatMul", &[x, &weight], &[]);
        graph.op(part, "Add", &[&product, &bias], &[])
    }

    /// Every block, from and to [batch, tokens, width].
    pub fn blocks(&self, graph: &mut Builder<'a>, mut x: String) -> String {
        for block in (0..self.depth).map(|i| format!("blocks.{i}")) {
            let normal = self.layer_norm(graph, &format!("{block}.norm1"), &x);
            let seen = self.attention(graph, &format!("{block}.attention"), &normal);
            x = graph.op(format!("{block}.seen"), "Add", &[&x, &seen], &[]);
            let normal = self.layer_norm(graph, &format!("{block}.norm2"), &x);
            let up = self.linear(graph, &format!("{block}.mlp.up"), &normal);
            let active = self.activation(graph, &format!("{block}.mlp.activation"), &up);
            let down = self.linear(graph, &format!("{block}.mlp.down"), &active);
            x = graph.op(block, "Add", &[&x, &down], &[]);
        }
        x
    }

    /// softmax(q k^T / sqrt(width of a head) + hidden) v, projected.
    fn attention(&self, graph: &mut Builder<'a>, part: &str, x: &str) -> String {
        let head = self.width / self.heads;
        let qkv = self.linear(graph, &format!("{part}.qkv"), x);
        let thirds = graph.integers(&[self.width as i64; 3]);
        let thirds = graph.split(&format!("{part}.thirds"), &[&qkv, &thirds], 3, -1);
        let by_head = [0, self.tokens as i64, self.heads as i64, head as i64];
        // [batch, heads, tokens, head]; keys are transposed on the way.
        let orders = [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])];
        let [q, k, v] = [0, 1, 2].map(|i| {
            let (name, order) = &orders[i];
            let third = graph.reshape(format!("{part}.{name}.heads"), &thirds[i], &by_head);
            graph.transpose(format!("{part}.{name}"), &third, order)
        });
        let scale = graph.number((head as f32).sqrt().recip());
        let q = graph.op(format!("{part}.q.scaled"), "Mul", &[&q, &scale], &[]);
        let mut scores = graph.op(format!("{part}.scores"), "MatMul", &[&q, &k], &[]);
        if let Some(hidden) = &self.hidden {
            scores = graph.op(format!("{part}.visible"), "Add", &[&scores, hidden], &[]);
        }
        let shares = graph.op(format!("{part}.shares"), "Softmax", &[&scores], &[Attribute::int("axis", -1)]);
        let mixed = graph.op(format!("{part}.mixed"), "MatMul", &[&shares, &v], &[]);
        let mixed = graph.transpose(format!("{part}.mixed.tokens"), &mixed, &[0, 2, 1, 3]);
        let joined = [0, self.tokens as i64, self.width as i64];
        let mixed = graph.reshape(format!("{part}.joined"), &mixed, &joined);
        self.linear(graph, &format!("{part}.out"), &mixed)
    }

    fn activation(&self, graph: &mut Builder<'a>, name: &str, x: &str) -> String {
        match self.activation {
            Activation::QuickGelu => {
                let scale = graph.number(1.702);
                let inner = graph.op(format!("{name}.inner"), "Mul", &[x, &scale], &[]);
                let gate = graph.op(format!("{name}.gate"), "Sigmoid", &[&inner], &[]);
                graph.op(name, "Mul", &[x, &gate], &[])
            }
            Activation::GeluExact => {
                let root = graph.number(std::f32::consts::FRAC_1_SQRT_2);
                let inner = graph.op(format!("{name}.inner"), "Mul", &[x, &root], &[]);
                let odd = graph.op(format!("{name}.odd"), "Erf", &[&inner], &[]);
                self.half_gate(graph, name, x, &odd)
            }
            Activation::GeluTanh => {
                let square = graph.op(format!("{name}.square"), "Mul", &[x, x], &[]);
                let cube = graph.op(format!("{name}.cube"), "Mul", &[&square, x], &[]);
                let (small, root) =
                    (graph.number(0.044715), graph.number((2.0 / std::f32::consts::PI).sqrt()));
                let cube = graph.op(format!("{name}.small"), "Mul", &[&cube, &small], &[]);
                let sum = graph.op(format!("{name}.sum"), "Add", &[x, &cube], &[]);
                let inner = graph.op(format!("{name}.inner"), "Mul", &[&sum, &root], &[]);
                let odd = graph.op(format!("{name}.odd"), "Tanh", &[&inner], &[]);
                self.half_gate(graph, name, x, &odd)
            }
        }
    }

    /// x (1 + odd) / 2.
    fn half_gate(&self, graph: &mut Builder<'a>, name: &str, x: &str, odd: &str) -> String {
        let (one, half) = (graph.number(1.0), graph.number(0.5));
        let gate = graph.op(format!("{name}.gate"), "Add", &[odd, &one], &[]);
        let product = graph.op(format!("{name}.product"), "Mul", &[x, &gate], &[]);
        graph.op(name, "Mul", &[&product, &half], &[])
    }

    /// Attention of the learned query over [batch, tokens, width], and the MLP behind it: [batch, width].
    pub fn attention_pool(&self, graph: &mut Builder<'a>, tokens: &str) -> String {
        let part = |name: &str| format!("attention_pool.{name}");
        let head = self.width / self.heads;
        let kv = self.linear(graph, &part("kv"), tokens);
        let halves = graph.integers(&[self.width as i64; 2]);
        let halves = graph.split(&part("halves"), &[&kv, &halves], 2, -1);
        let by_head = [0, self.tokens as i64, self.heads as i64, head as i64];
        let orders = [("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])];
        let [k, v] = [0, 1].map(|i| {
            let (name, order) = &orders[i];
            let half = graph.reshape(part(&format!("{name}.heads")), &halves[i], &by_head);
            graph.transpose(part(name), &half, order)
        });
        let scale = (head as f32).sqrt().recip();
        let query = &self.weights.of(&format!("{}.attention_pool.query", self.name)).data;
        let query: Vec<f32> = query.iter().map(|x| scale * x).collect();
        let query = graph.floats(part("query.scaled"), &[self.heads, 1, head], query);
        let scores = graph.op(part("scores"), "MatMul", &[&query, &k], &[]);
        let shares = graph.op(part("shares"), "Softmax", &[&scores], &[Attribute::int("axis", -1)]);
        let mixed = graph.op(part("mixed"), "MatMul", &[&shares, &v], &[]);
        let mixed = graph.reshape(part("joined"), &mixed, &[0, self.width as i64]);
        let y = self.linear(graph, &part("out"), &mixed);
        let normal = self.layer_norm(graph, &part("norm"), &y);
        let up = self.linear(graph, &part("mlp.up"), &normal);
        let active = self.activation(graph, &part("mlp.activation"), &up);
        let down = self.linear(graph, &part("mlp.down"), &active);
        graph.op(part("thought"), "Add", &[&y, &down], &[])
    }

    /// [batch, width] to [batch, embed_dim].
    fn projected(&self, graph: &mut Builder<'a>, pooled: &str) -> String {
        if self.projection == Projection::None {
            return pooled.into();
        }
        let projection = self.parameter(graph, "projection");
        let product = graph.op("projected", "MatMul", &[pooled, &projection], &[]);
        if self.projection == Projection::Linear {
            return product;
        }
        let bias = self.parameter(graph, "projection_bias");
        graph.op("projected.biased", "Add", &[&product, &bias], &[])
    }

    /// [batch, width] to unit embeddings `output` [batch, embed_dim].
    pub fn embedding(&self, graph: &mut Builder<'a>, pooled: &str, unit: Normalisation, output: &str) {
        let z = self.projected(graph, pooled);
        let length = graph.op(
            "length",
            "ReduceL2",
            &[&z],
            &[Attribute::ints("axes", &[-1]), Attribute::int("keepdims", 1)],
        );
        let divisor = match unit {
            Normalisation::AddEps => {
                let eps = graph.number(1e-8);
                graph.op("divisor", "Add", &[&length, &eps], &[])
            }
            Normalisation::MaxEps => {
                let eps = graph.number(1e-12);
                graph.op("divisor", "Max", &[&length, &eps], &[])
            }
        };
        graph.op(output, "Div", &[&z, &divisor], &[]);
    }
}
