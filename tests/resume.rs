//! Runs that survive: the binary is killed at many moments, resumed each time, and must leave the very bytes
//! of an uninterrupted run.

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{assert_left, flip, left, tiny_recipe, wait_for};
use rand::{Rng, SeedableRng};

/// Every kind of stage, with checkpoints close together.
const RECIPE: &str = tiny_recipe!(
    r#"
    name: "resume",
    data: (
        train: Scenes(size: 32, split: Train),
        validation: Scenes(size: 32, split: HeldOut, samples: 200),
        workers: 2,
    ),
    stages: [
        Pretrain(
            length: Steps(60), batch: 16, micro_batch: 8, image_mask: Random(0.5), text_mask: Frequency(0.25),
            schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(5)), clip_grad_norm: 1.0,
            evaluate: (
                every: Steps(15),
                evaluators: [ZeroShot(name: "held out"), HeldOutLoss(name: "loss", batch: 50)],
            ),
        ),
        Evaluate([ZeroShot(name: "held out", classes: Source()), Retrieval(name: "held out")]),
        Unmask(length: Steps(40), batch: 16, schedule: Constant(lr: Absolute(1e-4), warmup: Steps(5))),
        Evaluate([ZeroShot(name: "held out", classes: Source()), HeldOutLoss(name: "loss", batch: 50)]),
    ],
    checkpoints: (every: Steps(7), keep: 2),
    metrics: (every_steps: 3),
"#
);

fn start(folder: &Path, out: &str, resume: bool) -> Command {
    let mut command = flip(folder, &["run", "recipe.ron", "--out", out]);
    command.stdout(Stdio::null());
    if resume {
        command.arg("--resume");
    }
    command
}

fn finish(folder: &Path, out: &str, resume: bool) {
    let done = start(folder, out, resume).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn prepared() -> (tempfile::TempDir, Vec<(String, Vec<u8>)>, Duration) {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
    let started = Instant::now();
    finish(there.path(), "whole", false);
    let whole = left(&there.path().join("whole"));
    (there, whole, started.elapsed())
}

/// Lines that the run has logged, of all stages or of one.
fn logged(run: &Path, stage: Option<usize>) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let of_stage = |line: &&str| stage.is_none_or(|stage| line.contains(&format!("\"stage\":{stage},")));
    text.lines().filter(of_stage).count()
}

/// Lines logged and evaluations done: it grows through every stage.
fn progress(run: &Path) -> usize {
    let results = fs::read_to_string(run.join("eval.json")).unwrap_or_default();
    logged(run, None) + results.matches("\"kind\"").count()
}

/// Where the newest checkpoint stands, for the record.
fn newest(run: &Path) -> String {
    let names = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("stage")).max().unwrap_or_else(|| "none".into())
}

#[test]
fn killed_ten_times_and_resumed_a_run_leaves_the_same_bytes() {
    let (there, whole, length) = prepared();
    let run = there.path().join("killed");
    let end = progress(&there.path().join("whole"));
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    // Random moments in each tenth of the run, and a random time after them: all stages are met.
    for kill in 0..10 {
        let moment = (kill * end + rng.gen_range(0..end)) / 10;
        let resume = run.join("recipe.ron").exists();
        let mut child = start(there.path(), "killed", resume).stderr(Stdio::null()).spawn().unwrap();
        wait_for(&mut child, || progress(&run) >= moment);
        std::thread::sleep(length.mul_f64(rng.gen_range(0.0..0.05)));
        child.kill().unwrap();
        child.wait().unwrap();
        println!("killed at {} of {end}; newest checkpoint: {}", progress(&run), newest(&run));
    }
    finish(there.path(), "killed", run.join("recipe.ron").exists());
    assert_left(&whole, &run, "interrupted");
}

/// Makes a tokenizer.json of some 20 MB of one that a run has trained: by tokens that are in no caption.
fn enlarge(trained: &Path, large: &Path) {
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&fs::read(trained).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for number in vocabulary.len()..300 + vocabulary.len() {
        vocabulary.insert(format!("{number}{}", "x".repeat(70_000)), number.into());
    }
    fs::write(large, serde_json::to_vec(&tokenizer).unwrap()).unwrap();
    assert!(fs::metadata(large).unwrap().len() > 20_000_000);
}

/// `cargo test --release --test resume -- --ignored` takes a few minutes.
#[test]
#[ignore = "two hundred starts of a run"]
fn two_hundred_kills_over_runs_with_a_large_tokenizer_lose_nothing() {
    let (there, _, _) = prepared();
    enlarge(&there.path().join("whole/tokenizer.json"), &there.path().join("large.json"));
    let large = RECIPE
        .replace("Train(captions: 200), vocab_size: 300", "Json(\"large.json\"), vocab_size: 600")
        .replace("Steps(60)", "Steps(20)")
        .replace("Steps(40)", "Steps(10)");
    fs::write(there.path().join("recipe.ron"), large).unwrap();
    let started = Instant::now();
    finish(there.path(), "large", false);
    let (whole, length) = (left(&there.path().join("large")), started.elapsed());
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    for round in 0..20 {
        let out = format!("killed-{round}");
        let run = there.path().join(&out);
        let mut before = [0; 3];
        for _ in 0..10 {
            let resume = run.join("recipe.ron").exists();
            let mut child = start(there.path(), &out, resume).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(length.mul_f64(rng.gen_range(0.0..1.1)));
            child.kill().unwrap();
            child.wait().unwrap();
            let stage = ["recipe.ron", "tokenizer.json", "metrics.jsonl"];
            let reached = stage.iter().take_while(|name| run.join(name).exists()).count();
            before[reached.min(2)] += 1;
        }
        finish(there.path(), &out, run.join("recipe.ron").exists());
        assert_left(&whole, &run, "interrupted");
        println!("round {round}: killed before the recipe, the tokenizer, the metrics or later: {before:?}");
        fs::remove_dir_all(&run).unwrap();
    }
}

/// What is measured in the course of training changes nothing that training computes, and is written down
/// with its place.
#[test]
fn evaluations_in_the_course_of_training_disturb_nothing() {
    let (there, whole, _) = prepared();
    let begin = RECIPE.find("            evaluate: (").unwrap();
    let end = RECIPE[begin..].find("            ),\n").unwrap() + begin + "            ),\n".len();
    fs::write(there.path().join("recipe.ron"), format!("{}{}", &RECIPE[..begin], &RECIPE[end..])).unwrap();
    finish(there.path(), "without", false);
    for ((name, with), (_, without)) in whole.iter().zip(left(&there.path().join("without"))) {
        assert_eq!(name == "eval.json", *with != without, "{name}");
    }
    let rows: serde_json::Value =
        serde_json::from_slice(&fs::read(there.path().join("whole/eval.json")).unwrap()).unwrap();
    let places: Vec<(u64, u64, u64, &str)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_u64().unwrap();
            (number("stage"), number("step"), number("samples"), row["kind"].as_str().unwrap())
        })
        .collect();
    let meanwhile = [15, 30, 45, 60].into_iter();
    let meanwhile =
        meanwhile.flat_map(|step| ["zero_shot", "held_out_loss"].map(|kind| (0, step, step * 16, kind)));
    let after = [(1, 0, 960, "zero_shot"), (1, 0, 960, "retrieval")];
    let end = [(3, 0, 1600, "zero_shot"), (3, 0, 1600, "held_out_loss")];
    assert_eq!(places, meanwhile.chain(after).chain(end).collect::<Vec<_>>());
    assert!(there.path().join("whole/examples/stage1-1.json").exists());
    assert!(!there.path().join("whole/examples/stage0-0.json").exists());

    let compare = |runs: &[&str]| flip(there.path(), &[&["compare"], runs].concat()).output().unwrap();
    let done = compare(&["whole", "without"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let table = String::from_utf8(done.stdout).unwrap();
    assert!(table.contains("stages.0.evaluate.every"), "{table}");
    assert!(fs::read_to_string(there.path().join("compare.html")).unwrap().ends_with("</html>\n"));
    let nothing = compare(&["whole", "nowhere"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nowhere holds no run"));
}

#[test]
fn an_interrupt_saves_first_and_says_how_to_go_on() {
    let (there, whole, _) = prepared();
    for (signal, stage) in [("INT", 0), ("TERM", 2)] {
        let out = format!("interrupted-{signal}");
        let run = there.path().join(&out);
        // Where everything else is slow, a run may end between the look and the signal: once more, then.
        let done = (0..50).find_map(|_| {
            let mut child = start(there.path(), &out, false).arg("--restart").spawn().unwrap();
            wait_for(&mut child, || logged(&run, Some(stage)) > 0);
            process::signal(child.id(), &format!("-{signal}"));
            let done = child.wait_with_output().unwrap();
            (done.status.code() != Some(0)).then_some(done)
        });
        let done = done.expect("fifty runs ended before the signal reached them");
        assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(String::from_utf8_lossy(&done.stderr).contains("--resume"));
        assert!(newest(&run).starts_with(&format!("stage{stage}")), "{}", newest(&run));
        finish(there.path(), &out, true);
        assert_left(&whole, &run, "interrupted");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used() {
    let (there, whole, _) = prepared();
    let checkpoints = there.path().join("whole/checkpoints");
    let mut names: Vec<PathBuf> =
        fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let newest = names.last().unwrap();
    let weights = newest.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let done = start(there.path(), "whole", true).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(said.contains(newest.file_name().unwrap().to_str().unwrap()), "{said}");
    assert!(said.contains("refused"), "{said}");
    assert_left(&whole, &there.path().join("whole"), "interrupted");
}

#[test]
fn a_run_is_neither_overwritten_nor_resumed_with_another_recipe() {
    let there = tempfile::tempdir().unwrap();
    let short = RECIPE.replace("Steps(60)", "Steps(3)").replace("Steps(40)", "Steps(6)");
    fs::write(there.path().join("recipe.ron"), short.replace("warmup: Steps(5)", "warmup: Steps(1)"))
        .unwrap();
    finish(there.path(), "run", false);
    let again = start(there.path(), "run", false).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    let other = start(there.path(), "run", true).args(["--set", "seed=4"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("seed: 4"), "{other:?}");
}
