//! `flip evaluate` on a small suite, against open_clip and scikit-learn: what these say was written down by
//! `tests/suite_reference.py`, which runs live where FLIP_PYTHON names a Python that has them.

#[allow(dead_code)]
#[path = "sources/server.rs"]
mod server;

mod process;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flip::data::{Batch, ClipBenchmarkConfig, SourceConfig};
use flip::record::{Measured, ModelEvaluation};
use flip::trained::Trained;
use process::{done, ends_with, flip};
use serde_json::Value;
use server::{Fault, Server};

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evaluators/suite")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(suite().join("expected.json")).unwrap()).unwrap()
}

/// Arguments of an evaluation of the small model, with `more`.
fn arguments<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["evaluate", model, "--out", "out"].into_iter().chain(more.iter().copied()).collect()
}

fn model() -> String {
    suite().join("model").display().to_string()
}

fn results(folder: &Path) -> ModelEvaluation {
    ModelEvaluation::read(&folder.join("out/results.json")).unwrap()
}

fn metric(measured: &Measured, name: &str) -> f64 {
    let metrics = &measured.evaluation.metrics;
    metrics.iter().find(|(metric, _)| metric == name).unwrap_or_else(|| panic!("no {name} in {metrics:?}")).1
}

#[track_caller]
fn assert_agrees(results: &ModelEvaluation) {
    for (dataset, metrics) in expected().as_object().unwrap() {
        let Some(metrics) = metrics.as_object() else { continue };
        let of_set =
            |row: &&Measured| row.evaluation.dataset == *dataset && row.evaluation.kind != "few_shot";
        let measured = results.results.iter().find(of_set);
        let measured = measured.unwrap_or_else(|| panic!("{dataset} was not measured"));
        for (name, value) in metrics {
            let (found, value) = (metric(measured, name), value.as_f64().unwrap());
            assert!((found - value).abs() < 1e-9, "{dataset}, {name}: {found} instead of {value}");
        }
    }
}

#[test]
fn a_suite_agrees_with_open_clip_and_scikit_learn_and_is_embedded_once() {
    let there = tempfile::tempdir().unwrap();
    let (model, sets) = (model(), suite().join("sets").display().to_string());
    let said = done(flip(there.path(), &arguments(&model, &["--suite", &sets])));
    let first = results(there.path());
    assert_agrees(&first);
    assert!(first.failed.is_empty() && first.results.iter().all(|measured| !measured.cached), "{said}");
    // Each set by the measure that papers report it by.
    let reported: BTreeMap<&str, &str> =
        first.results.iter().map(|row| (row.evaluation.dataset.as_str(), row.metric.as_str())).collect();
    let measures = [
        ("flickr8k", "text_to_image_recall_at_1"),
        ("hateful_memes", "roc_auc"),
        ("pets", "mean_per_class"),
        ("voc2007_multilabel", "map_11_points"),
    ];
    assert_eq!(reported, BTreeMap::from(measures));
    assert_eq!(first.missing.len(), 31);
    for told in
        ["mean average precision, 11 points", "ROC-AUC", "ImageNet-V2: git clone https://huggingface.co"]
    {
        assert!(said.contains(told), "no {told:?} in {said}");
    }
    let page = fs::read_to_string(there.path().join("out/results.html")).unwrap();
    for told in ["Evaluation of", "voc2007_multilabel", "ROC-AUC", "by class", "Not there", &first.model_hash]
    {
        assert!(page.contains(told), "no {told:?} on the page");
    }

    // Again, with other questions: nothing is embedded.
    let again = ["--suite", &sets, "--few-shot", &format!("{sets}/wds_vtab-pets")];
    done(flip(there.path(), &arguments(&model, &again)));
    let second = results(there.path());
    let of_suite = second.results.iter().filter(|row| row.evaluation.kind != "few_shot");
    assert!(of_suite.clone().count() == first.results.len() && of_suite.clone().all(|row| row.cached));
    assert_agrees(&second);
    assert_eq!(second.results.iter().filter(|row| row.evaluation.kind == "few_shot").count(), 5);
    // Kept embeddings that are damaged are made anew.
    for file in fs::read_dir(there.path().join("out/embeddings/images")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    done(flip(there.path(), &arguments(&model, &["--suite", &sets])));
    assert_agrees(&results(there.path()));
}

#[test]
fn a_suite_behind_a_url_is_the_same() {
    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, files),
                false => {
                    // The server has all sets in one folder.
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    files.insert(
                        format!("/data/{}", name.trim_start_matches("more/")),
                        fs::read(&path).unwrap(),
                    );
                }
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(&suite().join("sets"), &suite().join("sets"), &mut files);
    let server = Server::start(files, Fault::None);
    let there = tempfile::tempdir().unwrap();
    let (model, url) = (model(), format!("{}/data", server.url()));
    let mut command = flip(there.path(), &arguments(&model, &["--suite", &url]));
    command.env("XDG_CACHE_HOME", there.path().join("cache"));
    done(command);
    assert_agrees(&results(there.path()));
}

#[test]
fn classifiers_learn_from_features_before_and_behind_the_projection() {
    let there = tempfile::tempdir().unwrap();
    let (model, set) = (model(), suite().join("sets/wds_vtab-pets").display().to_string());
    let said = done(flip(there.path(), &arguments(&model, &["--linear-probe", &set])));
    assert!(said.contains("linear probe, before the projection"), "{said}");
    let results = results(there.path());
    let tasks: Vec<&str> = results.results.iter().map(|row| row.evaluation.task.as_str()).collect();
    assert_eq!(tasks, ["before the projection", "source classes"]);
    // Colours tell the classes: whatever the features, a line between them does better than chance.
    assert!(results.results.iter().all(|row| metric(row, "top1") > 0.4), "{said}");
}

#[test]
fn features_before_the_projection_are_those_of_open_clip() {
    let trained = Trained::open(suite().join("model")).unwrap();
    let config = SourceConfig::ClipBenchmark(ClipBenchmarkConfig::new(suite().join("sets/wds_vtab-pets")));
    let source = flip::data::open_source(&config, 0).unwrap();
    let mut loader = flip::data::load::Loader::start(trained.loader_options(source).unwrap()).unwrap();
    let batch: Batch = loader.next().unwrap().unwrap();
    let (rows, features) = trained.embed_images_with_features(&batch.pixels).unwrap();
    assert_eq!(rows, trained.embed_images(&batch.pixels).unwrap());
    let expected = expected();
    let expected: Vec<f64> =
        expected["first_features"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(features.len(), 60 * expected.len());
    for (found, value) in features.iter().zip(&expected) {
        assert!((f64::from(*found) - value).abs() < 1e-4, "{found} instead of {value}");
    }
}

#[test]
fn class_names_and_prompts_come_from_files_too() {
    let there = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(there.path().join(name), text).unwrap();
    let (model, set) = (model(), suite().join("sets/wds_vtab-pets").display().to_string());
    let metrics = |more: &[&str]| {
        let more: Vec<&str> = ["--zero-shot", &set].into_iter().chain(more.iter().copied()).collect();
        done(flip(there.path(), &arguments(&model, &more)));
        results(there.path()).results.remove(0).evaluation.metrics
    };
    let own = metrics(&[]);
    // The same from files, in every form.
    write("names.txt", "word0\nword1\nword2\nword3\nword4\nword5\n");
    write("prompts.txt", "word50 {}\n{c} word51 word52\n");
    write(
        "en_classnames.json",
        r#"{"cars": ["x"], "pets": ["word0", "word1", "word2", "word3", "word4", "word5"]}"#,
    );
    write("templates.json", r#"{"pets": ["word50 {c}", "{c} word51 word52"]}"#);
    assert_eq!(metrics(&["--classes", "names.txt", "--prompts", "prompts.txt"]), own);
    assert_eq!(metrics(&["--classes", "en_classnames.json", "--prompts", "templates.json"]), own);
    assert_ne!(metrics(&["--prompts", "plain"]), own);
    // CLIP_benchmark as its package installs it.
    let installed = there.path().join("venv/lib/python3.12/site-packages/clip_benchmark/datasets");
    fs::create_dir_all(&installed).unwrap();
    let eighty: Vec<String> = (0..80).map(|number| format!("{{c}} word{}", number % 50)).collect();
    let templates = serde_json::json!({ "imagenet1k": eighty }).to_string();
    fs::write(installed.join("en_zeroshot_classification_templates.json"), templates).unwrap();
    let installed = |prompts: &str| {
        let mut command =
            flip(there.path(), &arguments(&model, &["--zero-shot", &set, "--prompts", prompts]));
        command.env("VIRTUAL_ENV", there.path().join("venv"));
        done(command);
        results(there.path()).results.remove(0).evaluation.metrics
    };
    let seven = [7, 35, 44, 64, 67, 69, 73].map(|number| format!("{{}} word{}\n", number % 50)).concat();
    write("seven.txt", &seven);
    assert_eq!(installed("openai7"), metrics(&["--prompts", "seven.txt"]));
    assert_ne!(installed("openai80"), installed("openai7"));
}

#[test]
fn mistakes_get_advice() {
    let there = tempfile::tempdir().unwrap();
    let (model, set) = (model(), suite().join("sets/wds_vtab-pets").display().to_string());
    let write = |name: &str, text: &str| fs::write(there.path().join(name), text).unwrap();
    fs::create_dir(there.path().join("empty")).unwrap();
    write("few.txt", "word0\nword1\n");
    write("odd.txt", "a photo\n");
    let green = image::RgbImage::from_pixel(32, 32, image::Rgb([0, 200, 0]));
    fs::create_dir_all(there.path().join("one/green")).unwrap();
    green.save(there.path().join("one/green/1.png")).unwrap();
    let refused = |code: i32, more: &[&str], told: &str| {
        let said = ends_with(code, flip(there.path(), &arguments(&model, more)));
        assert!(said.contains(told), "{more:?}: no {told:?} in {said}");
    };
    refused(2, &[], "nothing to measure; give --zero-shot");
    refused(2, &["--zero-shot", "cifar10"], "It is the name of a data set (CIFAR-10): git clone https://");
    refused(2, &["--zero-shot", "nowhere"], "no such folder; expected a folder of CLIP_benchmark");
    refused(1, &["--zero-shot", "empty"], "found no sub-folder; expected one sub-folder a class");
    refused(1, &["--zero-shot", &set, "--classes", "few.txt"], "2 names for the 6 classes of the data");
    refused(2, &["--zero-shot", &set, "--classes", "none.txt"], "--classes none.txt: no such file");
    refused(1, &["--zero-shot", &set, "--prompts", "odd.txt"], "has no place for the class name");
    refused(2, &["--zero-shot", &set, "--prompts", "openai"], "expected one, or openai80, openai7 or plain");
    refused(2, &["--suite", "empty"], "no folder of CLIP_benchmark is there");
    refused(2, &["--retrieval", "one"], "has no captions; expected shards");
    refused(2, &["--linear-probe", "one"], "learns from other images than it is tried on");
    refused(2, &["--zero-shot", "Folders(path: \"one\")"], "not a source as recipes have it");
    for split in ["train", "test"] {
        fs::create_dir_all(there.path().join("alone").join(split).join("green")).unwrap();
        green.save(there.path().join("alone").join(split).join("green/1.png")).unwrap();
    }
    refused(1, &["--linear-probe", "alone"], "expected two classes or more");
    // One class only is measured, and everything is of it.
    done(flip(there.path(), &arguments(&model, &["--zero-shot", "one"])));
    assert_eq!(metric(&results(there.path()).results[0], "top1"), 1.0);
    // One of several fails; the others are measured all the same.
    fs::create_dir_all(there.path().join("sets/broken/test")).unwrap();
    write("sets/broken/test/nshards.txt", "two");
    let copy = there.path().join("sets/wds_flickr8k");
    fs::create_dir_all(copy.join("test")).unwrap();
    for file in ["dataset_type.txt", "test/0.tar", "test/1.tar", "test/nshards.txt"] {
        fs::copy(suite().join("sets/wds_flickr8k").join(file), copy.join(file)).unwrap();
    }
    refused(1, &["--suite", "sets"], "1 of 2 measurements failed");
    let results = results(there.path());
    assert_eq!((results.results.len(), results.failed.len()), (2, 1));
    assert!(results.failed[0].reason.contains("expected a number of shards"), "{}", results.failed[0].reason);
}

#[test]
fn imagenet_without_prompts_warns_and_binary_probes_have_a_curve() {
    let there = tempfile::tempdir().unwrap();
    let model = model();
    let synsets: String = (0..1000).map(|class| format!("n{class:08} word{}\n", class % 60)).collect();
    fs::write(there.path().join("words.txt"), synsets).unwrap();
    fs::create_dir_all(there.path().join("images/n00000003")).unwrap();
    let image = image::RgbImage::from_pixel(32, 32, image::Rgb([0, 200, 0]));
    image.save(there.path().join("images/n00000003/1.png")).unwrap();
    let source = "ImageNet(images: \"images\", synsets: \"words.txt\")";
    let said = done(flip(there.path(), &arguments(&model, &["--zero-shot", source])));
    assert!(said.contains("embedded without prompts") && said.contains("--prompts openai7"), "{said}");
    fs::write(there.path().join("prompts.txt"), "word50 {c}\n").unwrap();
    let more = ["--zero-shot", source, "--prompts", "prompts.txt"];
    let said = done(flip(there.path(), &arguments(&model, &more)));
    assert!(!said.contains("embedded without prompts"), "{said}");

    for (split, shift) in [("train", 0), ("test", 1)] {
        for (class, colour) in [("dark", 20), ("light", 200)] {
            let folder = there.path().join("two").join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..6u8 {
                let value = colour + 8 * number + shift;
                let image = image::RgbImage::from_pixel(32, 32, image::Rgb([value, value, 255 - value]));
                image.save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
    }
    done(flip(there.path(), &arguments(&model, &["--linear-probe", "two"])));
    assert_eq!(metric(&results(there.path()).results[0], "roc_auc"), 1.0);
    // Images of several classes are not for classifiers, and the message says what is.
    let voc = suite().join("sets/wds_voc2007_multilabel").display().to_string();
    let copy = there.path().join("voc");
    for split in ["train", "test"] {
        fs::create_dir_all(copy.join(split)).unwrap();
        for file in ["0.tar", "1.tar", "nshards.txt"] {
            fs::copy(Path::new(&voc).join("test").join(file), copy.join(split).join(file)).unwrap();
        }
    }
    fs::write(copy.join("dataset_type.txt"), "multilabel").unwrap();
    let said = ends_with(1, flip(there.path(), &arguments(&model, &["--few-shot", "voc"])));
    assert!(said.contains("Measure it with zero-shot classification"), "{said}");
}

#[test]
fn the_numbers_are_those_that_open_clip_and_scikit_learn_say_now() {
    let Some(python) = std::env::var_os("FLIP_PYTHON") else {
        println!("skipped: FLIP_PYTHON names no Python");
        return;
    };
    let there = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite_reference.py");
    let output = Command::new(python).arg(script).arg(there.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let now: Value = serde_json::from_slice(&fs::read(there.path().join("expected.json")).unwrap()).unwrap();
    for (dataset, metrics) in expected().as_object().unwrap() {
        for (name, value) in metrics.as_object().into_iter().flatten() {
            let difference = now[dataset][name].as_f64().unwrap() - value.as_f64().unwrap();
            assert!(difference.abs() < 1e-9, "{dataset}, {name}: {difference}");
        }
    }
}
