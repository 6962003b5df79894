//! Compressed files, told by content and never by name, unpacked into a file that can be read at any place.
//!
//! The cost: a compressed file is unpacked every time it is opened (a shard once an epoch), into a file without
//! a name in the cache folder or in `$TMPDIR`, which is gone when the file is closed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::pulse::Pulse;

/// A file that unpacks to more than this is taken for a bomb.
const LONGEST_UNPACKED: u64 = 64 << 30;
/// Bytes moved at once.
const CHUNK: usize = 1 << 18;

/// A file that can be read at any place.
#[derive(Debug)]
pub struct Unpacked {
    pub file: File,
    /// Length before it was unpacked.
    pub bytes: u64,
    /// Whether it is a temporary file: closed, it is gone.
    pub temporary: bool,
    /// Why it ends early, where the packed file is damaged. What is before the damage is there.
    pub damage: Option<String>,
}

/// How a file is packed.
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
pub fn unpack(file: File, folder: &Path, pulse: &Pulse) -> io::Result<Unpacked> {
    let mut start = [0; 4];
    let packing = match file.read_exact_at(&mut start, 0) {
        Ok(()) => Packing::of(&start),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(error),
    };
    let bytes = file.metadata()?.len();
    let Some(packing) = packing else { return Ok(Unpacked { file, bytes, temporary: false, damage: None }) };
    let mut plain = tempfile::tempfile_in(folder).map_err(|error| {
        io::Error::new(error.kind(), format!("no room to unpack in {}: {error}", folder.display()))
    })?;
    let mut packed = file;
    packed.seek(SeekFrom::Start(0))?;
    let damage = match packing {
        Packing::Gzip => {
            copy(&mut flate2::bufread::MultiGzDecoder::new(BufReader::new(packed)), &mut plain, pulse)?
        }
        Packing::Zstd => copy(&mut zstd::Decoder::new(packed)?, &mut plain, pulse)?,
    };
    Ok(Unpacked { file: plain, bytes, temporary: true, damage })
}

/// Copies to the end, or to what cannot be unpacked; only writing can fail.
fn copy(packed: &mut dyn Read, plain: &mut File, pulse: &Pulse) -> io::Result<Option<String>> {
    let mut chunk = vec![0; CHUNK];
    let mut written = 0;
    loop {
        match packed.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(bytes) => {
                written += bytes as u64;
                if written > LONGEST_UNPACKED {
                    return Ok(Some(format!("unpacks to more than {LONGEST_UNPACKED} bytes")));
                }
                plain.write_all(&chunk[..bytes])?;
                pulse.beat();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Some(format!("cannot be unpacked behind byte {written}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> (Vec<u8>, bool, Option<String>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let Unpacked { mut file, temporary, damage, .. } =
            unpack(file, &std::env::temp_dir(), &Pulse::default()).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut plain = Vec::new();
        file.read_to_end(&mut plain).unwrap();
        (plain, temporary, damage)
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
}
