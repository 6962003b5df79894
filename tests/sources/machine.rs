//! Runs on a machine that fails: no room to unpack, too few files, a folder that is away, shards that are replaced.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use super::*;

const RUN: &str = r#"
Recipe(
    name: "near", seed: 3, device: Cpu,
    model: (
        image: (size: 16, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 20), vocab_size: 270, context: 8, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),
    data: (
        train: WebDataset(shards: "DATA/*.tar", shuffle_shards: SHUFFLED),
        storage: (attempts: ATTEMPTS),
        workers: 2,
    ),
    stages: [Pretrain(length: Steps(STEPS), batch: 8, image_mask: Keep, schedule: Constant(lr: Absolute(1e-3), warmup: Steps(0)))],
    checkpoints: (every: Steps(1000000)),
    metrics: (every_steps: 1),
)
"#;

struct Case {
    folder: tempfile::TempDir,
    steps: u64,
    attempts: u64,
    shuffled: usize,
}

impl Case {
    /// Shards of 16 samples in `data`.
    fn new(shards: usize, steps: u64, attempts: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let case = Case { folder, steps, attempts, shuffled: 1 };
        std::fs::create_dir(case.data()).unwrap();
        for number in 0..shards {
            std::fs::write(case.shard(number), shard(number, 16)).unwrap();
        }
        case
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn shard(&self, number: usize) -> PathBuf {
        self.data().join(format!("{number:03}.tar"))
    }

    fn run_folder(&self, out: &str) -> PathBuf {
        self.folder.path().join(out)
    }

    /// The command, after `limits` in a shell.
    fn command(&self, out: &str, limits: &str, resume: bool) -> Command {
        let recipe = self.folder.path().join(format!("{out}.ron"));
        let text = RUN
            .replace("DATA", &self.data().display().to_string())
            .replace("STEPS", &self.steps.to_string())
            .replace("ATTEMPTS", &self.attempts.to_string())
            .replace("SHUFFLED", &self.shuffled.to_string());
        std::fs::write(&recipe, text).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits} exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_flip"));
        command.arg("run").arg(&recipe).arg("--out").arg(self.run_folder(out));
        command.args(resume.then_some("--resume"));
        command
    }

    fn start(&self, out: &str) -> Child {
        self.command(out, "", false).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn metrics(&self, out: &str) -> String {
        std::fs::read_to_string(self.run_folder(out).join("metrics.jsonl")).unwrap_or_default()
    }

    /// Waits for the first steps.
    fn wait_for_steps(&self, out: &str) {
        let began = Instant::now();
        while self.metrics(out).lines().count() < 3 {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn has_checkpoint(&self, out: &str) -> bool {
        std::fs::read_dir(self.run_folder(out).join("checkpoints"))
            .is_ok_and(|mut entries| entries.next().is_some())
    }
}

fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn a_data_folder_that_is_away_for_five_seconds_changes_nothing() {
    let case = Case::new(30, 1500, 8);
    let calm = case.start("calm").wait_with_output().unwrap();
    assert!(calm.status.success(), "{}", told(&calm));
    let child = case.start("away");
    case.wait_for_steps("away");
    let aside = case.folder.path().join("aside");
    std::fs::rename(case.data(), &aside).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let steps = case.metrics("away").lines().count();
    std::fs::rename(&aside, case.data()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && (steps as u64) < case.steps, "{}", told(&output));
    assert!(
        told(&output).contains("No such file or directory (os error 2); attempt 1 of 8"),
        "{}",
        told(&output)
    );
    assert_eq!(case.metrics("away"), case.metrics("calm"));
}

#[test]
fn a_data_folder_that_is_gone_ends_the_run_with_a_checkpoint() {
    let case = Case::new(30, 1_000_000, 3);
    let child = case.start("run");
    case.wait_for_steps("run");
    std::fs::rename(case.data(), case.folder.path().join("aside")).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = told(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("No such file or directory (os error 2); given up after 3 attempts"), "{text}");
    assert!(case.has_checkpoint("run"), "{text}");
    assert!(!text.contains("shard_"), "no shard is taken for a damaged one: {text}");
}

#[test]
fn shards_that_are_replaced_by_shorter_ones_end_the_run_with_a_checkpoint() {
    for in_place in [false, true] {
        let case = Case::new(30, 1_000_000, 3);
        let child = case.start("run");
        case.wait_for_steps("run");
        for number in 0..30 {
            let beside = case.data().join("beside");
            let target = if in_place { case.shard(number) } else { beside.clone() };
            std::fs::write(&target, shard(number, 5)).unwrap();
            if !in_place {
                std::fs::rename(&beside, case.shard(number)).unwrap();
            }
        }
        let output = child.wait_with_output().unwrap();
        let text = told(&output);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(".tar: it was changed while the run reads it"), "{text}");
        assert!(case.has_checkpoint("run"), "{text}");
    }
}

#[test]
fn a_run_without_room_to_unpack_ends_with_a_checkpoint_and_goes_on_when_there_is_room() {
    let case = Case::new(12, 40, 2);
    // The last is packed, and much longer than anything else that the run writes.
    let mut plain = shard(11, 16);
    plain.truncate(plain.len() - 1024);
    let mut builder = tar::Builder::new(plain);
    let mut header = tar::Header::new_ustar();
    header.set_size(4 << 20);
    builder.append_data(&mut header, "long.bin", &vec![0; 4 << 20][..]).unwrap();
    std::fs::write(case.shard(11), zstd::encode_all(&builder.into_inner().unwrap()[..], 1).unwrap()).unwrap();
    let calm = case.start("calm").wait_with_output().unwrap();
    assert!(calm.status.success(), "{}", told(&calm));
    // 2 MiB, or 1 where the shell counts half of a KiB; the signal would end the run before the error.
    let output = case.command("full", "trap '' XFSZ; ulimit -f 2048;", false).output().unwrap();
    let text = told(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("011.tar: cannot be unpacked into "), "{text}");
    assert!(text.contains("File too large (os error 27); given up after 2 attempts"), "{text}");
    assert!(case.has_checkpoint("full"), "{text}");
    let output = case.command("full", "", true).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(case.metrics("full"), case.metrics("calm"));
}

#[test]
fn more_shards_than_open_files_are_an_error_that_says_so() {
    let case = Case { shuffled: 80, ..Case::new(80, 10, 2) };
    let output = case.command("run", "ulimit -n 60;", false).output().unwrap();
    let text = told(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("Too many open files (os error 24)"), "{text}");
    assert!(!text.contains("its first"), "no shard is taken for a damaged one: {text}");
}
