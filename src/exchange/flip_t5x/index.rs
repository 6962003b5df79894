//! The index of a t5x checkpoint: flax's msgpack of nested maps, a placeholder for every array.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use rmpv::Value;

use crate::exchange::error::ExchangeError;

/// A real index has a few hundred bytes an array. Bounds what a decoded index can take in memory.
const LARGEST: u64 = 16 << 20;
/// Levels of maps; the deepest real one has a dozen.
const DEEPEST: usize = 64;
/// flax's extension types of an array and of a single number.
const ARRAY_EXTENSIONS: [i8; 2] = [1, 3];
/// Formats of the index: 3 and, with bfloat16 written otherwise, 2.
const VERSIONS: std::ops::RangeInclusive<i64> = 2..=3;

/// Content of an index.
pub(super) struct Index {
    pub step: Option<i64>,
    /// The parameters, by their path joined with `/`.
    pub target: BTreeMap<String, Leaf>,
}

/// A parameter.
pub(super) enum Leaf {
    /// A zarr array in a folder beside the index.
    Folder { folder: String, shape: Vec<usize>, dtype: String },
    /// Inside the index.
    Stored { shape: Vec<usize>, values: Vec<f32> },
}

impl Leaf {
    pub fn shape(&self) -> &[usize] {
        match self {
            Leaf::Folder { shape, .. } | Leaf::Stored { shape, .. } => shape,
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Index, ExchangeError> {
    let io = ExchangeError::io("read", path);
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > LARGEST {
        let reason = format!("an index of {length} bytes; {LARGEST} are the most that is read");
        return Err(ExchangeError::broken(path, reason));
    }
    let bytes = std::fs::read(path).map_err(ExchangeError::io("read", path))?;
    parse(&bytes).map_err(|reason| ExchangeError::broken(path, reason))
}

fn parse(bytes: &[u8]) -> Result<Index, String> {
    let mut rest = bytes;
    let top = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST)
        .map_err(|error| format!("not a whole msgpack index: {error}"))?;
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the index", rest.len()));
    }
    let version = field(&top, "version").and_then(Value::as_i64);
    if !version.is_some_and(|version| VERSIONS.contains(&version)) {
        return Err(format!("expected version 2 or 3 of t5x checkpoints, got {version:?}"));
    }
    let optimizer = field(&top, "optimizer").ok_or("it has no `optimizer`")?;
    let target = field(optimizer, "target").ok_or("its `optimizer` has no `target`")?;
    let step = field(optimizer, "state").and_then(|state| field(state, "step")).and_then(step);
    let mut leaves = BTreeMap::new();
    walk("", target, &mut leaves)?;
    Ok(Index { step, target: leaves })
}

fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
}

fn walk(path: &str, value: &Value, leaves: &mut BTreeMap<String, Leaf>) -> Result<(), String> {
    let at = |reason: String| format!("target/{path}: {reason}");
    let leaf = match value {
        Value::Map(_) if ["driver", "kvstore", "metadata"].iter().all(|key| field(value, key).is_some()) => {
            placeholder(value).map_err(at)?
        }
        Value::Map(entries) => {
            for (name, inner) in entries {
                let name = name.as_str().ok_or_else(|| at(format!("expected a name, got {name}")))?;
                let path = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
                walk(&path, inner, leaves)?;
            }
            return Ok(());
        }
        Value::Ext(kind, payload) if ARRAY_EXTENSIONS.contains(kind) => stored(payload).map_err(at)?,
        _ => return Err(at("expected a module or an array".into())),
    };
    match leaves.insert(path.to_string(), leaf) {
        None => Ok(()),
        Some(_) => Err(at("is there twice".into())),
    }
}

/// Folder of an array, and its expected shape.
fn placeholder(value: &Value) -> Result<Leaf, String> {
    let driver = field(value, "driver").and_then(Value::as_str);
    if driver != Some("zarr") {
        return Err(format!("expected the driver zarr, got {driver:?}"));
    }
    // Before tensorstore 0.1.14 the path lay beside the key-value store.
    let store = field(value, "kvstore").and_then(|store| field(store, "path"));
    let path = store
        .or_else(|| field(value, "path"))
        .and_then(Value::as_str)
        .ok_or("its placeholder has no path")?;
    let folder = path.strip_suffix('/').unwrap_or(path);
    let mut parts = Path::new(folder).components();
    let plain =
        matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == folder);
    if !plain || folder.contains('\\') {
        return Err(format!("expected the name of a folder beside the index, got {path:?}"));
    }
    let metadata = field(value, "metadata").ok_or("its placeholder has no metadata")?;
    let shape = shape(field(metadata, "shape")).ok_or("its placeholder has no shape")?;
    let dtype = field(value, "dtype").and_then(Value::as_str).unwrap_or("float32");
    Ok(Leaf::Folder { folder: folder.into(), shape, dtype: dtype.into() })
}

fn shape(value: Option<&Value>) -> Option<Vec<usize>> {
    value?.as_array()?.iter().map(|axis| axis.as_u64().and_then(|axis| axis.try_into().ok())).collect()
}

/// flax's payload of an array: [shape, dtype, bytes].
fn payload(payload: &[u8]) -> Option<(Vec<usize>, String, Vec<u8>)> {
    let value = rmpv::decode::read_value_with_max_depth(&mut &payload[..], DEEPEST).ok()?;
    let [axes, dtype, bytes] = value.as_array()?.as_slice() else { return None };
    Some((shape(Some(axes))?, dtype.as_str()?.to_string(), bytes.as_slice()?.to_vec()))
}

fn stored(bytes: &[u8]) -> Result<Leaf, String> {
    let (shape, dtype, bytes) = payload(bytes).ok_or("expected [shape, dtype, bytes] of an array")?;
    if dtype != "float32" {
        return Err(format!("expected float32, got {dtype}"));
    }
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let expected = shape.iter().try_fold(4usize, |n, &axis| n.checked_mul(axis));
    if expected != Some(bytes.len()) {
        return Err(format!("{} bytes are not an array of shape {shape:?}", bytes.len()));
    }
    Ok(Leaf::Stored { shape, values })
}

/// The step, a single int32.
fn step(value: &Value) -> Option<i64> {
    let Value::Ext(kind, bytes) = value else { return value.as_i64() };
    let (_, dtype, bytes) = ARRAY_EXTENSIONS.contains(kind).then(|| payload(bytes)).flatten()?;
    match (dtype.as_str(), bytes.as_slice()) {
        ("int32", &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d]).into()),
        _ => None,
    }
}
