//! Snapshots survive what happens to files: kills, damage, copies, full and read-only disks.

mod damage;
mod lifetime;

use std::fs;
use std::path::{Path, PathBuf};

use flip::checkpoint::{newest, prepare, read, write, CheckpointError, Name, TensorView};
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
