//! A run obeys an edited `logging.ron` while it goes on, and the command line says what is wrong.

mod process;

use std::fs;
use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use process::{flip, signal, tiny_recipe, PATIENCE};

const RECIPE: &str = tiny_recipe!(
    r#"
    name: "watching",
    data: (train: Scenes(size: 32, split: Train)),
    stages: [
        Pretrain(
            length: Steps(1_000_000), batch: 16, image_mask: Random(0.5),
            schedule: Constant(lr: Absolute(1e-3), warmup: Steps(5)),
        ),
    ],
    checkpoints: (every: Steps(1_000_000)),
    metrics: (every_steps: 1),
"#
);

/// Waits for a line that holds `word`, and says how long that took.
fn wait_for(lines: &mpsc::Receiver<String>, word: &str, at_most: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let left = at_most.checked_sub(began.elapsed()).unwrap_or_default();
        match lines.recv_timeout(left) {
            Ok(line) if line.contains(word) => return began.elapsed(),
            Ok(_) => {}
            Err(error) => panic!("no line with {word:?} within {at_most:?}: {error}"),
        }
    }
}

#[test]
fn an_edit_of_logging_is_applied_within_a_second_and_loses_no_metrics() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
    let mut child = flip(there.path(), &["run", "recipe.ron", "--out", "run"]).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let metrics = there.path().join("run/metrics.jsonl");
    let began = Instant::now();
    while fs::metadata(&metrics).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    while lines.try_recv().is_ok_and(|line| !line.contains("flip::train")) {}

    let config = there.path().join("run/logging.ron");
    // A busy machine may be late once, not five times.
    let quickest = (0..5)
        .map(|_| {
            fs::write(&config, r#"(level: Info, targets: {"flip::train": Debug})"#).unwrap();
            let took = wait_for(&lines, "flip::train", PATIENCE);
            if took >= Duration::from_secs(1) {
                fs::write(&config, "(level: Warn, targets: {\"flip::log\": Info})").unwrap();
                wait_for(&lines, "logging.ron applied", PATIENCE);
            }
            took
        })
        .find(|took| *took < Duration::from_secs(1));
    assert!(quickest.is_some(), "five edits were applied after more than a second");

    // A mistake is reported, with its place, and the former levels stay.
    fs::write(&config, r#"(level: Loud)"#).unwrap();
    wait_for(&lines, "logging.ron:1:", PATIENCE);
    wait_for(&lines, "flip::train", PATIENCE);

    signal(child.id(), "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(lines);
    reader.join().unwrap();

    let text = fs::read_to_string(&metrics).unwrap();
    for (index, line) in text.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["step"], index as u64 + 1, "a line of metrics is missing");
    }
    assert!(text.lines().count() > 10);
}

#[test]
fn wrong_arguments_and_recipes_exit_with_2_and_say_what_would_be_right() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
    let says = |arguments: &[&str], code: i32, words: &[&str]| {
        let done = flip(there.path(), arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} should say {word:?}: {said}");
        }
    };
    says(&["run"], 2, &["RECIPE"]);
    says(&["rum", "recipe.ron"], 2, &["run"]);
    says(&["run", "absent.ron"], 2, &["absent.ron"]);
    says(&["run", "recipe.ron", "--set", "model.image.widht=8"], 2, &["did you mean `width`"]);
    says(&["run", "recipe.ron", "--resume", "--out", "nothing"], 2, &["no run to resume"]);
    says(&["data", "inspect", "absent-{0..3}.tar"], 2, &["absent-{0..3}.tar", "matches no"]);
    says(&["embed", "nothing", "--texts", "x", "--out", "y"], 2, &["--out y", ".safetensors"]);
    says(&["embed", "nothing", "--texts", "x", "--out", "y.npy"], 1, &["nothing: there is no such folder"]);
    let shards =
        ["run", "recipe.ron", "--out", "run", "--set", r#"data.train=WebDataset(shards: "no/{0..9}.tar")"#];
    says(&shards, 2, &["data.train.shards", "no/{0..9}.tar", "matches nothing"]);
}
