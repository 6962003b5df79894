//! The layouts of files around PyTorch's pickles: where the pickle of the tensors is, and where the values of their storages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::machine::{self, Pickle, Unreadable};
use super::value::{Dtype, Value};

/// The first pickle of a sequence, 0x1950a86a20f9469cfc6c, and the second, its version.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// Bytes of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub start: u64,
    pub len: u64,
}

/// Pickles and storages of a file, whatever its layout.
pub(super) struct Contents {
    pub pickle: Pickle,
    pub storages: HashMap<String, Span>,
    pub is_script: bool,
}

impl From<ZipError> for Unreadable {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => error.into(),
            other => Unreadable::Malformed(format!("its archive is malformed: {other}")),
        }
    }
}

/// A zip archive: NAME/data.pkl, and NAME/data/KEY for each storage. Nothing in it is packed.
pub(super) fn zip(file: &mut File) -> Result<Contents, Unreadable> {
    let mut archive = ZipArchive::new(BufReader::new(&*file))?;
    let (mut pickle, mut storages, mut is_script) = (None, HashMap::new(), false);
    let mut little = true;
    for index in 0..archive.len() {
        let mut member = archive.by_index_raw(index)?;
        let name = member.name()?.into_owned();
        let Some((_, inside)) = name.split_once('/') else { continue };
        let key = inside.strip_prefix("data/").filter(|key| !key.is_empty());
        if key.is_some() || inside == "data.pkl" {
            if member.compression() != CompressionMethod::Stored {
                return Err(format!("its member {name:?} is packed; torch.save never packs").into());
            }
            if let Some(key) = key {
                let start = member.data_start().ok_or("a member that is nowhere")?;
                storages.insert(key.to_owned(), Span { start, len: member.size() });
                continue;
            }
            pickle = Some(machine::read(BufReader::new(&mut member))?);
        }
        match inside {
            "byteorder" => {
                let mut order = Vec::new();
                member.take(16).read_to_end(&mut order)?;
                little = order != b"big";
            }
            "constants.pkl" => is_script = true,
            _ => {}
        }
    }
    if !little {
        return Err("was saved on a big-endian machine".into());
    }
    let pickle = pickle.ok_or("is a zip archive without data.pkl: no checkpoint of PyTorch")?;
    Ok(Contents { pickle, storages, is_script })
}

/// The layout before 1.6: a magic number, a version, facts about the machine, the pickle of the tensors, the keys of their
/// storages, and for each the number of its elements and their values.
pub(super) fn sequence(file: &mut File) -> Result<Contents, Unreadable> {
    let mut from = BufReader::new(&*file);
    let [magic, version] = [machine::read(&mut from)?, machine::read(&mut from)?];
    let is_magic = matches!(magic.values.get(magic.root), Value::Long(bytes) if *bytes == MAGIC);
    if !is_magic || *version.values.get(version.root) != Value::Int(VERSION) {
        return Err("is a pickle, but not one of torch.save; expected a checkpoint of PyTorch".into());
    }
    let about = machine::read(&mut from)?;
    let little = about.values.entry(about.root, "little_endian").map(|order| about.values.get(order));
    if little == Some(&Value::Bool(false)) {
        return Err("was saved on a big-endian machine".into());
    }
    let pickle = machine::read(&mut from)?;
    let keys = machine::read(&mut from)?;
    let dtypes: HashMap<String, Dtype> = pickle.values.storages().collect();
    let mut at = from.stream_position()?;
    let length = file.metadata()?.len();
    let mut storages = HashMap::new();
    for &key in keys.values.elements(keys.root).ok_or("expected a list of storages")? {
        let key = keys.values.text(key).ok_or("expected a list of storages by name")?;
        let dtype = *dtypes.get(key).ok_or_else(|| format!("a storage {key:?} that no tensor has"))?;
        file.seek(SeekFrom::Start(at))?;
        let mut elements = [0; 8];
        file.read_exact(&mut elements)?;
        let len = u64::from_le_bytes(elements).checked_mul(dtype.bytes());
        let end = len.and_then(|len| (at + 8).checked_add(len)).filter(|end| *end <= length);
        let end = end.ok_or_else(|| format!("the values of storage {key:?} are truncated"))?;
        storages.insert(key.to_owned(), Span { start: at + 8, len: end - at - 8 });
        at = end;
    }
    Ok(Contents { pickle, storages, is_script: false })
}
