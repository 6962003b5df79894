//! Whole runs in this process, on any number of ranks, stopped and resumed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flip::interpreter::{newest, run, Environment, InterpreterError};
use flip::log::Progress;
use flip::ranks::{agree, Ranks, Together};
use flip::recipe::{read_text, write, Recipe};
use flip::record::{Entry, RunFolder};
use flip::train::Ended;

use crate::process::lines_logged;

pub use crate::process::{assert_left, left};

/// A recipe of a tiny model; its stages are given, and a batch has four parts.
pub fn recipe(stages: &str) -> String {
    format!(
        r#"(
    name: "options", seed: 3, device: Cpu, threads: 1,
    model: (
        image: (size: 32, patch: 8, width: 16, depth: 2, heads: 2),
        text: (tokenizer: Train(captions: 200), vocab_size: 300, context: 12, width: 16, depth: 2, heads: 2),
        embed_dim: 16,
    ),
    data: (
        train: Scenes(size: 32, split: Train),
        validation: Scenes(size: 32, split: HeldOut, samples: 60),
        workers: 1,
    ),
    stages: [{stages}],
    checkpoints: (every: Steps(5), keep: 2),
    metrics: (every_steps: 1),
    ranks: (parts: 4),
)"#
    )
}

/// A folder of runs.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn run(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run to its end.
    pub fn whole(&self, name: &str, text: &str, sets: &[&str], ranks: usize) -> PathBuf {
        let path = self.run(name);
        assert_eq!(go(&path, text, sets, ranks, None).unwrap(), Ended::Complete);
        path
    }

    /// A run that is stopped once it has logged so many lines, and resumed on as many ranks as each number says.
    pub fn stopped(
        &self,
        name: &str,
        text: &str,
        sets: &[&str],
        lines: &[usize],
        ranks: &[usize],
    ) -> PathBuf {
        let path = self.run(name);
        for (stop, &ranks) in lines.iter().map(Some).chain([None]).zip(ranks) {
            let ended = go(&path, text, sets, ranks, stop.copied()).unwrap();
            assert_eq!(ended == Ended::Interrupted, stop.is_some(), "{name} at {stop:?} lines");
        }
        path
    }
}

/// Starts or resumes a run, and stops it once it has logged so many lines.
pub fn go(
    path: &Path,
    text: &str,
    sets: &[&str],
    ranks: usize,
    stop: Option<usize>,
) -> Result<Ended, InterpreterError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let recipe = read_text("options.ron", text, &sets).unwrap_or_else(|errors| panic!("{errors}"));
    let resume = path.join("recipe.ron").exists();
    let folder = RunFolder::enter(path, if resume { Entry::Resume } else { Entry::Start }).unwrap();
    folder.replace(&folder.recipe(), write(&recipe).as_bytes()).unwrap();
    let interrupt = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = || {
            while !done.load(Ordering::Relaxed) {
                if stop.is_some_and(|lines| lines_logged(path) >= lines) {
                    interrupt.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        let watching = scope.spawn(watch);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            on(&recipe, &folder, resume, ranks, &interrupt)
        }));
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn on(
    recipe: &Recipe,
    folder: &RunFolder,
    resume: bool,
    count: usize,
    interrupt: &AtomicBool,
) -> Result<Ended, InterpreterError> {
    let of_rank = |ranks: Together| {
        let progress = Progress::lines(Duration::MAX);
        let members = agree(&ranks, "CPU", &[])?;
        let first = ranks.rank() == 0;
        let from = if resume && first { newest(folder)? } else { None };
        let folder = first.then_some(folder);
        let environment =
            Environment { ranks: &ranks, members: &members, folder, progress: &progress, interrupt };
        run(recipe, from, &environment)
    };
    std::thread::scope(|scope| {
        let of_rank = &of_rank;
        let threads: Vec<_> =
            Together::of(count).into_iter().map(|ranks| scope.spawn(move || of_rank(ranks))).collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        ended.into_iter().next().expect("a rank")
    })
}

/// Lines of the metrics of a run.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The newest checkpoint of a run.
pub fn checkpoint(run: &Path) -> PathBuf {
    let names = std::fs::read_dir(run.join("checkpoints")).unwrap();
    names.map(|entry| entry.unwrap().path()).max().expect("a checkpoint")
}
