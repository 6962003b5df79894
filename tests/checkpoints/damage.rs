//! Snapshots that were damaged, edited or forged: each is refused by name, and the one before is used.

use std::fs;
use std::path::{Path, PathBuf};

use flip::checkpoint::read;

use super::{listing, name, pick, save};

fn flip_bit(path: PathBuf, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(&path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}
fn edit(path: PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}
/// Replaces the model and corrects the manifest, so that only the format is wrong.
fn forge(folder: &Path, bytes: &[u8]) {
    use sha2::Digest;
    let path = folder.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    manifest["files"]["model.safetensors"] = serde_json::json!({"bytes": bytes.len(), "sha256": hex});
    fs::write(path, manifest.to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}
fn forge_header(folder: &Path, header: &str, values: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + values, 0);
    forge(folder, &bytes);
}

/// A damage: in words, done to a folder, the file that its message names, and the reason that it gives.
type Damage = (&'static str, fn(&Path), &'static str, &'static str);

/// Does each damage to the newer of two snapshots: it must be refused with a message that names the file and says why, and the
/// older one be used.
fn refused(damages: &[Damage]) {
    for (what, damage, file, why) in damages {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), name(0, 100));
        let newer = save(dir.path(), name(0, 200));
        damage(&newer);
        let (picked, refused) = pick(dir.path());
        assert_eq!(picked, Some(name(0, 100)), "{what}");
        assert_eq!(refused.len(), 1, "{what}");
        assert_eq!(refused[0].0, newer, "{what}");
        let message = refused[0].1.to_string();
        assert!(message.contains(newer.to_str().unwrap()), "{what}: {message}");
        assert!(message.contains(file) && message.contains(why), "{what}: {message}");
    }
}

#[test]
fn files_that_are_missing_or_of_another_length_are_refused() {
    refused(&[
        (
            "empty folder",
            |f| {
                fs::remove_dir_all(f).unwrap();
                fs::create_dir(f).unwrap();
            },
            "manifest.json",
            "missing",
        ),
        (
            "a file instead of a folder",
            |f| {
                fs::remove_dir_all(f).unwrap();
                fs::write(f, "x").unwrap();
            },
            "manifest.json",
            "cannot read",
        ),
        ("no manifest", |f| fs::remove_file(f.join("manifest.json")).unwrap(), "manifest.json", "missing"),
        ("no state", |f| fs::remove_file(f.join("state.json")).unwrap(), "state.json", "missing"),
        (
            "no model",
            |f| fs::remove_file(f.join("model.safetensors")).unwrap(),
            "model.safetensors",
            "missing",
        ),
        (
            "truncated model",
            |f| {
                let bytes = fs::read(f.join("model.safetensors")).unwrap();
                fs::write(f.join("model.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
            },
            "model.safetensors",
            "truncated",
        ),
        (
            "longer model",
            |f| {
                let mut bytes = fs::read(f.join("model.safetensors")).unwrap();
                bytes.push(0);
                fs::write(f.join("model.safetensors"), bytes).unwrap();
            },
            "model.safetensors",
            "replaced",
        ),
        (
            "empty model",
            |f| fs::write(f.join("model.safetensors"), "").unwrap(),
            "model.safetensors",
            "0 bytes",
        ),
    ]);
}

#[test]
fn files_that_changed_are_refused() {
    refused(&[
        (
            "last value flipped",
            |f| flip_bit(f.join("model.safetensors"), |n| n - 1),
            "model.safetensors",
            "hash",
        ),
        ("header flipped", |f| flip_bit(f.join("model.safetensors"), |_| 12), "model.safetensors", "hash"),
        (
            "header length flipped",
            |f| flip_bit(f.join("model.safetensors"), |_| 7),
            "model.safetensors",
            "hash",
        ),
        (
            "optimizer flipped",
            |f| flip_bit(f.join("optimizer.safetensors"), |n| n / 2),
            "optimizer.safetensors",
            "hash",
        ),
        ("state edited", |f| edit(f.join("state.json"), "200", "201"), "state.json", "hash"),
    ]);
}

#[test]
fn manifests_that_changed_are_refused() {
    refused(&[
        (
            "manifest is no JSON",
            |f| fs::write(f.join("manifest.json"), "{").unwrap(),
            "manifest.json",
            "line 1",
        ),
        (
            "manifest is other JSON",
            |f| fs::write(f.join("manifest.json"), "[1]").unwrap(),
            "manifest.json",
            "JSON",
        ),
        ("manifest is empty", |f| fs::write(f.join("manifest.json"), "").unwrap(), "manifest.json", "EOF"),
        (
            "newer format",
            |f| edit(f.join("manifest.json"), "\"version\": 1", "\"version\": 2, \"codec\": 7"),
            "manifest.json",
            "format 2, this program reads 1",
        ),
        (
            "hash edited",
            |f| edit(f.join("manifest.json"), "\"sha256\": \"", "\"sha256\": \"0"),
            "model.safetensors",
            "hash",
        ),
        (
            "state not listed",
            |f| edit(f.join("manifest.json"), "state.json", "extra.safetensors"),
            "extra.safetensors",
            "missing",
        ),
        (
            "unknown file listed",
            |f| edit(f.join("manifest.json"), "state.json", "state.bin"),
            "manifest.json",
            "state.bin",
        ),
        (
            "file outside",
            |f| edit(f.join("manifest.json"), "model.safetensors", "../model.safetensors"),
            "manifest.json",
            "only plain file names",
        ),
        (
            "renamed",
            |f| edit(f.join("manifest.json"), "stage0-step00000200", "stage0-step00000100"),
            "stage0-step00000200",
            "renamed",
        ),
        (
            "name of nothing",
            |f| edit(f.join("manifest.json"), "stage0-step00000200", "last"),
            "manifest.json",
            "last",
        ),
    ]);
}

#[test]
fn files_of_tensors_of_another_format_are_refused() {
    refused(&[
        ("shorter than a length", |f| forge(f, b"abc"), "model.safetensors", "shorter than 8"),
        ("huge header", |f| forge(f, &u64::MAX.to_le_bytes()), "model.safetensors", "does not fit"),
        (
            "header past the end",
            |f| forge(f, &[9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
            "model.safetensors",
            "does not fit",
        ),
        ("header is no JSON", |f| forge_header(f, "{\"a\":", 0), "model.safetensors", "EOF"),
        (
            "huge shape",
            |f| {
                forge_header(
                    f,
                    r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#,
                    16,
                )
            },
            "model.safetensors",
            "overflow",
        ),
        (
            "shape and size disagree",
            |f| forge_header(f, r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#, 16),
            "model.safetensors",
            "shape",
        ),
        (
            "offsets past the end",
            |f| {
                forge_header(
                    f,
                    r#"{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#,
                    16,
                )
            },
            "model.safetensors",
            "4000000000000 bytes",
        ),
        ("bytes left over", |f| forge_header(f, "{}", 4), "model.safetensors", "0 bytes of values"),
        (
            "hole between tensors",
            |f| {
                forge_header(
                    f,
                    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
                    12,
                )
            },
            "model.safetensors",
            "offset",
        ),
        (
            "half precision",
            |f| forge_header(f, r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 4),
            "model.safetensors",
            "a is F16, expected F32",
        ),
    ]);
}

/// No single flipped bit anywhere in a snapshot gives other tensors, another state or a panic.
#[test]
fn no_flipped_bit_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 1));
    let whole = read(&folder).unwrap();
    for file in listing(&folder) {
        let path = folder.join(&file);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            match read(&folder) {
                Err(_) => {}
                // Only the manifest has bytes without meaning, and its name, which `newest` compares.
                Ok(other) => {
                    assert_eq!(file, "manifest.json");
                    assert_eq!((&other.files, &other.state), (&whole.files, &whole.state), "{file} {at}");
                }
            }
        }
        fs::write(&path, bytes).unwrap();
    }
}
