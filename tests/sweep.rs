//! Sweeps: every run is checked before the first, finished ones are never run again, and what they leave is enough to
//! make table, charts and report anew.

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use process::{done, flip, said, signal, tiny_recipe, wait_for};

const RECIPE: &str = tiny_recipe!(
    r#"
    name: "tiny",
    data: (
        train: Scenes(size: 32, split: Train),
        validation: Scenes(size: 32, split: HeldOut, samples: 100),
        workers: 2,
    ),
    stages: [
        Pretrain(
            length: Steps(40), batch: 16, image_mask: Keep, schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(5)),
            evaluate: (every: Steps(15), evaluators: [ZeroShot(name: "held out", classes: Source())]),
        ),
        Evaluate([ZeroShot(name: "held out", classes: Source()), HeldOutLoss(name: "loss", batch: 50)]),
    ],
    checkpoints: (every: Steps(10)),
    metrics: (every_steps: 5),
"#
);

const STUDY: &str = r#"#![schema = "../schema/study.json"]
// A comment.
Study(
    name: "masks",
    recipe: "tiny.ron",
    claim: "Masked <training> is sooner.",
    set: ["stages.0.batch=8"],
    axes: [
        Settings([
            (name: "no mask"),
            (name: "half", set: ["stages.0.image_mask=Random(0.5)", "stages.0.length=Steps(50)"]),
        ]),
    ],
    seeds: 2,
)
"#;

fn there() -> tempfile::TempDir {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("tiny.ron"), RECIPE).unwrap();
    fs::write(there.path().join("masks.ron"), STUDY).unwrap();
    there
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str], because: &[&str]) {
    let output = flip(folder, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for because in because {
        assert!(said(&output).contains(because), "no {because:?} in:\n{}", said(&output));
    }
    assert!(!folder.join("runs").exists(), "something was run: {}", said(&output));
}

/// What the seed determines of every run of a sweep.
fn left(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![out.join("cells")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tensorboard" {
                folders.push(path);
            } else if name == "eval.json" || name == "metrics.jsonl" || name.ends_with(".safetensors") {
                files.push((path.strip_prefix(out).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn broken_runs_are_named_before_the_first_begins() {
    let there = there();
    let sweep = |sets: &[&'static str]| {
        let mut arguments = vec!["sweep", "tiny.ron"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        arguments
    };
    refused(
        there.path(),
        &sweep(&["stages.0.batch=8,0", "stages.0.image_mask=Keep,Random(0.5)"]),
        &[
            "in 2 of 4 settings, first batch=0, image_mask=Keep:",
            "--set stages.0.batch=0: stages[0].batch",
            "nothing was run",
        ],
    );
    refused(there.path(), &sweep(&["stages.0.image_mak=Keep,Random(0.5)"]), &["did you mean `image_mask`?"]);
    refused(there.path(), &sweep(&["seed=1,2"]), &["--seeds"]);
    refused(there.path(), &sweep(&["stages.0.image_mask=Keep,Random(0.5"]), &["this `(` is not closed"]);
    let only_training = RECIPE.replace(
        "evaluate: (every: Steps(15), evaluators: [ZeroShot(name: \"held out\", classes: Source())]),",
        "",
    );
    let evaluating = only_training.find("        Evaluate([").unwrap();
    let only_training = format!("{}    ],\n)", &only_training[..evaluating]);
    fs::write(there.path().join("training.ron"), only_training).unwrap();
    refused(there.path(), &["sweep", "training.ron"], &["nothing is evaluated"]);
    refused(
        there.path(),
        &sweep(&["data.train=WebDataset(shards: \"absent.tar\"),Scenes(size: 32, split: Train)"]),
        &["in the setting train=WebDataset(shards: \"absent.tar\")", "absent.tar matches nothing"],
    );
}

#[test]
fn mistakes_in_a_study_have_their_line() {
    let there = there();
    let broken = |from: &str, to: &str, because: &[&str]| {
        assert!(STUDY.contains(from));
        fs::write(there.path().join("broken.ron"), STUDY.replace(from, to)).unwrap();
        refused(there.path(), &["sweep", "broken.ron"], because);
        refused(there.path(), &["validate", "broken.ron"], because);
    };
    broken("claim", "clam", &["broken.ron:6:5: clam: unknown field `clam`", "did you mean `claim`?"]);
    broken(
        "image_mask=Random",
        "image_mak=Random",
        &["in the setting half:", "broken.ron:11:35: stages[0].image_mak", "did you mean `image_mask`?"],
    );
    broken("Steps(50)", "Stps(50)", &["broken.ron:11:86: stages[0].length: unknown variant `Stps`"]);
    broken(
        "stages.0.batch=8",
        "stages.0.batch=8,16",
        &["broken.ron:7:11: set[0]: 2 values where one is expected"],
    );
    broken("\"half\"", "\"no mask\"", &["broken.ron:11:20: axes[0][1].name: two settings are called"]);
    broken("seeds: 2", "seeds: 2, baseline: \"no masks\"", &["did you mean \"no mask\"?"]);
    broken("seeds: 2", "seeds: 0", &["expected 1 <= seeds <= 10000, got 0"]);
    broken("tiny.ron", "absent.ron", &["absent.ron: cannot be read"]);
    broken(
        "seeds: 2",
        "metric: (evaluation: \"held ot\")",
        &[
            "broken.ron:14:26: metric.evaluation: no evaluation is called \"held ot\"",
            "did you mean \"held out\"?",
        ],
    );
    let output = flip(there.path(), &["run", "masks.ron"]).output().unwrap();
    assert!(
        said(&output).contains("masks.ron is a study of many runs: flip sweep masks.ron"),
        "{}",
        said(&output)
    );
}

#[test]
fn validate_tells_what_a_study_costs() {
    let there = there();
    let text = done(flip(there.path(), &["validate", "masks.ron"]));
    assert!(text.contains("masks: 2 settings with 2 seeds each, 4 runs"), "{text}");
    let json = done(flip(there.path(), &["validate", "masks.ron", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["valid"], &json["runs"]), (&true.into(), &4.into()));
    assert!(json["flops"].as_f64().unwrap() > 1e6);
    fs::write(there.path().join("broken.ron"), STUDY.replace("image_mask=Random", "image_mak=Random"))
        .unwrap();
    let output = flip(there.path(), &["validate", "broken.ron", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["valid"], &json["errors"][0]["line"]), (&false.into(), &11.into()));
    assert!(!there.path().join("runs").exists());
}

/// Killed in the middle of a run, interrupted in the middle of another: finished runs are not touched, and what is
/// left in the end is what a sweep leaves that nobody disturbed.
#[test]
fn a_killed_sweep_goes_on_and_repeats_nothing() {
    let there = there();
    let table = done(flip(there.path(), &["sweep", "masks.ron", "--out", "whole"]));
    assert!(table.contains("no mask") && table.contains("2 of 2"), "{table}");
    let whole = left(&there.path().join("whole"));
    assert!(whole.iter().any(|(path, _)| path.ends_with("cells/half/seed-4/eval.json")), "{whole:?}");

    let out = there.path().join("killed");
    let first = out.join("cells/no-mask/seed-3");
    let mut child = flip(there.path(), &["sweep", "masks.ron", "--out", "killed"]).spawn().unwrap();
    // Into the second run, past a checkpoint of it.
    wait_for(&mut child, || out.join("cells/half/seed-3/checkpoints/stage0-step00000010").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.join("complete").exists() && !out.join("cells/half/seed-4/complete").exists());
    let before = fs::metadata(first.join("eval.json")).unwrap().modified().unwrap();

    let mut child = flip(there.path(), &["sweep", "masks.ron", "--out", "killed"]).spawn().unwrap();
    wait_for(&mut child, || out.join("cells/no-mask/seed-4/metrics.jsonl").exists());
    signal(child.id(), "-INT");
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert!(text.contains("the same command goes on") || output.status.success(), "{text}");
    assert!(matches!(output.status.code(), Some(130 | 0)), "{text}");
    assert!(!text.contains("run 1 of 4") && text.contains("run 2 of 4"), "{text}");

    // The folder alone says what to go on with.
    let text = done(flip(there.path(), &["sweep", "killed"]));
    assert!(!text.contains("run 1 of 4") && !text.contains("run 2 of 4"), "{text}");
    assert_eq!(fs::metadata(first.join("eval.json")).unwrap().modified().unwrap(), before);
    let killed = left(&out);
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&killed), names(&whole));
    for ((path, killed), (_, whole)) in killed.iter().zip(&whole) {
        assert!(killed == whole, "{} differs from that of the undisturbed sweep", path.display());
    }
    assert!(done(flip(there.path(), &["sweep", "masks.ron", "--out", "killed", "--plan"]))
        .contains("4 of 4 runs are finished"));
}

#[test]
fn a_run_that_fails_does_not_stop_the_others_and_a_changed_one_is_refused() {
    let there = there();
    let sets =
        ["--set", "stages.0.schedule.lr=Absolute(1e30),Absolute(1e-3)", "--set", "stages.0.length=Steps(20)"];
    let arguments = [&["sweep", "tiny.ron", "--out", "out"], sets.as_slice()].concat();
    let output = flip(there.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("1 of 2 runs failed"), "{}", said(&output));
    assert!(said(&output).contains("out/cells/lr=Absolute-1e30/seed-3: stages[0]"), "{}", said(&output));
    let page = fs::read_to_string(there.path().join("out/report.html")).unwrap();
    assert!(page.contains("failed: stages[0] (pretrain)") && page.contains("seed-3/report.html"), "{page}");

    fs::write(there.path().join("tiny.ron"), RECIPE.replace("width: 16", "width: 32")).unwrap();
    let output = flip(there.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("there: width: 16,\n  now:   width: 32,"), "{}", said(&output));
    let restarted = [&arguments, ["--restart-changed"].as_slice()].concat();
    assert!(said(&flip(there.path(), &restarted).output().unwrap()).contains("1 of 2 runs failed"));
    let kept = fs::read_to_string(there.path().join("out/cells/lr=Absolute-1e-3/seed-3/recipe.ron")).unwrap();
    assert!(kept.contains("width: 32"), "{kept}");
    fs::create_dir(there.path().join("run")).unwrap();
    fs::write(there.path().join("run/recipe.ron"), "").unwrap();
    let output = flip(there.path(), &["sweep", "tiny.ron", "--out", "run"]).output().unwrap();
    assert!(said(&output).contains("run holds a run, not a sweep"), "{}", said(&output));
}

/// Stopped for a second and continued, a run says of its training what one says that was not.
#[test]
fn a_pause_is_no_training() {
    let there = there();
    let longer = RECIPE.replace("Steps(40)", "Steps(400)").replace("Steps(15)", "Steps(200)");
    fs::write(there.path().join("tiny.ron"), longer).unwrap();
    let out = there.path().join("run");
    let mut child = flip(there.path(), &["run", "tiny.ron", "--out", "run"]).spawn().unwrap();
    wait_for(&mut child, || {
        fs::read_to_string(out.join("timing.jsonl")).is_ok_and(|text| text.lines().count() > 4)
    });
    let process = child.id();
    let send = |name: &str| signal(process, name);
    send("-STOP");
    let paused = Duration::from_secs(2);
    std::thread::sleep(paused);
    send("-CONT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let slowest = fs::read_to_string(out.join("timing.jsonl")).unwrap();
    let step_ms =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step_ms"].as_f64().unwrap();
    let slowest = slowest.lines().map(step_ms).fold(0.0, f64::max);
    // Five steps a line: with the pause, one of them would have 400.
    assert!(slowest < paused.as_secs_f64() * 1e3 / 5.0, "{slowest} ms a step");
}

/// A run as one leaves it: a step takes `step_ms`, and every ten steps the accuracy is the next of `accuracies`.
fn fabricated(there: &Path, setting: &str, seed: u64, step_ms: f64, accuracies: &[f64]) {
    let folder = there.join("sweep/cells").join(setting).join(format!("seed-{seed}"));
    fs::create_dir_all(&folder).unwrap();
    let recipe = RECIPE.replace("seed: 3", &format!("seed: {seed}"));
    fs::write(folder.join("recipe.ron"), recipe).unwrap();
    fs::write(folder.join("complete"), "").unwrap();
    let (mut metrics, mut timing, mut rows) = (String::new(), String::new(), Vec::new());
    for (index, top1) in accuracies.iter().enumerate() {
        let step = 10 * (index + 1);
        let samples = 16 * step;
        metrics += &format!("{{\"stage\":0,\"step\":{step},\"samples\":{samples},\"loss\":1.0}}\n");
        // Resumed and evaluated in between: the clock of the process says nothing.
        timing += &format!(
            "{{\"stage\":0,\"step\":{step},\"step_ms\":{step_ms},\"elapsed_s\":{}}}\n",
            100 * index % 7
        );
        rows.push(format!(
            "{{\"stage\":0,\"step\":{step},\"samples\":{samples},\"kind\":\"zero_shot\",\"dataset\":\"held out\",\
             \"task\":\"all\",\"metrics\":{{\"top1\":{top1},\"classes\":4.0}},\"n\":100}}"
        ));
    }
    fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
    fs::write(folder.join("timing.jsonl"), timing).unwrap();
    fs::write(folder.join("eval.json"), format!("[{}]", rows.join(",\n"))).unwrap();
}

/// Two settings with known curves: what the first needs 40 s for, the second has after 15.
fn fabricated_sweep() -> tempfile::TempDir {
    let there = there();
    for (seed, shift) in [(3, 0.0), (4, 0.02)] {
        let shifted = |values: [f64; 4]| values.map(|value| value + shift);
        fabricated(there.path(), "no-mask", seed, 1_000.0, &shifted([0.1, 0.2, 0.3, 0.4]));
        fabricated(there.path(), "half", seed, 500.0, &shifted([0.1, 0.3, 0.5, 0.6]));
    }
    fs::write(there.path().join("sweep/study.ron"), STUDY).unwrap();
    // Nothing but what the runs stored is needed.
    fs::remove_file(there.path().join("tiny.ron")).unwrap();
    there
}

#[test]
fn the_baselines_accuracy_is_timed() {
    let there = fabricated_sweep();
    let text = done(flip(there.path(), &["sweep", "sweep", "--charts-only"]));
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    // 41 % is reached after 40 s, by the other after 12.5 (0.31 at 10 s, 0.51 at 15).
    assert!(row("no mask").starts_with("no mask 2 of 2 41.0 % 40.0 to 42.0 40.0 "), "{text}");
    assert!(row("half").starts_with("half 2 of 2 61.0 % 60.0 to 62.0 20.0 "), "{text}");
    assert!(row("half").contains(" 640 3.20x 1.60x 1.60x"), "{text}");

    let sweep = there.path().join("sweep");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(sweep.join("sweep.json")).unwrap()).unwrap();
    let half = &json["settings"][1];
    let near = |value: &serde_json::Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-9;
    assert!(near(&half["reached"]["train_s"]["at"], 12.5), "{half:#}");
    assert!(near(&half["reached"]["train_s"]["seeds"][0], 12.75), "{half:#}");
    assert!(near(&half["reached"]["samples"]["at"], 400.0), "{half:#}");
    assert_eq!(half["cells"][1]["points"].as_array().unwrap().len(), 4);
    let csv = fs::read_to_string(sweep.join("points.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 4 * 4 * 2);
    assert!(csv.contains("half,3,finished,0,20,320,"), "{csv}");
}

#[test]
fn charts_are_made_anew_from_what_is_stored() {
    let there = fabricated_sweep();
    let sweep = there.path().join("sweep");
    let made = || -> Vec<(&str, Vec<u8>)> {
        done(flip(there.path(), &["sweep", "sweep", "--charts-only"]));
        MADE.iter().map(|name| (*name, fs::read(sweep.join(name)).unwrap())).collect()
    };
    let before = made();
    for (name, _) in &before {
        fs::remove_file(sweep.join(name)).unwrap();
    }
    for ((name, before), (_, again)) in before.iter().zip(made()) {
        assert!(*before == again, "{name} is not the same a second time");
    }

    let page = fs::read_to_string(sweep.join("report.html")).unwrap();
    for expected in [
        "Masked &lt;training&gt; is sooner.",
        "half is as good as no mask at its end (41.0 %): 3.20x sooner, 1.60x less compute, 1.60x fewer pairs",
        "training time, seconds",
        "training compute, MFLOP",
        "href=\"cells/half/seed-4/report.html\"",
        "Settings([",
    ] {
        assert!(page.contains(expected), "{expected} is not in the page");
    }
    assert!(!page.contains("Masked <training>"));
    let svg = fs::read_to_string(sweep.join("charts/time.svg")).unwrap();
    assert!(
        svg.starts_with("<svg")
            && svg.contains("<polygon")
            && svg.contains("half: ends at 61.0 %, as good 3.20x sooner")
    );

    // A run of another recipe, left from before, is named and not mixed in.
    let stray = sweep.join("cells/half/seed-4/recipe.ron");
    let recipe = fs::read_to_string(&stray).unwrap();
    fs::write(&stray, recipe.replace("width: 16", "width: 32")).unwrap();
    let text = done(flip(there.path(), &["sweep", "sweep", "--charts-only"]));
    assert!(text.contains("1 of 2"), "{text}");
    let page = fs::read_to_string(sweep.join("report.html")).unwrap();
    assert!(page.contains("left out: its recipe has width: 32,"), "{page}");

    let wrong = STUDY.replace("seeds: 2", "metric: (evaluation: \"held out\", metric: \"top2\")");
    fs::write(sweep.join("study.ron"), wrong).unwrap();
    let output = flip(there.path(), &["sweep", "sweep", "--charts-only"]).output().unwrap();
    assert!(said(&output).contains("has no metric \"top2\"; there are top1, classes"), "{}", said(&output));
}

/// What a sweep writes beside its runs.
const MADE: [&str; 7] = [
    "sweep.json",
    "points.csv",
    "report.html",
    "charts/time.svg",
    "charts/flops.svg",
    "charts/samples.svg",
    "charts/results.svg",
];
