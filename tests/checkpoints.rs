//! Snapshots survive what happens to files: kills, damage, copies, full and read-only disks.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use flip::checkpoint::{newest, prepare, read, retain, write, CheckpointError, Name, TensorView};
use flip::model::Flip;
use flip::optimizer::{AdamW, AdamWConfig};
use flip::parameter::NamedTensor;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    step: u64,
    cursor: (u64, u64, u64),
    loss: f32,
    recipe: String,
}

fn state(step: u64) -> State {
    State { step, cursor: (1, 2, u64::MAX), loss: 0.1 + step as f32 / 3.0, recipe: "(name: \"ü\")\n".into() }
}

fn name(stage: usize, step: u64) -> Name {
    Name { stage, step }
}

/// A model of two tensors and an optimizer of one.
fn save(dir: &Path, at: Name) -> PathBuf {
    let weight: Vec<f32> = (0..6).map(|i| i as f32 + at.step as f32).collect();
    let parts = [
        (
            "model",
            vec![
                TensorView { name: "image.weight", shape: &[2, 3], data: &weight },
                TensorView { name: "logit_scale", shape: &[], data: &[2.659] },
            ],
        ),
        ("optimizer", vec![TensorView { name: "image.weight.m", shape: &[2, 3], data: &weight }]),
    ];
    write(dir, at, &parts, &state(at.step)).unwrap()
}

/// Name of the snapshot that would be used, and what was refused on the way to it.
fn pick(dir: &Path) -> (Option<Name>, Vec<(PathBuf, CheckpointError)>) {
    let found = newest(dir).unwrap();
    (found.snapshot.map(|snapshot| snapshot.name), found.refused)
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 500));
    assert_eq!(folder, dir.path().join("stage0-step00000500"));
    assert_eq!(
        listing(&folder),
        ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    );

    let snapshot = newest(dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(snapshot.path, folder);
    assert_eq!(snapshot.name, name(0, 500));
    assert_eq!(snapshot.state::<State>().unwrap(), state(500));
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["model", "optimizer"]);
    let model = snapshot.tensors("model").unwrap();
    assert_eq!(model[0].name, "image.weight");
    assert_eq!(model[0].shape, [2, 3]);
    assert_eq!(model[0].data, [500.0, 501.0, 502.0, 503.0, 504.0, 505.0]);
    assert_eq!((&model[1].shape[..], &model[1].data[..]), (&[][..], &[2.659][..]));

    let error = snapshot.tensors("ema").unwrap_err().to_string();
    assert!(error.ends_with("has no part ema, only: model, optimizer"), "{error}");
    let error = snapshot.state::<Vec<u8>>().unwrap_err().to_string();
    assert!(error.contains("state.json"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// NaN payloads, negative zero, subnormals: the bits come back.
    #[test]
    fn every_bit_pattern_survives(bits in prop::collection::vec(any::<u32>(), 0..40_000)) {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let shape = [data.len()];
        let folder = write(
            dir.path(),
            name(0, 1),
            &[("model", vec![TensorView { name: "w", shape: &shape, data: &data }])],
            &(),
        ).unwrap();
        let snapshot = read(&folder).unwrap();
        let back: Vec<u32> = snapshot.tensors("model").unwrap()[0].data.iter().map(|x| x.to_bits()).collect();
        prop_assert_eq!(back, bits);
    }
}

#[test]
fn same_state_same_bytes_in_whatever_order_tensors_come() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    let a = TensorView { name: "a", shape: &[1], data: &[1.0] };
    let b = TensorView { name: "b", shape: &[2], data: &[2.0, 3.0] };
    let first = write(one.path(), name(1, 2), &[("model", vec![a, b]), ("z", vec![a])], &state(2)).unwrap();
    let second = write(two.path(), name(1, 2), &[("z", vec![a]), ("model", vec![b, a])], &state(2)).unwrap();
    assert_eq!(listing(&first), listing(&second));
    for file in listing(&first) {
        assert_eq!(fs::read(first.join(&file)).unwrap(), fs::read(second.join(&file)).unwrap(), "{file}");
    }
}

#[test]
fn order_is_by_stage_and_step_not_by_time_or_spelling() {
    let dir = tempfile::tempdir().unwrap();
    for at in [name(2, 5), name(10, 1), name(0, 99_999_999), name(0, 100_000_000)] {
        save(dir.path(), at);
    }
    let expected = [name(10, 1), name(2, 5), name(0, 100_000_000), name(0, 99_999_999)];
    for at in expected {
        assert_eq!(pick(dir.path()).0, Some(at));
        fs::remove_dir_all(dir.path().join(at.to_string())).unwrap();
    }
    assert!(matches!(pick(dir.path()), (None, refused) if refused.is_empty()));
}

#[test]
fn no_folder_and_foreign_files_are_no_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(pick(&dir.path().join("absent")).0, None);
    fs::write(dir.path().join(".DS_Store"), "x").unwrap();
    fs::create_dir(dir.path().join("best")).unwrap();
    fs::create_dir(dir.path().join("stage0-step7")).unwrap();
    let (picked, refused) = pick(dir.path());
    assert!(picked.is_none() && refused.is_empty());
}

/// Each damage is done to the newer of two snapshots: it must be refused with a message that names the file
/// and says why, and the older one be used.
#[test]
fn every_damage_is_refused_by_name_and_the_one_before_is_used() {
    type Damage = fn(&Path);
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

    let damages: &[(&str, Damage, &str, &str)] = &[
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
    ];
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

#[test]
fn a_killed_write_leaves_the_former_snapshots_and_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), name(0, 100));
    // As a kill after two of three files leaves it.
    let half = dir.path().join(".writing-stage0-step00000200");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("model.safetensors"), "half").unwrap();
    // As a kill in the middle of a removal leaves it.
    let removing = dir.path().join(".removing-stage0-step00000050");
    fs::create_dir(&removing).unwrap();
    // Not ours.
    fs::create_dir(dir.path().join(".writing-thesis")).unwrap();

    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
    assert_eq!(prepare(dir.path()).unwrap(), [removing, half.clone()]);
    assert_eq!(listing(dir.path()), [".writing-thesis", "stage0-step00000100"]);

    // A write of the same name does not stumble over the leftover of the one before.
    fs::create_dir(&half).unwrap();
    fs::write(half.join("junk"), "half").unwrap();
    let folder = save(dir.path(), name(0, 200));
    assert!(!half.exists() && !folder.join("junk").exists());
    assert_eq!(pick(dir.path()).0, Some(name(0, 200)));
}

#[test]
fn a_snapshot_of_the_same_name_is_replaced_even_if_broken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 100));
    fs::write(folder.join("model.safetensors"), "broken").unwrap();
    assert_eq!(pick(dir.path()).0, None);
    save(dir.path(), name(0, 100));
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
    assert_eq!(listing(dir.path()), ["stage0-step00000100"]);
}

#[test]
fn killed_in_the_middle_of_a_replacement_the_former_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 100));
    let aside = dir.path().join(".replaced-stage0-step00000100");
    fs::rename(&folder, &aside).unwrap();
    assert_eq!(prepare(dir.path()).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));

    // Killed after the replacement: the new one stays, the former goes.
    fs::create_dir(&aside).unwrap();
    assert_eq!(prepare(dir.path()).unwrap(), [aside]);
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
}

#[test]
fn what_cannot_be_saved_is_named_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let good = TensorView { name: "a", shape: &[1], data: &[1.0] };
    let bad_shape = TensorView { name: "text.bias", shape: &[2, 2], data: &[1.0; 3] };
    let huge = TensorView { name: "huge", shape: &[usize::MAX, 2], data: &[1.0] };
    let reserved = TensorView { name: "__metadata__", shape: &[1], data: &[1.0] };
    for (part, tensors, expected) in [
        ("model", vec![good, bad_shape], "tensor text.bias of model cannot be saved: shape [2, 2]"),
        ("model", vec![huge], "huge"),
        ("model", vec![good, good], "twice"),
        ("model", vec![reserved], "reserves"),
        ("../model", vec![good], "file stem"),
        ("", vec![good], "file stem"),
    ] {
        let error = write(dir.path(), name(0, 1), &[(part, tensors)], &()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A state that JSON cannot hold fails after the tensors are written.
    let not_json = std::collections::HashMap::from([(vec![1], 1)]);
    let error = write(dir.path(), name(0, 1), &[("model", vec![good])], &not_json).unwrap_err();
    assert!(error.to_string().contains("state.json"), "{error}");
    assert_eq!(listing(dir.path()), Vec::<String>::new());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoints");
    fs::write(&file, "a file where the folder should be").unwrap();
    let error = write(&file, name(0, 1), &[], &()).unwrap_err().to_string();
    assert!(error.starts_with("cannot create") && error.contains(file.to_str().unwrap()), "{error}");
    let error = prepare(&file).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    let error = newest(&file).unwrap_err().to_string();
    assert!(error.starts_with("cannot list") && error.contains(file.to_str().unwrap()), "{error}");
}

/// Where even the superuser cannot create a folder.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_file_system_is_an_error_that_names_the_path() {
    let error = write(Path::new("/proc/flip"), name(0, 1), &[], &()).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/proc/flip"), "{error}");
}

#[test]
fn the_newest_the_last_of_each_stage_and_the_protected_stay() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        save(dir.path(), name(0, step));
    }
    for step in [100, 200, 300, 400] {
        save(dir.path(), name(2, step));
    }
    let two = NonZeroUsize::new(2).unwrap();
    let removed = retain(dir.path(), name(2, 400), two, &[name(0, 100)]).unwrap();
    assert_eq!(
        listing(dir.path()),
        ["stage0-step00000100", "stage0-step00000300", "stage2-step00000300", "stage2-step00000400"]
    );
    assert_eq!(removed.len(), 3);
    assert_eq!(removed[0], dir.path().join("stage0-step00000200"));
}

/// A broken snapshot of a later step must not push out the good ones that the run continues from.
#[test]
fn later_snapshots_do_not_count_against_the_current_one() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        save(dir.path(), name(0, step));
    }
    fs::write(dir.path().join("stage0-step00000300/model.safetensors"), "broken").unwrap();
    let one = NonZeroUsize::MIN;
    retain(dir.path(), name(0, 200), one, &[]).unwrap();
    assert_eq!(listing(dir.path()), ["stage0-step00000200", "stage0-step00000300"]);
    assert_eq!(pick(dir.path()).0, Some(name(0, 200)));
}

/// The model that tests/data/checkpoints/earlier is of.
const EARLIER: &str = r#"(
    image: (size: 16, patch: 8, width: 8, depth: 1, heads: 2, positions: Learned, pre_norm: true),
    text: (tokenizer: Train((captions: 50)), vocab_size: 60, context: 8, width: 8, depth: 1, heads: 2),
    embed_dim: 8,
)"#;

#[test]
fn a_checkpoint_of_an_earlier_commit_loads_as_it_was_written() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints/earlier/stage0-step00000003");
    let snapshot = read(&folder).unwrap();
    let by_name = |mut tensors: Vec<NamedTensor>| {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    };
    let (weights, state) = (snapshot.tensors("model").unwrap(), snapshot.tensors("optimizer").unwrap());
    let device = dfdx::prelude::Cpu::default();
    let mut model = Flip::<f32, _>::new(&device, &ron::from_str(EARLIER).unwrap(), 1).unwrap();
    model.import(&weights).unwrap();
    let optimizer =
        AdamW::<f32, _>::import(&AdamWConfig::default(), &device, model.parameters(), &state).unwrap();
    assert_eq!(optimizer.updates(), 3);
    assert_eq!(by_name(model.export().unwrap()), weights);
    assert_eq!(by_name(optimizer.export(model.parameters()).unwrap()), state);
    assert!(weights.iter().chain(&state).all(|tensor| tensor.data.iter().any(|&x| x != 0.0)));
}
