//! Data, tokenizer and checkpoint that a run goes on with have to be its own.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::process::{done, flip};
use super::{There, SCENES};

/// A shard of images in one colour each.
fn write_shard(path: &Path, first: u8, samples: u8) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for sample in first..first + samples {
        let image =
            image::RgbImage::from_pixel(20, 20, image::Rgb([sample, 255 - sample, 7 * (sample % 30)]));
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let caption = format!("image number {sample} of many");
        for (name, bytes) in [("png", png.get_ref().as_slice()), ("txt", caption.as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{sample:03}.{name}"), bytes).unwrap();
        }
    }
    builder.into_inner().unwrap();
}

#[test]
fn a_run_does_not_go_on_with_other_shards() {
    let there = There::new(r#"WebDataset(shards: "data/*.tar")"#);
    let data = there.path().join("data");
    fs::create_dir(&data).unwrap();
    for shard in 0..3 {
        write_shard(&data.join(format!("{shard}.tar")), 20 * shard, 20);
    }
    there.done(&["recipe.ron", "--out", "run"]);
    let whole = (there.weights("run"), there.metrics("run"));
    there.back_to("run", "stage0-step00000004");

    write_shard(&data.join("3.tar"), 60, 20);
    let added = there.refused(&["recipe.ron", "--out", "run", "--resume"], 1);
    assert!(added.contains("data/3.tar") && added.contains("was added (4 files, before 3)"), "{added}");
    fs::remove_file(data.join("3.tar")).unwrap();

    let kept = fs::read(data.join("1.tar")).unwrap();
    write_shard(&data.join("1.tar"), 20, 5);
    let replaced = there.refused(&["run", "--resume"], 1);
    let expected = format!(
        "data/1.tar has {} bytes instead of {} bytes",
        data.join("1.tar").metadata().unwrap().len(),
        kept.len()
    );
    assert!(replaced.contains(&expected), "{replaced}");

    fs::remove_file(data.join("1.tar")).unwrap();
    let missing = there.refused(&["run", "--resume"], 1);
    assert!(
        missing.contains("data/1.tar") && missing.contains("is missing (2 files, before 3)"),
        "{missing}"
    );

    // The same files elsewhere are the same data.
    fs::write(data.join("1.tar"), kept).unwrap();
    fs::rename(&data, there.path().join("moved")).unwrap();
    let moved = ["run", "--resume", "--amend", "data.train.shards=moved/*.tar"];
    there.done(&moved);
    assert_eq!((there.weights("run"), there.metrics("run")), whole);
}

/// A checkpoint as it was before there were lanes.
fn without_lanes(checkpoint: &Path) {
    let read =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(checkpoint.join(name)).unwrap()).unwrap() };
    let mut state = read("state.json");
    assert!(state.as_object_mut().unwrap().remove("lanes").is_some(), "{state}");
    let text = state.to_string();
    let mut manifest = read("manifest.json");
    let sha256: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    manifest["files"]["state.json"] = serde_json::json!({"bytes": text.len(), "sha256": sha256});
    fs::write(checkpoint.join("state.json"), text).unwrap();
    fs::write(checkpoint.join("manifest.json"), manifest.to_string()).unwrap();
}

#[test]
fn a_run_that_began_before_there_were_lanes_goes_on_in_its_own_order() {
    let there = There::new(r#"WebDataset(shards: "data/*.tar")"#);
    let data = there.path().join("data");
    fs::create_dir(&data).unwrap();
    for shard in 0..3 {
        write_shard(&data.join(format!("{shard}.tar")), 20 * shard, 20);
    }
    there.done(&["recipe.ron", "--out", "run"]);
    let with_lanes = there.metrics("run");
    there.back_to("run", "stage0-step00000004");
    without_lanes(&there.path().join("run/checkpoints/stage0-step00000004"));
    there.done(&["run", "--resume"]);
    let whole = (there.weights("run"), there.metrics("run"));
    // Its crops are drawn from places in the order, not from samples.
    assert_ne!(whole.1, with_lanes);
    there.back_to("run", "stage0-step00000008");
    let state = there.path().join("run/checkpoints/stage0-step00000008/state.json");
    assert!(!fs::read_to_string(state).unwrap().contains("lanes"));
    // Other lanes are not taken up in the middle.
    there.done(&["run", "--resume", "--amend", "data.lanes=8"]);
    assert_eq!((there.weights("run"), there.metrics("run")), whole);
}

#[test]
fn shards_that_are_not_those_of_the_index_are_refused_before_the_first_step() {
    let there = There::new(r#"WebDataset(shards: "data/*.tar", index: "index.json")"#);
    let data = there.path().join("data");
    fs::create_dir(&data).unwrap();
    for shard in 0..3 {
        write_shard(&data.join(format!("{shard}.tar")), 20 * shard, 20);
    }
    done(flip(there.path(), &["data", "index", "data/*.tar", "--out", "index.json"]));
    there.done(&["recipe.ron", "--out", "run"]);
    let kept = fs::read(data.join("1.tar")).unwrap();
    fs::write(data.join("1.tar"), &kept[..kept.len() - 512]).unwrap();
    let cut = there.refused(&["recipe.ron", "--out", "other"], 2);
    let expected = format!("data/1.tar has {} bytes instead of {}", kept.len() - 512, kept.len());
    assert!(cut.contains("index.json: not the index of these shards") && cut.contains(&expected), "{cut}");
    assert!(!there.path().join("other/metrics.jsonl").exists());
    fs::remove_file(data.join("1.tar")).unwrap();
    let missing = there.refused(&["recipe.ron", "--out", "other", "--restart"], 2);
    assert!(missing.contains("data/1.tar is in it, and not among the shards"), "{missing}");
}

#[test]
fn a_run_does_not_go_on_with_another_tokenizer_or_from_another_runs_checkpoint() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "run"]);
    there.done(&["recipe.ron", "--out", "other"]);
    there.back_to("run", "stage0-step00000008");

    let tokenizer = there.path().join("run/tokenizer.json");
    let kept = fs::read_to_string(&tokenizer).unwrap();
    let mut swapped: Value = serde_json::from_str(&kept).unwrap();
    let vocabulary = swapped["model"]["vocab"].as_object_mut().unwrap();
    let names: Vec<String> = vocabulary.keys().filter(|name| name.len() == 1).take(2).cloned().collect();
    let ids = [vocabulary[&names[0]].clone(), vocabulary[&names[1]].clone()];
    vocabulary[&names[0]] = ids[1].clone();
    vocabulary[&names[1]] = ids[0].clone();
    fs::write(&tokenizer, serde_json::to_string_pretty(&swapped).unwrap()).unwrap();
    let refused = there.refused(&["run", "--resume"], 1);
    assert!(refused.contains("tokenizer.json is not the tokenizer that"), "{refused}");
    fs::write(&tokenizer, kept).unwrap();

    let [ours, theirs] = ["run", "other"].map(|run| there.path().join(run).join("checkpoints"));
    let name = "stage0-step00000012";
    fs::rename(theirs.join(name), ours.join(name)).unwrap();
    let refused = there.refused(&["run", "--resume"], 1);
    assert!(refused.contains(name) && refused.contains("is of another run"), "{refused}");
    fs::remove_dir_all(ours.join(name)).unwrap();
    there.done(&["run", "--resume"]);
    fs::remove_dir_all(there.path().join("other")).unwrap();
    there.done(&["recipe.ron", "--out", "other"]);
    assert_eq!(there.weights("run"), there.weights("other"));
}

/// A checkpoint of a version that did not say of which run it is.
#[test]
fn a_checkpoint_that_does_not_say_what_it_is_of_is_gone_on_from() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "run"]);
    let whole = (there.weights("run"), there.metrics("run"));
    there.back_to("run", "stage0-step00000004");
    fs::remove_file(there.path().join("run/identity.json")).unwrap();
    edit_state(&there.path().join("run/checkpoints/stage0-step00000004"), |state| {
        assert!(state.remove("identity").is_some());
    });
    there.done(&["recipe.ron", "--out", "run", "--resume"]);
    assert_eq!((there.weights("run"), there.metrics("run")), whole);
}

/// Changes the state of a checkpoint and what its manifest says of it.
fn edit_state(checkpoint: &Path, edit: impl Fn(&mut serde_json::Map<String, Value>)) {
    use sha2::Digest;
    let [state, manifest] = ["state.json", "manifest.json"].map(|name| checkpoint.join(name));
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut value = read(&state);
    edit(value.as_object_mut().unwrap());
    let text = serde_json::to_vec_pretty(&value).unwrap();
    let mut listed = read(&manifest);
    listed["files"]["state.json"]["bytes"] = text.len().into();
    let hash: String = sha2::Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    listed["files"]["state.json"]["sha256"] = hash.into();
    fs::write(state, text).unwrap();
    fs::write(manifest, serde_json::to_vec_pretty(&listed).unwrap()).unwrap();
}

#[test]
fn a_state_of_a_stage_that_the_recipe_does_not_have_is_refused() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "run"]);
    let checkpoints = there.path().join("run/checkpoints");
    let far = checkpoints.join("stage99-step00000006");
    fs::rename(checkpoints.join("stage1-step00000006"), &far).unwrap();
    edit_state(&far, |state| drop(state.insert("stage".into(), 99.into())));
    let manifest = fs::read_to_string(far.join("manifest.json")).unwrap();
    fs::write(far.join("manifest.json"), manifest.replace("stage1-", "stage99-")).unwrap();
    let refused = there.refused(&["run", "--resume"], 1);
    assert!(refused.contains("is of stage 99, step 6: the recipe has only 2 stages"), "{refused}");
}

#[test]
fn a_damaged_list_of_evaluations_is_named_as_what_it_is() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "run"]);
    let results = there.path().join("run/eval.json");
    fs::write(&results, "[\n  {").unwrap();
    let refused = there.refused(&["run", "--resume"], 1);
    assert!(refused.contains("eval.json is not the list of evaluations"), "{refused}");
    assert!(!refused.contains("checkpoint is not readable"), "{refused}");
}

#[test]
fn a_tokenizer_that_was_cut_short_is_made_anew_where_nothing_was_trained() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "whole"]);
    there.done(&["recipe.ron", "--out", "run"]);
    let run = there.path().join("run");
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let tokenizer = run.join("tokenizer.json");
    let kept = fs::read(&tokenizer).unwrap();
    fs::write(&tokenizer, &kept[..kept.len() / 2]).unwrap();
    let told = there.done(&["run", "--resume"]);
    assert!(told.contains("no checkpoint was written yet"), "{told}");
    assert_eq!(fs::read(&tokenizer).unwrap(), kept);
    assert_eq!(there.weights("run"), there.weights("whole"));
}
