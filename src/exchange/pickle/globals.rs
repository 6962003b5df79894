//! The functions and classes that a pickle of tensors needs. Nothing is ever called: a call of one of these has a meaning
//! here, and a pickle that names anything else is refused.

use super::value::{Dtype, Global, Id, Storage, TensorView, Value, Values};

/// The global of a name.
///
/// # Errors
/// It is none that tensors need.
pub(super) fn find(module: &str, name: &str) -> Result<Global, String> {
    let global = match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size")
        | (
            "torch.jit._pickle",
            "build_intlist" | "build_tensorlist" | "build_doublelist" | "build_boollist" | "restore_type_tag",
        ) => Global::First,
        ("torch", "device") => Global::Unread,
        ("torch", dtype) if DTYPES.contains(&dtype) => Global::Unread,
        ("torch", storage) => match storage_of(storage) {
            Some(dtype) => Global::StorageOf(dtype),
            None => return refuse(module, name),
        },
        (module, _) if module == "__torch__" || module.starts_with("__torch__.") => Global::Module,
        _ => return refuse(module, name),
    };
    Ok(global)
}

const DTYPES: [&str; 10] =
    ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"];

fn storage_of(name: &str) -> Option<Dtype> {
    Some(match name {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "DoubleStorage" => Dtype::Other("float64", 8),
        "LongStorage" => Dtype::Other("int64", 8),
        "IntStorage" => Dtype::Other("int32", 4),
        "ShortStorage" => Dtype::Other("int16", 2),
        "CharStorage" => Dtype::Other("int8", 1),
        "ByteStorage" => Dtype::Other("uint8", 1),
        "BoolStorage" => Dtype::Other("bool", 1),
        _ => return None,
    })
}

fn refuse(module: &str, name: &str) -> Result<Global, String> {
    // What it names is shown to a person: as text of one line, and not without end.
    let shown: String = format!("{module}.{name}").chars().take(120).flat_map(char::escape_debug).collect();
    Err(format!(
        "it names `{shown}`, which tensors do not need; it is refused, and nothing of it was run. If it is part of a \
         checkpoint that is trusted, save its state_dict alone in Python"
    ))
}

/// The meaning of a call.
///
/// # Errors
/// The arguments are not those of the function.
pub(super) fn call(values: &mut Values, global: &Global, arguments: &[Id]) -> Result<Id, String> {
    match (global, arguments) {
        (Global::OrderedDict, []) => values.add(Value::Dict(Vec::new())),
        (Global::OrderedDict, &[pairs]) => {
            let pair = |values: &Values, pair: Id| match values.elements(pair) {
                Some(&[key, value]) => Some((key, value)),
                _ => None,
            };
            let elements = values.elements(pairs).unwrap_or_default();
            let pairs: Option<Vec<_>> = elements.iter().map(|&element| pair(values, element)).collect();
            values.add(Value::Dict(pairs.ok_or("an OrderedDict of what are no pairs")?))
        }
        (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
            let view = tensor(values, storage, offset, shape, strides);
            values.add(Value::Tensor(view.ok_or("a tensor whose storage, shape or strides are malformed")?))
        }
        (Global::RebuildParameter | Global::First, &[first, ..]) => Ok(first),
        (Global::Unread, _) => values.add(Value::Unread),
        _ => Err(format!("a call of {global:?} with {} arguments", arguments.len())),
    }
}

fn tensor(values: &Values, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<TensorView> {
    let Value::Storage(storage) = values.get(storage) else { return None };
    let (shape, strides) = (values.sizes(shape)?, values.sizes(strides)?);
    let offset = values.size(offset)?;
    (shape.len() == strides.len()).then(|| TensorView { storage: storage.clone(), offset, shape, strides })
}

/// The storage of a persistent id: ("storage", type, key, device, elements), in older files with a view behind.
///
/// # Errors
/// It is no such tuple.
pub(super) fn storage(values: &Values, id: Id) -> Result<Storage, String> {
    let found = match values.elements(id) {
        Some(&[kind, class, key, _, len]) => Some((kind, class, key, len)),
        Some(&[kind, class, key, _, len, view]) if *values.get(view) == Value::Unread => {
            Some((kind, class, key, len))
        }
        _ => None,
    };
    let storage = found.and_then(|(kind, class, key, len)| {
        let Value::Global(Global::StorageOf(dtype)) = *values.get(class) else { return None };
        let (key, len) = (values.text(key)?.to_owned(), values.size(len)?);
        (values.text(kind) == Some("storage")).then_some(Storage { key, dtype, len })
    });
    storage.ok_or_else(|| "it refers to something outside that is no storage of numbers".into())
}
