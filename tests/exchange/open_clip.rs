//! open_clip's folders.

use flip::data::text::TokenizerConfig;
use flip::exchange::{export, import, ExchangeError, Format, ImportOptions, Outgoing};
use flip::model::{
    Activation, ImagePool, ImagePositions, LogitScaleClip, ModelConfig, Normalisation, PixelNorm, TextPool,
};
use half::{bf16, f16};
use safetensors::tensor::{serialize_to_file, Dtype, TensorView};
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::support::*;

/// FLIP's model in small.
fn flip_config() -> ModelConfig {
    serde_json::from_value(json!({
        "image": { "size": 16, "patch": 4, "width": 24, "depth": 2, "heads": 3 },
        "text": {
            "tokenizer": { "WordPiece": "vocab.txt" }, "vocab_size": 30, "context": 7, "width": 16, "depth": 1,
            "heads": 2,
        },
        "embed_dim": 12,
    }))
    .unwrap()
}

/// The nearest to it that open_clip can hold.
fn expressible() -> ModelConfig {
    let mut config = flip_config();
    config.image.pool = ImagePool::ClassToken;
    config.normalisation = Normalisation::MaxEps;
    config
}

#[test]
fn the_fixture_comes_in_and_embeds_as_open_clip_does() {
    for (quick, expected_file, prefix) in
        [(false, "expected.safetensors", ""), (true, "expected_quickgelu.safetensors", "quickgelu/")]
    {
        let folder = tempdir().unwrap();
        open_clip_folder(folder.path(), |config| config["model_cfg"]["quick_gelu"] = quick.into());
        let imported = import(folder.path(), &ImportOptions::default()).unwrap();
        assert_eq!(imported.format, Format::OpenClip);
        assert_eq!(imported.config.image.pixels, PixelNorm { mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4] });
        assert!(
            imported.tokenizer.is_none() && imported.notes[0].contains("no tokenizer"),
            "{:?}",
            imported.notes
        );

        let model = fused(&imported);
        let batch = read(&fixture("fixtures/open_clip_tiny/batch.safetensors"));
        let expected = read(&fixture("fixtures/open_clip_tiny").join(expected_file));
        let of = |name: &str| {
            let named = expected.get(name).or_else(|| expected.get(&format!("{prefix}{name}")));
            &named.unwrap_or_else(|| panic!("{name} of {:?}", expected.keys())).1
        };
        assert_close("images", &embed_planes(&model, &batch["image"].1), of("image_features"), 1e-5);
        assert_close("texts", &embed_ids(&model, &batch["text"].1), of("text_features"), 1e-5);
    }
}

#[test]
fn there_and_back_is_the_same_bit_for_bit() {
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |_| {});
    let imported = import(folder.path(), &ImportOptions::default()).unwrap();
    let out = folder.path().join("out");
    let model = Outgoing {
        config: &imported.config,
        tensors: &imported.tensors,
        tokenizer: None,
        card: Some("# Card\n"),
        stored: None,
        inline: None,
    };
    export(&model, Format::OpenClip, &out).unwrap();
    let weights = "open_clip_model.safetensors";
    assert_same(&read(&out.join(weights)), &read(&folder.path().join(weights)));
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("open_clip_config.json")).unwrap()).unwrap();
    assert_eq!(config["model_cfg"]["vision_cfg"]["head_width"], 16);
    assert_eq!(config["preprocess_cfg"]["mean"], json!([0.5, 0.4, 0.3]));
    assert_eq!(std::fs::read_to_string(out.join("README.md")).unwrap(), "# Card\n");

    let again = import(&out, &ImportOptions::default()).unwrap();
    assert_eq!((again.config, again.tensors), (imported.config.clone(), imported.tensors.clone()));
    // A folder that is there is not written over.
    assert!(matches!(export(&model, Format::OpenClip, &out), Err(ExchangeError::Occupied { .. })));
}

#[test]
fn every_option_that_open_clip_has_survives() {
    let changes: [fn(&mut ModelConfig); 9] = [
        |config| config.image.pre_norm = true,
        |config| config.text.causal = true,
        |config| config.text.pool = TextPool::EndOfText,
        |config| {
            (config.image.activation, config.text.activation) = (Activation::QuickGelu, Activation::QuickGelu)
        },
        |config| config.text.activation = Activation::GeluExact,
        |config| (config.image.norm_eps, config.text.norm_eps) = (1e-5, 3e-6),
        |config| (config.image.mlp_ratio, config.text.mlp_ratio) = (2.5, 3.0),
        |config| config.image.pixels = PixelNorm::OPENAI,
        |config| config.logit_bias = Some(-10.0),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut config = expressible();
        config.image.positions = ImagePositions::Learned;
        config.image.patch_bias = false;
        config.logit_scale.clip = LogitScaleClip::AfterUpdate;
        config.text.tokenizer = TokenizerConfig::ClipBpe("bpe_simple_vocab_16e6.txt.gz".into());
        change(&mut config);
        let (_, tensors) = model(&config);
        let folder = tempdir().unwrap();
        let out = folder.path().join("out");
        let outgoing = outgoing(&config, &tensors);
        export(&outgoing, Format::OpenClip, &out).unwrap();
        let back = import(&out, &ImportOptions::default()).unwrap();
        assert_eq!((back.config, back.tensors), (config, tensors), "change {number}");
    }
}

#[test]
fn what_open_clip_lacks_is_rewritten_to_the_same_function() {
    let mut config = expressible();
    config.normalisation = Normalisation::AddEps;
    let (model, mut tensors) = model(&config);
    tensors.iter_mut().filter(|tensor| tensor.name == "logit_scale").for_each(|tensor| tensor.data[0] = 5.5);
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let outgoing = outgoing(&config, &tensors);
    let exported = export(&outgoing, Format::OpenClip, &out).unwrap();
    for word in ["sin-cos", "bias of the patch", "clipped", "1e-8"] {
        assert!(exported.notes.iter().any(|note| note.contains(word)), "{word}: {:?}", exported.notes);
    }
    let back = filled(&import(&out, &ImportOptions::default()).unwrap());
    let (pixels, ids) = inputs(&config, 3);
    assert_close("images", &embed_pixels(&back, &pixels), &embed_pixels(&model, &pixels), 2e-6);
    assert_close("texts", &embed_ids(&back, &ids), &embed_ids(&model, &ids), 2e-6);
    assert!((back.logit_scale() - 100f64.ln()).abs() < 1e-6);
}

#[test]
fn options_in_the_way_are_all_named() {
    let mut config = flip_config();
    config.text.pool = TextPool::Mean;
    config.image.norm_eps = 2e-5;
    config.text.activation = Activation::QuickGelu;
    let (_, tensors) = model(&config);
    let outgoing = outgoing(&config, &tensors);
    let folder = tempdir().unwrap();
    let refusal = |format| export(&outgoing, format, &folder.path().join("out")).unwrap_err().to_string();
    let open_clip = refusal(Format::OpenClip);
    for field in ["model.image.norm_eps: 0.00002", "model.text.pool: Mean"] {
        assert!(open_clip.contains(field), "{open_clip}");
    }
    let transformers = refusal(Format::Transformers);
    for field in ["model.image.pool", "model.image.pre_norm", "model.text.causal", "model.text.pool"] {
        assert!(transformers.contains(field), "{transformers}");
    }
    assert!(refusal(Format::FlipT5x).contains("read, not written"));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn options_that_the_model_lacks_are_named() {
    let cases: &[(&str, &str, Value)] = &[
        ("/model_cfg", "multimodal_cfg", json!({ "width": 64 })),
        ("/model_cfg", "surprise", 1.into()),
        ("/model_cfg/vision_cfg", "layers", json!([3, 4, 6, 3])),
        ("/model_cfg/vision_cfg", "timm_model_name", "vit_base".into()),
        ("/model_cfg/vision_cfg", "pool_type", "avg".into()),
        ("/model_cfg/vision_cfg", "attentional_pool", true.into()),
        ("/model_cfg/vision_cfg", "qk_norm", true.into()),
        ("/model_cfg/vision_cfg", "image_size", json!([32, 64])),
        ("/model_cfg/vision_cfg", "width", (-4).into()),
        ("/model_cfg/vision_cfg", "patch_size", "eight".into()),
        ("/model_cfg/vision_cfg", "head_width", 7.into()),
        ("/model_cfg/text_cfg", "hf_model_name", "bert".into()),
        ("/model_cfg/text_cfg", "embed_cls", true.into()),
        ("/model_cfg/text_cfg", "proj_type", "none".into()),
        ("/model_cfg/text_cfg", "proj_type", "mlp".into()),
        ("/model_cfg/text_cfg", "pool_type", "none".into()),
        ("/model_cfg/text_cfg", "tokenizer_kwargs", json!({ "clean": "none" })),
        ("/model_cfg/text_cfg", "tokenizer_kwargs", json!({ "language": "en" })),
        ("/preprocess_cfg", "mean", json!([1, 2])),
    ];
    for (place, key, value) in cases {
        let folder = tempdir().unwrap();
        open_clip_folder(folder.path(), |config| config.pointer_mut(place).unwrap()[key] = value.clone());
        let message = refusal(folder.path());
        let named = format!(
            "{}.{key}",
            place.trim_start_matches('/').trim_start_matches("model_cfg").trim_start_matches('/')
        );
        assert!(message.contains(named.trim_start_matches('.')), "{key} {value}: {message}");
        assert!(message.contains("open_clip_config.json"), "{message}");
    }
    // All at once.
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |config| {
        config["model_cfg"]["surprise"] = true.into();
        config["model_cfg"]["text_cfg"]["embed_cls"] = true.into();
    });
    let message = refusal(folder.path());
    assert!(message.contains("surprise") && message.contains("embed_cls"), "{message}");
}

#[test]
fn the_end_token_may_be_named_where_it_is_the_largest_id() {
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |config| {
        config["model_cfg"]["text_cfg"]["pool_type"] = "eos".into();
        config["model_cfg"]["text_cfg"]["eos_id"] = 119.into();
    });
    assert_eq!(
        import(folder.path(), &ImportOptions::default()).unwrap().config.text.pool,
        TextPool::EndOfText
    );
}

#[test]
fn tensors_that_do_not_fit_are_all_named() {
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |_| {});
    let weights = folder.path().join("open_clip_model.safetensors");
    let mut file = read(&weights);
    file.remove("visual.proj");
    file.insert("logit_bias".into(), (vec![1], vec![0.0]));
    file.insert("ln_final.weight".into(), (vec![2, 24], vec![1.0; 48]));
    write(&weights, &file);
    let message = refusal(folder.path());
    for line in [
        "visual.proj: missing",
        "logit_bias: expected no such",
        "ln_final.weight: expected shape [48], got [2, 24]",
    ] {
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn positions_follow_the_image_size() {
    let folder = tempdir().unwrap();
    open_clip_folder(folder.path(), |_| {});
    let options = ImportOptions { image_size: Some(48), ..Default::default() };
    let imported = import(folder.path(), &options).unwrap();
    assert_eq!(imported.config.image.size, 48);
    let positions = imported.tensors.iter().find(|tensor| tensor.name == "image.positions").unwrap();
    assert_eq!(positions.shape, [37, 64]);
    assert!(imported.notes.iter().any(|note| note.contains("bicubic")), "{:?}", imported.notes);
    let (pixels, _) = inputs(&imported.config, 1);
    assert_eq!(embed_pixels(&filled(&imported), &pixels).len(), 40);

    let options = ImportOptions { image_size: Some(45), ..Default::default() };
    let message = import(folder.path(), &options).unwrap_err().to_string();
    assert!(message.contains("image.size") && message.contains("40 would do"), "{message}");
}

#[test]
fn half_precision_is_widened_and_other_numbers_are_named() {
    type Narrow = fn(f32) -> Vec<u8>;
    type Rounded = fn(f32) -> f32;
    let cases: [(Dtype, Narrow, Rounded); 2] = [
        (Dtype::F16, |x| f16::from_f32(x).to_le_bytes().to_vec(), |x| f16::from_f32(x).to_f32()),
        (Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes().to_vec(), |x| bf16::from_f32(x).to_f32()),
    ];
    for (dtype, narrow, widened) in cases {
        let folder = tempdir().unwrap();
        open_clip_folder(folder.path(), |_| {});
        let full = import(folder.path(), &ImportOptions::default()).unwrap();
        let weights = folder.path().join("open_clip_model.safetensors");
        rewrite(&weights, dtype, narrow);
        let half = import(folder.path(), &ImportOptions::default()).unwrap();
        for (half, full) in half.tensors.iter().zip(&full.tensors) {
            assert!(half.data.iter().zip(&full.data).all(|(h, f)| *h == widened(*f)), "{}", full.name);
        }
        rewrite(&weights, Dtype::I32, |x| (x as i32).to_le_bytes().to_vec());
        assert!(refusal(folder.path()).contains("holds I32"));
    }
}

fn rewrite(path: &std::path::Path, dtype: Dtype, narrow: impl Fn(f32) -> Vec<u8>) {
    let source = read(&fixture("fixtures/open_clip_tiny/params.safetensors"));
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = source
        .into_iter()
        .map(|(name, (shape, data))| (name, shape, data.into_iter().flat_map(&narrow).collect()))
        .collect();
    let views =
        bytes.iter().map(|(name, shape, data)| (name, TensorView::new(dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}
