//! The layouts of checkpoints that other tools read or write.

/// A layout of checkpoints that other tools read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder with open_clip_config.json and safetensors.
    OpenClip,
    /// A folder of Hugging Face transformers' CLIP: config.json and safetensors.
    Transformers,
    /// A checkpoint of the official FLIP code: a msgpack index and zarr folders.
    FlipT5x,
    /// A folder with a graph for each encoder.
    Onnx,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::OpenClip => "open_clip",
            Format::Transformers => "transformers",
            Format::FlipT5x => "FLIP (t5x)",
            Format::Onnx => "ONNX",
        })
    }
}
