//! A graph of ONNX operators as it grows. Operators and their attributes are those of operator set 17.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::proto::{Attribute, Node, Tensor, FLOAT, INT64};

/// Constants and operators. A value is called by the name of the operator, the constant or the input that it is of.
#[derive(Default)]
pub(super) struct Builder<'a> {
    pub nodes: Vec<Node>,
    pub constants: BTreeMap<String, Constant<'a>>,
}

/// A constant of the graph.
pub(super) struct Constant<'a> {
    pub shape: Vec<usize>,
    pub values: Values<'a>,
}

pub(super) enum Values<'a> {
    Floats(Cow<'a, [f32]>),
    Integers(Vec<i64>),
}

impl<'a> Builder<'a> {
    /// Adds an operator with one output, which is returned.
    pub fn op(
        &mut self,
        name: impl Into<String>,
        op_type: &str,
        inputs: &[&str],
        attributes: &[Attribute],
    ) -> String {
        let name = name.into();
        self.node(&name, op_type, inputs, vec![name.clone()], attributes);
        name
    }

    /// Adds an operator with `outputs` outputs.
    pub fn split(&mut self, name: &str, inputs: &[&str], outputs: usize, axis: i64) -> Vec<String> {
        let names: Vec<String> = (0..outputs).map(|i| format!("{name}.{i}")).collect();
        self.node(name, "Split", inputs, names.clone(), &[Attribute::int("axis", axis)]);
        names
    }

    fn node(
        &mut self,
        name: &str,
        op_type: &str,
        inputs: &[&str],
        output: Vec<String>,
        attributes: &[Attribute],
    ) {
        self.nodes.push(Node {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output,
            name: name.into(),
            op_type: op_type.into(),
            attribute: attributes.to_vec(),
        });
    }

    /// A constant tensor.
    pub fn floats(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: impl Into<Cow<'a, [f32]>>,
    ) -> String {
        self.constant(name.into(), shape, Values::Floats(values.into()))
    }

    /// A single number; the same number is there once.
    pub fn number(&mut self, value: f32) -> String {
        self.constant(format!("number/{value:e}"), &[], Values::Floats(vec![value].into()))
    }

    /// A list of whole numbers: a shape, axes, places.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let listed: Vec<String> = values.iter().map(i64::to_string).collect();
        self.constant(
            format!("integers/{}", listed.join(",")),
            &[values.len()],
            Values::Integers(values.to_vec()),
        )
    }

    /// A single whole number.
    pub fn integer(&mut self, value: i64) -> String {
        self.constant(format!("integer/{value}"), &[], Values::Integers(vec![value]))
    }

    fn constant(&mut self, name: String, shape: &[usize], values: Values<'a>) -> String {
        self.constants.insert(name.clone(), Constant { shape: shape.to_vec(), values });
        name
    }

    /// Swaps axes.
    pub fn transpose(&mut self, name: impl Into<String>, x: &str, order: &[i64]) -> String {
        self.op(name, "Transpose", &[x], &[Attribute::ints("perm", order)])
    }

    /// Another shape of the same values; 0 keeps the size of an axis.
    pub fn reshape(&mut self, name: impl Into<String>, x: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.op(name, "Reshape", &[x, &shape], &[])
    }
}

impl Constant<'_> {
    /// Its declaration, without values.
    pub fn declared(&self, name: &str) -> Tensor {
        Tensor {
            dims: self.shape.iter().map(|&size| size as i64).collect(),
            data_type: match self.values {
                Values::Floats(_) => FLOAT,
                Values::Integers(_) => INT64,
            },
            name: name.into(),
            ..Tensor::default()
        }
    }

    /// Bytes that its values take.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Floats(values) => 4 * values.len(),
            Values::Integers(values) => 8 * values.len(),
        }
    }

    /// Its values, little-endian.
    pub fn raw(&self) -> Vec<u8> {
        match &self.values {
            Values::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::Integers(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}
