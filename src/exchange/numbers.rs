//! Number types that a checkpoint was stored in, so that it goes out as it came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The type of the numbers of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Numbers {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

/// Form of a checkpoint of another tool, beside its values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stored {
    /// Of most parameters.
    pub numbers: Numbers,
    /// Of parameters, by their names here, that are stored in another type.
    pub others: BTreeMap<String, Numbers>,
    /// Logit scale and bias are vectors of one number (open_clip's `nonscalar_logit_scale`).
    pub vector_scale: bool,
}

impl Numbers {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Numbers::F32 => 4,
            Numbers::F16 | Numbers::Bf16 => 2,
        }
    }
}

impl Stored {
    /// Everything in one type.
    pub fn all(numbers: Numbers) -> Self {
        Stored { numbers, ..Stored::default() }
    }

    /// From each parameter and its type; `values` counts for how much.
    pub(super) fn of(each: &[(String, Numbers, usize)], vector_scale: bool) -> Self {
        let mut totals: BTreeMap<Numbers, usize> = BTreeMap::new();
        for (_, numbers, values) in each {
            *totals.entry(*numbers).or_default() += values;
        }
        let most = totals.into_iter().max_by_key(|&(_, values)| values);
        let numbers = most.map_or(Numbers::F32, |(numbers, _)| numbers);
        let others = each.iter().filter(|(_, other, _)| *other != numbers);
        Stored {
            numbers,
            others: others.map(|(name, other, _)| (name.clone(), *other)).collect(),
            vector_scale,
        }
    }

    /// The type of a parameter.
    pub fn of_parameter(&self, name: &str) -> Numbers {
        self.others.get(name).copied().unwrap_or(self.numbers)
    }
}
