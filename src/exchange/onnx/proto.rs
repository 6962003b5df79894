//! The part of ONNX's protobuf (`onnx/onnx.proto`) that the encoders need, field by field.

use prost::Message;

/// Element types of `TensorProto.DataType`.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;
/// `AttributeProto.AttributeType`.
const TYPE_FLOAT: i32 = 1;
const TYPE_INT: i32 = 2;
const TYPE_INTS: i32 = 7;

/// A file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(string, tag = "6")]
    pub doc_string: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    /// Empty: ONNX's own.
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    /// In an order in which each input is there before it is read.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// A constant. Its values are `raw_data`, little-endian, or elsewhere.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub of: Option<Type>,
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(oneof = "Extent", tags = "1, 2")]
    pub extent: Option<Extent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Extent {
    #[prost(int64, tag = "1")]
    Value(i64),
    /// A name: any size, the same wherever the name stands.
    #[prost(string, tag = "2")]
    Any(String),
}

impl Entry {
    pub fn new(key: &str, value: impl ToString) -> Self {
        Entry { key: key.into(), value: value.to_string() }
    }
}

impl Attribute {
    pub fn float(name: &str, value: f32) -> Self {
        Attribute { name: name.into(), f: Some(value), kind: TYPE_FLOAT, ..Attribute::default() }
    }

    pub fn int(name: &str, value: i64) -> Self {
        Attribute { name: name.into(), i: Some(value), kind: TYPE_INT, ..Attribute::default() }
    }

    pub fn ints(name: &str, values: &[i64]) -> Self {
        Attribute { name: name.into(), ints: values.into(), kind: TYPE_INTS, ..Attribute::default() }
    }
}

impl ValueInfo {
    /// A tensor [batch, ..sizes] of any batch.
    pub fn batched(name: &str, elem_type: i32, sizes: &[usize], doc: &str) -> Self {
        let batch = Extent::Any("batch".into());
        let extents = [batch].into_iter().chain(sizes.iter().map(|&size| Extent::Value(size as i64)));
        let dim = extents.map(|extent| Dimension { extent: Some(extent) }).collect();
        let tensor = TensorType { elem_type, shape: Some(Shape { dim }) };
        ValueInfo { name: name.into(), of: Some(Type { tensor: Some(tensor) }), doc_string: doc.into() }
    }
}

impl Tensor {
    /// Leaves the values to `length` bytes at `offset` of the file `location` beside the model.
    pub fn stored_in(mut self, location: &str, offset: u64, length: usize) -> Self {
        self.data_location = Some(EXTERNAL);
        self.external_data = vec![
            Entry::new("location", location),
            Entry::new("offset", offset),
            Entry::new("length", length),
        ];
        self
    }
}
