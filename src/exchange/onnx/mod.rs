//! Both encoders as ONNX: `image.onnx` takes normalised pixels, `text.onnx` token ids; either gives unit
//! embeddings, in 32 bits, of any batch size. Every option of the model can be expressed.
//!
//! Operator set 17 (2022) is the first with LayerNormalization; onnxruntime reads it since 1.12. A protobuf is at
//! most 2 GiB long, so weights beyond [`INLINE`] lie in a file beside the graph (`image.onnx.data`), from which
//! runtimes map them.

mod graph;
mod image;
mod proto;
mod text;
mod tower;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use prost::Message;

use super::error::ExchangeError;
use crate::model::{LogitScaleClip, ModelConfig, LOGIT_SCALE_RANGE};
use crate::parameter::NamedTensor;
use crate::whole_file;
use graph::Builder;
use proto::{Entry, Graph, Model, OperatorSet, ValueInfo, FLOAT};

const OPERATOR_SET: i64 = 17;
/// Of the file format; the one that came with the operator set.
const IR_VERSION: i64 = 8;
/// Name of either graph's output.
const OUTPUT: &str = "embeddings";
/// Bytes of weights that stay inside the file. Half of what a protobuf can hold: encoding takes a second copy.
const INLINE: usize = 1 << 30;
/// Constants up to this size stay inside in any case: shapes and axes, which runtimes want to see early.
const SMALL: usize = 1 << 10;
/// Alignment of values in a file of their own: pages can be mapped.
const ALIGNMENT: u64 = 4096;

/// The parameters by name. All that the configuration has are there.
pub(super) struct Weights<'a>(BTreeMap<&'a str, &'a NamedTensor>);

/// A graph, before its weights are laid down.
struct Encoder<'a> {
    name: &'static str,
    graph: Builder<'a>,
    input: ValueInfo,
    embed_dim: usize,
}

impl<'a> Weights<'a> {
    /// `tensors` have been held against the configuration.
    pub fn new(tensors: &[&'a NamedTensor]) -> Self {
        Weights(tensors.iter().map(|tensor| (tensor.name.as_str(), *tensor)).collect())
    }

    fn of(&self, name: &str) -> &'a NamedTensor {
        self.0.get(name).expect("every parameter that a graph asks for is one of the checked configuration's")
    }
}

/// Writes both graphs into `folder`. Weights of more than `inline` bytes an encoder go into files beside them.
pub(super) fn write(
    folder: &Path,
    config: &ModelConfig,
    weights: &Weights,
    inline: Option<usize>,
) -> Result<(), ExchangeError> {
    let about = about(config, weights);
    for encoder in [image::encoder(config, weights), text::encoder(config, weights)] {
        encoder.write(folder, &about, inline.unwrap_or(INLINE))?;
    }
    Ok(())
}

/// Facts for a caller of the graphs, as `metadata_props`.
fn about(config: &ModelConfig, weights: &Weights) -> Vec<Entry> {
    let three = |values: [f64; 3]| values.map(|value| value.to_string()).join(",");
    let [low, high] = LOGIT_SCALE_RANGE;
    let raw = weights.of("logit_scale").data.first().copied().map_or(0.0, f64::from);
    let scale = match config.logit_scale.clip {
        LogitScaleClip::Forward => raw.clamp(low, high),
        LogitScaleClip::AfterUpdate => raw,
    };
    let mut about = vec![
        Entry::new("image.size", config.image.size),
        Entry::new("image.resize", "shortest side to image.size, bicubic, antialiased; then the centre"),
        Entry::new("image.mean", three(config.image.pixels.mean)),
        Entry::new("image.std", three(config.image.pixels.std)),
        Entry::new("text.context", config.text.context),
        Entry::new("embed_dim", config.embed_dim),
        // The factor on cosine similarities.
        Entry::new("logit_scale", scale.exp()),
    ];
    if config.logit_bias.is_some() {
        // Added to their product.
        about.extend(weights.of("logit_bias").data.first().map(|&bias| Entry::new("logit_bias", bias)));
    }
    about
}

impl Encoder<'_> {
    fn write(self, folder: &Path, about: &[Entry], inline: usize) -> Result<(), ExchangeError> {
        let path = folder.join(format!("{}.onnx", self.name));
        let bytes: usize = self.graph.constants.values().map(graph::Constant::bytes).sum();
        let initializer = if bytes <= inline {
            let whole = self.graph.constants.iter().map(|(name, constant)| {
                let mut tensor = constant.declared(name);
                tensor.raw_data = Some(constant.raw());
                tensor
            });
            whole.collect()
        } else {
            let beside = format!("{}.onnx.data", self.name);
            let data = folder.join(&beside);
            self.write_beside(&data, &beside).map_err(ExchangeError::io("write", &data))?
        };
        let doc = "unit embeddings: their products are cosine similarities";
        let graph = Graph {
            node: self.graph.nodes,
            name: self.name.into(),
            initializer,
            input: vec![self.input],
            output: vec![ValueInfo::batched(OUTPUT, FLOAT, &[self.embed_dim], doc)],
        };
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: "flip".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: format!("The {} encoder of a contrastive image-text model.", self.name),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
            metadata_props: about.to_vec(),
        };
        whole_file::replace(&path, &model.encode_to_vec()).map_err(ExchangeError::io("write", &path))
    }

    /// Lays the large constants into a file of their own; returns the declarations of all.
    fn write_beside(&self, path: &Path, name: &str) -> std::io::Result<Vec<proto::Tensor>> {
        whole_file::replace_with(path, |out| self.write_constants(out, name))
    }

    fn write_constants(&self, out: &mut dyn Write, name: &str) -> std::io::Result<Vec<proto::Tensor>> {
        let mut at = 0u64;
        let mut declared = Vec::with_capacity(self.graph.constants.len());
        for (constant_name, constant) in &self.graph.constants {
            let mut tensor = constant.declared(constant_name);
            if constant.bytes() <= SMALL {
                tensor.raw_data = Some(constant.raw());
                declared.push(tensor);
                continue;
            }
            let start = at.next_multiple_of(ALIGNMENT);
            out.write_all(&vec![0; (start - at) as usize])?;
            let raw = constant.raw();
            out.write_all(&raw)?;
            at = start + raw.len() as u64;
            declared.push(tensor.stored_in(name, start, raw.len()));
        }
        Ok(declared)
    }
}
