//! Values of a pickle. They lie in one list and name each other by number, so that nothing nested or circular is ever
//! walked by recursion, and a limit on their number limits the memory.

/// Number of a value in [`Values`].
pub(super) type Id = u32;

/// Number types of PyTorch's storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
    /// A type that weights are not read of, by the name of its storage, with the bytes of an element.
    Other(&'static str, u64),
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Other(_, bytes) => bytes,
        }
    }
}

/// A storage of numbers in another part of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    pub key: String,
    pub dtype: Dtype,
    /// Elements.
    pub len: u64,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorView {
    pub storage: Storage,
    /// Elements before the first.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Elements from one index of an axis to the next.
    pub strides: Vec<u64>,
}

/// A function or class that a pickle may name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Dtype),
    /// A call of it gives its first argument: torch.Size, and TorchScript's typed lists.
    First,
    /// Its value, or that of a call of it, is never looked at: a dtype or a device.
    Unread,
    /// A class of a TorchScript archive: a module with attributes.
    Module,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// None, a number that is not looked at, or whatever stands for it.
    Unread,
    Bool(bool),
    Int(i64),
    /// A whole number of more than eight bytes, little-endian.
    Long(Vec<u8>),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(TensorView),
    /// A module of TorchScript, with its attributes once they are set.
    Module(Option<Id>),
}

/// More values than the pickles of a model with a hundred thousand tensors have.
const MOST: usize = 4_000_000;

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

impl Values {
    /// Adds a value.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, value: Value) -> Result<Id, String> {
        if self.0.len() >= MOST {
            return Err(format!("has more than {MOST} values"));
        }
        self.0.push(value);
        Ok(self.0.len() as Id - 1)
    }

    /// Key and number type of every storage that is referred to.
    pub fn storages(&self) -> impl Iterator<Item = (String, Dtype)> + '_ {
        self.0.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key.clone(), storage.dtype)),
            _ => None,
        })
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.0[id as usize]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.0[id as usize]
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number of 0 or more.
    pub fn size(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Elements of a tuple or list.
    pub fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(elements) | Value::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The whole numbers of a tuple or list.
    pub fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        self.elements(id)?.iter().map(|&element| self.size(element)).collect()
    }

    /// The value of a text key of a dictionary; the last that was set.
    pub fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        match self.get(dict) {
            Value::Dict(entries) => {
                entries.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
            }
            _ => None,
        }
    }
}
