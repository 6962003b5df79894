//! Compressed files, detected by content, never by name, unpacked into a file that can be read at any place.
//!
//! The cost: a compressed file is unpacked every time it is opened (a shard once an epoch), into a file without
//! a name in the cache folder or in `$TMPDIR`, which is gone when the file is closed.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use crate::data::storage::disk::OpenFile;
use crate::data::storage::Progress;

/// Bytes moved at once.
const CHUNK: usize = 1 << 18;

/// Sizes to which a file may unpack before it is taken for a decompression bomb.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnpackLimits {
    /// Bytes.
    pub most: u64,
    /// Times its own length; looked at from [`FREELY`](Self::FREELY) bytes on.
    pub times: f64,
}

impl UnpackLimits {
    /// Bytes that any file may unpack to.
    pub const FREELY: u64 = 1 << 30;

    /// Bytes that a file of this length may unpack to.
    fn of(self, packed: u64) -> u64 {
        ((packed as f64 * self.times) as u64).max(UnpackLimits::FREELY).min(self.most)
    }
}

/// A file that can be read at any place.
#[derive(Debug)]
pub struct Unpacked {
    pub file: OpenFile,
    /// Length before it was unpacked.
    pub bytes: u64,
    /// True for a temporary file: closed, it is gone.
    pub temporary: bool,
    /// The damage for which it ends early. What is before the damage is there.
    pub damage: Option<String>,
}

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    fn of(start: &[u8]) -> Option<Packing> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Packing::Zstd),
            // A frame to be skipped, as pzstd and seekable writers put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(Packing::Zstd),
            _ => None,
        }
    }
}

/// Unpacks a file where it is packed; temporary files go into `folder`.
///
/// # Errors
/// The file cannot be read, or the temporary file cannot be written.
pub fn unpack(
    file: OpenFile,
    folder: &Path,
    limits: UnpackLimits,
    progress: &Progress,
) -> io::Result<Unpacked> {
    let mut start = [0; 4];
    let packing = match file.read_exact_at(&mut start, 0) {
        Ok(()) => Packing::of(&start),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(error),
    };
    let bytes = file.length()?;
    let Some(packing) = packing else { return Ok(Unpacked { file, bytes, temporary: false, damage: None }) };
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot be unpacked into {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(named)?;
    let mut plain = OpenFile::temporary(folder).map_err(named)?;
    let mut reader: Box<dyn Read + '_> = match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(&file))),
        Packing::Zstd => Box::new(zstd::Decoder::new(&file)?),
    };
    let damage = copy(&mut *reader, &mut plain, limits.of(bytes), progress).map_err(named)?;
    drop(reader);
    match file.take_failure() {
        // The machine stopped in the middle: that says nothing of the file.
        Some(error) => Err(error),
        None => {
            let damage = damage.map(|what| match what {
                Damage::Longer(most) => format!(
                    "its {bytes} bytes unpack to more than {most}: at most {} times its length from {} bytes on, \
                     and {} in all (data.storage.unpacked_times, data.storage.unpacked_gib)",
                    limits.times,
                    UnpackLimits::FREELY,
                    limits.most
                ),
                Damage::Broken(what) => what,
            });
            Ok(Unpacked { file: plain, bytes, temporary: true, damage })
        }
    }
}

/// The damage for which a file ends early.
enum Damage {
    /// It unpacks to more than these bytes.
    Longer(u64),
    Broken(String),
}

/// Copies to the end, or to what cannot be unpacked; only writing can fail.
fn copy(
    packed: &mut dyn Read,
    plain: &mut OpenFile,
    most: u64,
    progress: &Progress,
) -> io::Result<Option<Damage>> {
    let mut chunk = vec![0; CHUNK];
    let mut written = 0;
    loop {
        match packed.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(bytes) => {
                if written + bytes as u64 > most {
                    return Ok(Some(Damage::Longer(most)));
                }
                plain.write_all(&chunk[..bytes])?;
                written += bytes as u64;
                progress.advance();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let detail = format!("cannot be unpacked behind byte {written}: {error}");
                return Ok(Some(Damage::Broken(detail)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: UnpackLimits = UnpackLimits { most: 1 << 34, times: 100.0 };

    fn unpack_bytes(bytes: &[u8], limits: UnpackLimits) -> (Vec<u8>, bool, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let file = OpenFile::open(&path).unwrap();
        let Unpacked { file, temporary, damage, .. } =
            unpack(file, folder.path(), limits, &Progress::default()).unwrap();
        let mut plain = vec![0; file.length().unwrap() as usize];
        file.read_exact_at(&mut plain, 0).unwrap();
        (plain, temporary, damage)
    }

    fn unpacked(bytes: &[u8]) -> (Vec<u8>, bool, Option<String>) {
        unpack_bytes(bytes, LIMITS)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn files_are_unpacked_by_content() {
        let plain: Vec<u8> = (0..600_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        assert_eq!(unpacked(&plain), (plain.clone(), false, None));
        assert_eq!(unpacked(b""), (vec![], false, None));
        assert_eq!(unpacked(&gzip(&plain)), (plain.clone(), true, None));
        let two = [gzip(&plain[..1000]), gzip(&plain[1000..])].concat();
        assert_eq!(unpacked(&two), (plain.clone(), true, None), "pigz and cat write several members");
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        assert_eq!(unpacked(&zst), (plain.clone(), true, None));
        let two =
            [zstd::encode_all(&plain[..9], 1).unwrap(), zstd::encode_all(&plain[9..], 1).unwrap()].concat();
        assert_eq!(unpacked(&two), (plain, true, None));
    }

    #[test]
    fn what_is_before_the_damage_is_kept() {
        // Noise: half of what it is packed to is about half of it, whatever packs it.
        let mixed = |i: u32| {
            (i.wrapping_mul(0x9e37_79b1) ^ i.wrapping_mul(0x9e37_79b1) >> 15).wrapping_mul(0x85eb_ca77)
        };
        let plain: Vec<u8> = (0..600_000).map(|i| (mixed(i) >> 24) as u8).collect();
        for packed in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            let (kept, temporary, damage) = unpacked(&packed[..packed.len() / 2]);
            assert!(temporary && plain.starts_with(&kept) && kept.len() > 100_000, "{}", kept.len());
            assert!(damage.unwrap().contains("cannot be unpacked behind byte"));
        }
    }
    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_named_with_its_fields() {
        let bomb = zstd::encode_all(&vec![0; 5 << 20][..], 1).unwrap();
        let (kept, _, damage) = unpack_bytes(&bomb, UnpackLimits { most: 1 << 20, ..LIMITS });
        assert!(kept.len() <= 1 << 20);
        let damage = damage.unwrap();
        assert!(
            damage.contains("unpack to more than 1048576") && damage.contains("data.storage.unpacked_gib")
        );
        // A file of this length may unpack to a hundred times itself, and one of less to a GiB.
        assert_eq!(LIMITS.of(20 << 20), 2000 << 20);
        assert_eq!(LIMITS.of(1000), UnpackLimits::FREELY);
        assert_eq!(LIMITS.of(1 << 30), LIMITS.most);
    }
}
