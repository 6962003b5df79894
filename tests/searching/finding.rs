//! What is found, held against the embeddings that `flip embed` writes.

use std::fs;
use std::path::Path;

use crate::process::{done, ends_with, flip};
use crate::{names, There};

/// Rows of a NumPy file.
fn npy(path: &Path, width: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let values: Vec<f32> =
        bytes[128..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn texts_and_images_find_what_their_embeddings_are_nearest_to() {
    let there = There::new(&["run"]);
    for number in 0..40 {
        there.draw(&format!("{}/{number:02}.png", number % 3), number, "");
    }
    fs::write(there.path().join("texts.txt"), "two dogs on a beach\n").unwrap();
    done(flip(there.path(), &["embed", "run", "--images", "images", "--out", "images.npy"]));
    done(flip(there.path(), &["embed", "run", "--texts", "texts.txt", "--out", "texts.npy"]));
    let keys = fs::read_to_string(there.path().join("images.keys.jsonl")).unwrap();
    let keys: Vec<String> = keys.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let images = npy(&there.path().join("images.npy"), 16);
    let text = npy(&there.path().join("texts.npy"), 16).remove(0);

    let check = |found: &serde_json::Value, query: &[f32]| {
        let mut expected: Vec<(f64, &String)> =
            images.iter().map(|image| cosine(image, query)).zip(&keys).collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = found["found"].as_array().unwrap();
        assert_eq!(found.len(), 7);
        for (hit, (score, key)) in found.iter().zip(expected) {
            assert!((hit["score"].as_f64().unwrap() - score).abs() < 1e-6, "{hit} {key} {score}");
            assert_eq!(hit["file"].as_str().unwrap(), key);
        }
    };
    let (found, said) = there.found(&["two dogs on a beach", "-k", "7"]);
    assert_eq!((&found["images"], &found["query"]["text"]), (&40.into(), &"two dogs on a beach".into()));
    assert!(said.contains("embedded 40 images for images/flip.index"), "{said}");
    check(&found, &text);
    let asked = there.image("1/13.png");
    let (found, said) = there.found(&["--image", asked.to_str().unwrap(), "-k", "7"]);
    assert!(!said.contains("embedded"), "{said}");
    let row = keys.iter().position(|key| key.ends_with("1/13.png")).unwrap();
    check(&found, &images[row]);
    assert_eq!(names(&found)[0], "13.png");
    // More than there are.
    assert_eq!(names(&there.found(&["a", "-k", "1000"]).0).len(), 40);
}

#[test]
fn shards_are_searched_as_folders_are_with_their_captions() {
    let there = There::new(&["run"]);
    for number in 0..12 {
        there.draw(&format!("{number:02}.png"), number, &format!("drawing {number}"));
    }
    done(flip(there.path(), &["data", "pack", "images", "--out", "shards"]));
    let shards = fs::read_dir(there.path().join("shards")).unwrap();
    let shard =
        shards.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "tar"));
    let shard = shard.unwrap();
    let (of_folder, _) = there.found(&["a drawing"]);
    let search = |more: &[&str]| {
        let arguments = ["search", "run", "--images", shard.to_str().unwrap(), "a drawing", "--json"];
        let output = flip(there.path(), &[&arguments[..], more].concat()).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let of_shard = search(&[]);
    let told = |found: &serde_json::Value| -> Vec<(String, String)> {
        let hits = found["found"].as_array().unwrap();
        hits.iter()
            .map(|hit| (hit["score"].to_string(), hit["caption"].as_str().unwrap().to_owned()))
            .collect()
    };
    assert_eq!(told(&of_folder), told(&of_shard));
    assert!(told(&of_shard).iter().all(|(_, caption)| caption.starts_with("drawing ")));
    assert!(shard
        .with_file_name(format!("{}.flip.index", shard.file_name().unwrap().to_str().unwrap()))
        .exists());
    // Of several shards nobody knows where the index belongs.
    let pattern = there.path().join("shards/{00000..00001}.tar");
    let command = ["search", "run", "--images", pattern.to_str().unwrap(), "a"];
    let said = ends_with(2, flip(there.path(), &command));
    assert!(said.contains("--index FILE"), "{said}");
}

#[test]
fn a_page_shows_what_was_found_and_escapes_what_it_is_told() {
    let there = There::new(&["run"]);
    there.draw("a.png", 1, "<script>alert(1)</script>");
    there.draw("b<i>.png", 2, "");
    done(there.search(&["<b>query</b>", "--html", "found.html"]));
    let page = fs::read_to_string(there.path().join("found.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 2);
    for raw in ["<script>alert", "b<i>", "<b>query"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("&lt;b&gt;query"));
    done(there.search(&["--image", "images/a.png", "--html", "found.html"]));
    let page = fs::read_to_string(there.path().join("found.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 3);
}

#[test]
fn what_cannot_be_searched_is_said_before_anything_is_made() {
    let there = There::new(&["run"]);
    let refused = |arguments: &[&str], expected: &str| {
        let said = ends_with(2, there.search(arguments));
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    refused(&["a"], "no jpg, jpeg, png");
    fs::write(there.image("broken.png"), "no image").unwrap();
    fs::write(there.image("empty.jpg"), "").unwrap();
    refused(&["a"], "2 images, and none can be read");
    there.draw("a.png", 1, "");
    refused(&[" "], "the text is empty");
    refused(&["--image", "nowhere.png"], "--image nowhere.png");
    refused(&["--image", "run.ron"], "--image run.ron");
    refused(&["a", "--image", "images/a.png"], "cannot be used with");
    refused(&[], "required");
    refused(&["a", "-k", "0"], "from 1 to");
    let long = "word ".repeat(50);
    let (found, said) = there.found(&[&long]);
    assert!(said.contains("of which the model reads the first 12"), "{said}");
    assert_eq!((names(&found), &found["left_out"]), (vec!["a.png".to_owned()], &2.into()));
}
