//! PyTorch's pickles: the same weights in every layout, and what is damaged, hostile, or no checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use flip::exchange::{import, ImportOptions, Imported};
use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::json;
use tempfile::{tempdir, TempDir};

use crate::support::*;

fn pickle(name: &str) -> PathBuf {
    fixture("pickles").join(name)
}

/// A folder with the configuration of the small model, and these weights.
fn folder(weights: &[u8], name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    let config = json!({
        "embed_dim": 8,
        "vision_cfg": { "image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8 },
        "text_cfg": { "context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1 },
    });
    write_json(&folder.path().join("open_clip_config.json"), &config);
    fs::write(folder.path().join(name), weights).unwrap();
    folder
}

fn imported(weights: &[u8], name: &str) -> Imported {
    let folder = folder(weights, name);
    let by_folder =
        import(folder.path(), &ImportOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let by_file = import(&folder.path().join(name), &ImportOptions::default()).unwrap();
    assert_eq!(by_folder.tensors, by_file.tensors);
    by_folder
}

fn expected() -> Imported {
    imported(&fs::read(pickle("params.safetensors")).unwrap(), "open_clip_model.safetensors")
}

fn refused(weights: &[u8]) -> String {
    let folder = folder(weights, "model.pt");
    let error =
        import(folder.path(), &ImportOptions::default()).expect_err("a pickle that is refused").to_string();
    assert!(error.contains("model.pt"), "{error}");
    error
}

#[test]
fn every_layout_holds_the_same_weights() {
    let expected = expected();
    for name in ["state_dict.pt", "epoch_1.pt", "sequence.pt", "strided.pt", "parameters.pt"] {
        let got = imported(&fs::read(pickle(name)).unwrap(), name);
        assert_eq!(got.config, expected.config, "{name}");
        assert_eq!(got.tensors, expected.tensors, "{name}");
    }
}

#[test]
fn half_precision_is_widened_and_double_is_named() {
    let expected = expected();
    type Rounded = fn(f32) -> f32;
    let rounded: [(&str, Rounded); 2] =
        [("half.pt", |x| f16::from_f32(x).to_f32()), ("bfloat16.pt", |x| bf16::from_f32(x).to_f32())];
    for (name, rounded) in rounded {
        let got = imported(&fs::read(pickle(name)).unwrap(), "open_clip_pytorch_model.bin");
        for (got, expected) in got.tensors.iter().zip(&expected.tensors) {
            let expected: Vec<f32> = expected.data.iter().map(|&x| rounded(x)).collect();
            assert_eq!(got.data, expected, "{name}: {}", got.name);
        }
    }
    let message = refused(&fs::read(pickle("double.pt")).unwrap());
    assert!(message.contains("holds float64; float32, float16 and bfloat16 are read"), "{message}");
}

#[test]
fn an_archive_of_openai_tells_its_architecture() {
    let archive = import(&pickle("openai.pt"), &ImportOptions::default()).unwrap();
    let folder = tempdir().unwrap();
    let config = json!({
        "embed_dim": 8, "quick_gelu": true,
        "vision_cfg": { "image_size": 16, "layers": 1, "width": 64, "patch_size": 8 },
        "text_cfg": { "context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1 },
    });
    write_json(&folder.path().join("open_clip_config.json"), &config);
    fs::copy(pickle("openai.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let expected = import(folder.path(), &ImportOptions::default()).unwrap();
    assert_eq!(archive.config, expected.config);
    assert_eq!(archive.tensors, expected.tensors);
}

#[test]
fn an_architecture_can_be_named() {
    let alone = tempdir().unwrap();
    let weights = alone.path().join("epoch_1.pt");
    fs::copy(pickle("epoch_1.pt"), &weights).unwrap();
    let unnamed = import(&weights, &ImportOptions::default()).unwrap_err().to_string();
    assert!(unnamed.contains("--model: ViT-S-32-alt"), "{unnamed}");
    let named = |name: &str| {
        let options = ImportOptions { model: Some(name.into()), ..ImportOptions::default() };
        import(&weights, &options).unwrap_err().to_string()
    };
    let message = named("ViT-B-32-quickgelu");
    assert!(
        message.contains("do not fit its configuration") && message.contains("visual.conv1.weight"),
        "{message}"
    );
    assert!(named("RN50").contains("--model RN50: expected a plain vision transformer"));
}

#[test]
fn every_truncation_is_refused() {
    for name in ["state_dict.pt", "sequence.pt"] {
        let whole = fs::read(pickle(name)).unwrap();
        for length in (4..64).chain((64..whole.len()).step_by(1499)) {
            refused(&whole[..length]);
        }
    }
}

/// A sequence of pickles whose third, that of the tensors, is this one.
fn sequence(tensors: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    [magic, &b"\x80\x02}."[..], tensors, b"\x80\x02]."].concat()
}

#[test]
fn hostile_pickles_are_refused_by_name_and_nothing_is_run() {
    let there = tempdir().unwrap();
    let witness = there.path().join("witness");
    let command = format!("touch {}", witness.display());
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let call = |module: &str, name: &str| {
        [&b"\x80\x02c"[..], module.as_bytes(), b"\n", name.as_bytes(), b"\n", &text(&command), b"\x85R."]
            .concat()
    };
    let globals = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "run"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("__builtin__", "eval"),
        ("builtins", "compile"),
        ("builtins", "open"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("runpy", "run_path"),
        ("shutil", "rmtree"),
        ("pty", "spawn"),
        ("socket", "create_connection"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("_pickle", "loads"),
        ("marshal", "loads"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch.jit", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "load"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("types", "CodeType"),
        ("types", "FunctionType"),
        ("ctypes", "CDLL"),
        ("webbrowser", "open"),
        ("code", "interact"),
        ("timeit", "timeit"),
        ("cProfile", "run"),
        ("multiprocessing", "Process"),
        ("asyncio", "run"),
        ("collections", "namedtuple"),
        ("collections", "defaultdict"),
        ("copyreg", "_reconstructor"),
        ("argparse", "Namespace"),
        ("open_clip.model", "CLIP"),
        ("torch.nn.modules.linear", "Linear"),
        ("", ""),
        ("torch", ""),
        ("__torch", "x"),
        ("torch.FloatStorage", "x"),
    ];
    for (module, name) in globals {
        let message = refused(&sequence(&call(module, name)));
        assert!(message.contains(&format!("`{module}.{name}`")), "{module}.{name}: {message}");
        // By the instruction of protocol 4, behind harmless values, and inside of a state_dict.
        let stacked =
            [&b"\x80\x04"[..], &text(module), &text(name), b"\x93", &text(&command), b"\x85R."].concat();
        assert!(refused(&sequence(&stacked)).contains(&format!("`{module}.{name}`")));
    }
    let others: [&[u8]; 12] = [
        b"(ios\nsystem\n.",
        b"(cos\nsystem\no.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02P0\n.",
        b"\x80\x02(lp0\n.",
        b"\x82\x01.",
        b"\x97.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02}K\x01b.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.",
    ];
    for pickle in others {
        refused(&sequence(pickle));
    }
    assert!(!witness.exists(), "a pickle was run");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_damage_panics_or_runs_away(at in 0usize..1 << 20, bytes in prop::collection::vec(any::<u8>(), 1..6), zip: bool) {
        let name = if zip { "state_dict.pt" } else { "sequence.pt" };
        let mut weights = fs::read(pickle(name)).unwrap();
        let at = at % weights.len();
        for (byte, new) in weights[at..].iter_mut().zip(bytes) {
            *byte = new;
        }
        let folder = folder(&weights, "model.pt");
        let _ = import(folder.path(), &ImportOptions::default());
    }

    #[test]
    fn any_instructions_are_read_or_refused(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = folder(&sequence(&pickle), "model.pt");
        prop_assert!(import(folder.path(), &ImportOptions::default()).is_err());
    }
}

#[test]
fn a_zip_that_is_no_checkpoint_and_a_packed_one_are_named() {
    let written = |members: &[(&str, &[u8])]| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut zip = zip::ZipWriter::new(&mut bytes);
        for (name, body) in members {
            let stored =
                zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            zip.start_file(*name, stored).unwrap();
            std::io::Write::write_all(&mut zip, body).unwrap();
        }
        zip.finish().unwrap();
        bytes.into_inner()
    };
    assert!(refused(&written(&[("readme.txt", b"hello")])).contains("without data.pkl"));
    let empty = written(&[("a/data.pkl", b"\x80\x02}.")]);
    assert!(refused(&empty).contains("no tensors by name"));
    let nested = written(&[("a/data.pkl", &nested_without_tensors())]);
    assert!(refused(&nested).contains("model.pt"));
    let big = written(&[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"big")]);
    assert!(refused(&big).contains("big-endian"));
    let mut packed = written(&[("a/data.pkl", b"\x80\x02}.")]);
    // The method of compression, in the local header and in the central directory.
    let central = packed.windows(4).position(|word| word == b"PK\x01\x02").unwrap();
    packed[8] = 8;
    packed[central + 10] = 8;
    assert!(refused(&packed).contains("packed"));
}

/// A state_dict that is nested ten thousand times and ends in nothing.
fn nested_without_tensors() -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    for _ in 0..10_000 {
        pickle.extend(b"}X\x0a\x00\x00\x00state_dict");
    }
    pickle.extend(b"}");
    pickle.extend(vec![b's'; 10_000]);
    pickle.push(b'.');
    pickle
}

#[test]
fn a_tiny_file_is_no_checkpoint() {
    for bytes in [&b""[..], b"P", b"PK", b"\x80\x02", b"hello world"] {
        let folder = folder(bytes, "model.pt");
        import(Path::new(folder.path()), &ImportOptions::default()).unwrap_err();
    }
}
