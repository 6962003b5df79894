//! Hugging Face transformers' folders.

use std::path::Path;

use flip::data::text::TokenizerConfig;
use flip::exchange::{export, import, Format, ImportOptions};
use flip::model::{Activation, ModelConfig, PixelNorm};
use flip::parameter::NamedTensor;
use serde_json::{json, Value};
use tempfile::tempdir;

use crate::support::*;

fn config() -> ModelConfig {
    serde_json::from_value(json!({
        "image": {
            "size": 16, "patch": 4, "pixels": { "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6] }, "width": 24,
            "depth": 2, "heads": 3, "mlp_ratio": 2.0, "positions": "Learned", "pre_norm": true,
            "pool": "ClassToken", "patch_bias": false, "activation": "GeluExact", "norm_eps": 1e-5,
        },
        "text": {
            "tokenizer": { "ClipBpe": "bpe_simple_vocab_16e6.txt.gz" }, "vocab_size": 30, "context": 7, "width": 16,
            "depth": 1, "heads": 2, "causal": true, "pool": "EndOfText", "activation": "GeluTanh", "norm_eps": 2e-5,
        },
        "embed_dim": 12, "normalisation": "MaxEps", "logit_scale": { "init": 2.5, "clip": "AfterUpdate" },
    }))
    .unwrap()
}

/// [rows, columns] of a row-major matrix, columns `from..to` of it, transposed.
fn transposed(data: &[f32], columns: usize, from: usize, to: usize) -> Vec<f32> {
    (from..to).flat_map(|c| data.chunks(columns).map(move |row| row[c])).collect()
}

/// What transformers would have saved, written down by hand.
fn saved(config: &ModelConfig, tensors: &[NamedTensor]) -> File {
    let ours = |name: &str| &tensors.iter().find(|tensor| tensor.name == name).unwrap().data;
    let mut file = File::new();
    let mut put = |name: String, shape: &[usize], data: Vec<f32>| {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        file.insert(name, (shape.to_vec(), data));
    };
    let (p, w) = (config.image.patch, config.image.width);
    let mut kernel = Vec::new();
    for out in 0..w {
        for channel in 0..3 {
            for pixel in 0..p * p {
                kernel.push(ours("image.patch.weight")[(pixel * 3 + channel) * w + out]);
            }
        }
    }
    put("vision_model.embeddings.patch_embedding.weight".into(), &[w, 3, p, p], kernel);
    put("vision_model.embeddings.class_embedding".into(), &[w], ours("image.class_token").clone());
    put(
        "vision_model.embeddings.position_embedding.weight".into(),
        &[17, w],
        ours("image.positions").clone(),
    );
    put("vision_model.pre_layrnorm.weight".into(), &[w], ours("image.pre_norm.scale").clone());
    put("vision_model.pre_layrnorm.bias".into(), &[w], ours("image.pre_norm.shift").clone());
    put("vision_model.post_layernorm.weight".into(), &[w], ours("image.norm.scale").clone());
    put("vision_model.post_layernorm.bias".into(), &[w], ours("image.norm.shift").clone());
    put("visual_projection.weight".into(), &[12, w], transposed(ours("image.projection"), 12, 0, 12));
    let t = config.text.width;
    put("text_model.embeddings.token_embedding.weight".into(), &[30, t], ours("text.tokens").clone());
    put("text_model.embeddings.position_embedding.weight".into(), &[7, t], ours("text.positions").clone());
    put("text_model.final_layer_norm.weight".into(), &[t], ours("text.norm.scale").clone());
    put("text_model.final_layer_norm.bias".into(), &[t], ours("text.norm.shift").clone());
    put("text_projection.weight".into(), &[12, t], transposed(ours("text.projection"), 12, 0, 12));
    put("logit_scale".into(), &[], ours("logit_scale").clone());
    let towers = [("image", "vision_model", w, 2 * w, 2), ("text", "text_model", t, 4 * t, 1)];
    for (tower, theirs, w, hidden, depth) in towers {
        for i in 0..depth {
            let from = |part: &str| ours(&format!("{tower}.blocks.{i}.{part}"));
            let to = |part: &str| format!("{theirs}.encoder.layers.{i}.{part}");
            for n in [1, 2] {
                put(to(&format!("layer_norm{n}.weight")), &[w], from(&format!("norm{n}.scale")).clone());
                put(to(&format!("layer_norm{n}.bias")), &[w], from(&format!("norm{n}.shift")).clone());
            }
            for (third, name) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
                let columns = third * w..(third + 1) * w;
                let weight = transposed(from("attention.qkv.weight"), 3 * w, columns.start, columns.end);
                put(to(&format!("self_attn.{name}.weight")), &[w, w], weight);
                put(
                    to(&format!("self_attn.{name}.bias")),
                    &[w],
                    from("attention.qkv.bias")[columns].to_vec(),
                );
            }
            put(to("self_attn.out_proj.weight"), &[w, w], transposed(from("attention.out.weight"), w, 0, w));
            put(to("self_attn.out_proj.bias"), &[w], from("attention.out.bias").clone());
            put(to("mlp.fc1.weight"), &[hidden, w], transposed(from("mlp.up.weight"), hidden, 0, hidden));
            put(to("mlp.fc1.bias"), &[hidden], from("mlp.up.bias").clone());
            put(to("mlp.fc2.weight"), &[w, hidden], transposed(from("mlp.down.weight"), w, 0, w));
            put(to("mlp.fc2.bias"), &[w], from("mlp.down.bias").clone());
        }
    }
    file
}

fn saved_config() -> Value {
    json!({
        "model_type": "clip", "projection_dim": 12, "logit_scale_init_value": 2.5,
        "text_config": {
            "vocab_size": 30, "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 7, "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 2e-5, "eos_token_id": 29,
        },
        "vision_config": {
            "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3,
            "image_size": 16, "patch_size": 4, "hidden_act": "gelu", "attention_dropout": 0.0,
        },
    })
}

fn folder(config: Value, file: &File) -> tempfile::TempDir {
    let folder = tempdir().unwrap();
    write_json(&folder.path().join("config.json"), &config);
    let pixels = json!({ "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 16 });
    write_json(&folder.path().join("preprocessor_config.json"), &pixels);
    write(&folder.path().join("model.safetensors"), file);
    folder
}

fn imported(folder: &Path) -> (ModelConfig, Vec<NamedTensor>) {
    let imported = import(folder, &ImportOptions::default()).unwrap();
    (imported.config, imported.tensors)
}

#[test]
fn a_folder_comes_in_and_goes_out_bit_for_bit() {
    let config = config();
    let (_, tensors) = model(&config);
    let file = saved(&config, &tensors);
    let folder = folder(saved_config(), &file);
    assert_eq!(imported(folder.path()), (config.clone(), tensors.clone()));

    let out = folder.path().join("out");
    let outgoing = outgoing(&config, &tensors);
    export(&outgoing, Format::Transformers, &out).unwrap();
    assert_same(&read(&out.join("model.safetensors")), &file);
    assert_eq!(imported(&out), (config, tensors));
}

#[test]
fn shards_and_buffers_of_old_versions_are_read() {
    let config = config();
    let (_, tensors) = model(&config);
    let mut file = saved(&config, &tensors);
    for tower in ["text_model", "vision_model"] {
        file.insert(format!("{tower}.embeddings.position_ids"), (vec![1, 2], vec![0.0, 1.0]));
    }
    let folder = folder(saved_config(), &file);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut map = json!({});
    let mut shards = [File::new(), File::new(), File::new()];
    for (number, (name, values)) in file.into_iter().enumerate() {
        map[&name] = format!("model-{}.safetensors", number % 3).into();
        shards[number % 3].insert(name, values);
    }
    for (number, shard) in shards.iter().enumerate() {
        write(&folder.path().join(format!("model-{number}.safetensors")), shard);
    }
    let index = folder.path().join("model.safetensors.index.json");
    write_json(&index, &json!({ "metadata": {}, "weight_map": map }));
    assert_eq!(imported(folder.path()), (config, tensors));

    let elsewhere = (0..3).find(|n| !shards[*n].contains_key("logit_scale")).unwrap();
    map["logit_scale"] = format!("model-{elsewhere}.safetensors").into();
    write_json(&index, &json!({ "weight_map": map }));
    assert!(refusal(folder.path()).contains("logit_scale: is not in model-"));
    map["logit_scale"] = "../model-0.safetensors".into();
    write_json(&index, &json!({ "weight_map": map }));
    assert!(refusal(folder.path()).contains("the name of a file beside it"));
    std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    map["logit_scale"] = "model-0.safetensors".into();
    write_json(&index, &json!({ "weight_map": map }));
    assert!(refusal(folder.path()).contains("model-1.safetensors"));
}

#[test]
fn the_second_copy_of_a_configuration_wins_and_defaults_are_filled_in() {
    let config = config();
    let (_, tensors) = model(&config);
    let mut json = saved_config();
    json["text_config_dict"] = json["text_config"].take();
    json["text_config"] = json!({ "hidden_size": 999 });
    json["text_config_dict"]["eos_token_id"] = 2.into();
    json["vision_config_dict"] = Value::Null;
    let folder = folder(json, &saved(&config, &tensors));
    assert_eq!(imported(folder.path()), (config, tensors));

    std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    // Of a bare configuration everything is as large as in ViT-B/32, so nothing fits.
    write_json(&folder.path().join("config.json"), &json!({ "model_type": "clip" }));
    let message = refusal(folder.path());
    for line in [
        "vision_model.embeddings.patch_embedding.weight: expected shape [768, 3, 32, 32], got [24, 3, 4, 4]",
        "text_model.embeddings.token_embedding.weight: expected shape [49408, 512], got [30, 16]",
        "text_model.encoder.layers.11.mlp.fc2.bias: missing",
        "visual_projection.weight: expected shape [512, 768], got [12, 24]",
    ] {
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn what_the_model_lacks_is_named() {
    let cases: &[(&str, Value, &str)] = &[
        ("/model_type", "siglip".into(), "model_type"),
        ("/text_config/eos_token_id", 30.into(), "text.pool: expected Token of an id below"),
        ("/text_config/hidden_act", "relu".into(), "text_config.hidden_act"),
        ("/vision_config/image_size", json!([16, 32]), "vision_config.image_size"),
        ("/vision_config/patch_size", 5.into(), "image.size"),
        ("/vision_config/num_attention_heads", 5.into(), "image.heads"),
        ("/vision_config/num_hidden_layers", json!(1e9), "vision_config.num_hidden_layers"),
    ];
    let config = config();
    let (_, tensors) = model(&config);
    let file = saved(&config, &tensors);
    for (place, value, named) in cases {
        let mut json = saved_config();
        *json.pointer_mut(place).unwrap() = value.clone();
        let message = refusal(folder(json, &file).path());
        assert!(message.contains(named), "{place}: {message}");
    }
}

#[test]
fn a_folder_without_preprocessing_takes_openai_s_and_finds_its_tokenizer() {
    let config = config();
    let (_, tensors) = model(&config);
    let folder = folder(saved_config(), &saved(&config, &tensors));
    std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    std::fs::write(folder.path().join("vocab.json"), "{}").unwrap();
    std::fs::write(folder.path().join("merges.txt"), "").unwrap();
    let imported = import(folder.path(), &ImportOptions::default()).unwrap();
    assert_eq!(imported.config.image.pixels, PixelNorm::OPENAI);
    assert!(imported.notes[0].contains("OpenAI"), "{:?}", imported.notes);
    assert_eq!(imported.tokenizer, Some(TokenizerConfig::ClipBpe(folder.path().into())));
    assert_eq!(imported.config.text.activation, Activation::GeluTanh);
}
