//! The program in a process of its own, as tests start and watch it, and the smallest recipe that they give it.

// Each test uses some of these.
#![allow(dead_code, unused_macros, unused_imports)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A recipe of a tiny model on the CPU; `$fields` are its other fields, as a literal.
macro_rules! tiny_recipe {
    ($fields:literal) => {
        concat!(
            "Recipe(
    seed: 3,
    device: Cpu,
    model: (
        image: (size: 32, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 200), vocab_size: 300, context: 12, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),",
            $fields,
            ")\n"
        )
    };
}
pub(crate) use tiny_recipe;

/// Long enough for any of these runs on a slow machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program with these arguments, in a working directory.
pub fn flip(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flip"));
    command.current_dir(folder).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Messages and output of a process.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Output of a process that has to end with this exit code.
#[track_caller]
pub fn ends_with(code: i32, mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    said
}

/// Output of a process that has to end well.
#[track_caller]
pub fn done(command: Command) -> String {
    ends_with(0, command)
}

/// Waits for the end of a process, not for ever. Its messages are read meanwhile, so that a full pipe stops nobody.
pub fn ended(mut child: Child, patience: Duration) -> Output {
    let began = Instant::now();
    let mut said = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut said, &mut all).map(|_| all)
    });
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > patience {
            child.kill().unwrap();
            let said = reader.join().unwrap().unwrap_or_default();
            panic!("still running after {patience:?}:\n{}", String::from_utf8_lossy(&said));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().unwrap();
    Output { status, stdout: Vec::new(), stderr: reader.join().unwrap().unwrap_or_default() }
}

/// Waits until a process got far enough, or ended: tests that go by progress hold on a busy machine too.
pub fn wait_for(child: &mut Child, mut far_enough: impl FnMut() -> bool) {
    while !far_enough() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal, `-INT` for example. A process that has just ended needs none.
pub fn signal(process: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status();
}

/// Lines of `metrics.jsonl` of a run.
pub fn lines_logged(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Files that a run must leave the same however it was disturbed: metrics, results, and the last checkpoint.
pub fn left(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut checkpoints: Vec<PathBuf> =
        fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    let last = checkpoints.pop().unwrap();
    let mut files = vec![run.join("metrics.jsonl"), run.join("eval.json"), run.join("tokenizer.json")];
    files.extend(["model.safetensors", "optimizer.safetensors"].map(|name| last.join(name)));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    files.into_iter().map(read).collect()
}

/// A run has [left] these bytes.
#[track_caller]
pub fn assert_left(expected: &[(String, Vec<u8>)], run: &Path, what: &str) {
    for ((name, before), (_, after)) in expected.iter().zip(left(run)) {
        assert!(*before == after, "{what}: {name} in {} is not as expected", run.display());
    }
}
