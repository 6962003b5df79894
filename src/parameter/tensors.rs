//! Tensors on the host by name, and how a set of them differs from what was expected.

use std::collections::BTreeMap;
use std::fmt;

use super::count;

/// A tensor on the host, as checkpoints hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Difference of a set of tensors from the expected ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// Expected and not there.
    pub missing: Vec<String>,
    /// There and not expected, or there twice.
    pub left_over: Vec<String>,
    /// Name, the expected shape, the shape that is there.
    pub reshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Pairs every expected name and shape with its tensor, in the expected order; or says everything that
    /// does not fit.
    pub fn pair<'a>(
        expected: &[(String, Vec<usize>)],
        tensors: &'a [NamedTensor],
    ) -> Result<Vec<&'a NamedTensor>, Mismatch> {
        // One that has more or fewer values than its shape says fits nowhere.
        let shape = |tensor: &'a NamedTensor| match tensor.data.len() == count(&tensor.shape) {
            true => tensor.shape.clone(),
            false => vec![tensor.data.len()],
        };
        let places = Mismatch::places(expected, tensors.iter().map(|t| (t.name.as_str(), shape(t))))?;
        Ok(places.into_iter().map(|place| &tensors[place]).collect())
    }

    /// As [`pair`](Self::pair), of names and shapes alone: the place of each expected tensor among those that are there.
    pub fn places<'a>(
        expected: &[(String, Vec<usize>)],
        there: impl Iterator<Item = (&'a str, Vec<usize>)>,
    ) -> Result<Vec<usize>, Mismatch> {
        let mut mismatch = Mismatch::default();
        let mut by_name = BTreeMap::new();
        for (place, (name, shape)) in there.enumerate() {
            if by_name.insert(name, (place, shape)).is_some() {
                mismatch.left_over.push(name.into());
            }
        }
        let mut places = Vec::with_capacity(expected.len());
        for (name, shape) in expected {
            match by_name.remove(name.as_str()) {
                Some((place, found)) if found == *shape => places.push(place),
                Some((_, found)) => mismatch.reshaped.push((name.clone(), shape.clone(), found)),
                None => mismatch.missing.push(name.clone()),
            }
        }
        mismatch.left_over.extend(by_name.into_keys().map(String::from));
        if mismatch.is_empty() {
            Ok(places)
        } else {
            Err(mismatch)
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.left_over.is_empty() && self.reshaped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.iter().map(|name| format!("{name}: missing"));
        let left_over =
            self.left_over.iter().map(|name| format!("{name}: expected no such tensor, or only one"));
        let reshaped = self
            .reshaped
            .iter()
            .map(|(name, expected, got)| format!("{name}: expected shape {expected:?}, got {got:?}"));
        let lines: Vec<String> = missing.chain(left_over).chain(reshaped).collect();
        write!(f, "{}", lines.join("\n"))
    }
}
