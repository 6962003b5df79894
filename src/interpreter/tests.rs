//! Runs whose process ends, or whose disk is full, between any two changes on the disk: resumed, each leaves what an
//! undisturbed run leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::run_alone;
use crate::log::Progress;
use crate::recipe::read_text;
use crate::record::{Entry, RunFolder, RunPaths};
use crate::report;
use crate::terminal::say_error;
use crate::whole_file::interrupted::{taken, STEP};

/// Every kind of file, as small as may be.
const RECIPE: &str = r#"(
    name: "tiny",
    device: Cpu,
    threads: 1,
    model: (
        image: (size: 16, patch: 8, width: 8, depth: 1, heads: 1),
        text: (tokenizer: Train(captions: 40), vocab_size: 200, context: 8, width: 8, depth: 1, heads: 1),
        embed_dim: 8,
    ),
    data: (train: Scenes(size: 16, split: Train), validation: Scenes(size: 16, split: HeldOut, samples: 6), workers: 1),
    stages: [
        Pretrain(
            length: Steps(3), batch: 4, image_mask: Random(0.5),
            schedule: Constant(lr: Absolute(1e-3), warmup: Steps(1)),
            evaluate: (every: Steps(2), evaluators: [HeldOutLoss(name: "loss", batch: 3)]),
        ),
        Evaluate([Retrieval(name: "held out")]),
    ],
    checkpoints: (every: Steps(1), keep: 1),
    metrics: (every_steps: 1),
)"#;

/// Folder in which the child makes its run, and file in which it says how many steps it took.
const FOLDER: &str = "FLIP_TEST_RUN_FOLDER";
const STEPS: &str = "FLIP_TEST_STEPS";

/// Run of the child processes of the test below; without them there is nothing to do.
#[test]
fn makes_the_run_of_its_parent() {
    let Some(root) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let recipe = read_text("tiny.ron", RECIPE, &[])?;
        let resume = RunPaths::new(&root).holds_run();
        let folder = RunFolder::enter(&root, if resume { Entry::Resume } else { Entry::Start })?;
        let progress = Progress::lines(Duration::MAX);
        run_alone(&recipe, resume, &folder, &progress, &AtomicBool::new(false))?;
        report::write(folder.root())?;
        Ok(())
    };
    if let Err(error) = run() {
        say_error!("{error}");
        std::process::exit(1);
    }
    if let Some(steps) = std::env::var_os(STEPS) {
        fs::write(steps, taken().to_string()).unwrap();
    }
}

fn child(root: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "interpreter::tests::makes_the_run_of_its_parent", "--nocapture"]);
    child.env(FOLDER, root).env_remove(STEP);
    child
}

/// Every file below a folder, by its path there.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, found),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// True for files that depend on the clock, or on how often a run was resumed; of these only whether they are whole is asked. Event
/// files are one for each start.
fn differs_by_nature(name: &str) -> bool {
    let by_clock = ["timing.jsonl", "report.html", "identity.json", "processes.json"].contains(&name);
    let of_checkpoint = name.ends_with("/state.json") || name.ends_with("/manifest.json");
    by_clock || of_checkpoint || name.starts_with("curves/") || name.starts_with("tensorboard/")
}

fn without_events(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    files.keys().map(String::as_str).filter(|name| !name.starts_with("tensorboard/")).collect()
}

#[test]
fn a_run_that_ends_or_meets_a_full_disk_at_any_step_of_writing_is_resumed_to_the_same_bytes() {
    let there = tempfile::tempdir().unwrap();
    let (whole, steps) = (there.path().join("whole"), there.path().join("steps"));
    let done = child(&whole).env(STEPS, &steps).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let expected = files(&whole);
    let listed = [
        ".lock",
        "checkpoints/stage0-step00000003/manifest.json",
        "checkpoints/stage0-step00000003/model.safetensors",
        "checkpoints/stage0-step00000003/optimizer.safetensors",
        "checkpoints/stage0-step00000003/state.json",
        "complete",
        "curves/grad_norm.svg",
        "curves/images_per_s.svg",
        "curves/logit_scale.svg",
        "curves/loss.svg",
        "curves/lr.svg",
        "eval.json",
        "examples/stage1-0.json",
        "identity.json",
        "masks.png",
        "metrics.jsonl",
        "processes.json",
        "recipe.ron",
        "report.html",
        "timing.jsonl",
        "tokenizer.json",
    ];
    assert_eq!(without_events(&expected), listed);

    let steps: u64 = fs::read_to_string(&steps).unwrap().parse().unwrap();
    assert!(steps > 100, "{steps}");
    let next = AtomicU64::new(2);
    let disturb = || loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let (step, how) = (turn / 2, if turn.is_multiple_of(2) { "abort" } else { "full" });
        if step > steps {
            return;
        }
        let root = there.path().join(format!("{how}-{step}"));
        let disturbed = child(&root).env(STEP, format!("{how}:{step}")).output().unwrap();
        let said = String::from_utf8_lossy(&disturbed.stderr);
        match how {
            "abort" => assert_eq!(disturbed.status.code(), None, "step {step}: {said}"),
            // What is only a comfort, and what comes after the end, may be left out; nothing may panic.
            _ => assert!(matches!(disturbed.status.code(), Some(0 | 1)), "step {step}: {said}"),
        }
        let resumed = child(&root).output().unwrap();
        let said = String::from_utf8_lossy(&resumed.stderr);
        assert!(resumed.status.success(), "{how} at step {step}, resumed: {said}");
        let left = files(&root);
        assert_eq!(without_events(&left), listed, "{how} at step {step}");
        for (name, bytes) in expected.iter().filter(|(name, _)| !differs_by_nature(name)) {
            assert!(*bytes == left[name], "{how} at step {step}: {name} is another one");
        }
        assert!(left["report.html"].ends_with(b"</html>\n"), "{how} at step {step}");
        fs::remove_dir_all(&root).unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(disturb);
        }
    });
}
