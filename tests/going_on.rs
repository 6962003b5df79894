//! What a run goes on with: its own data, tokenizer and recipe, or what is amended and written down; and what ends it
//! with a checkpoint.

#![cfg(unix)]

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const RECIPE: &str = r#"
Recipe(
    name: "going on",
    seed: 3,
    device: Cpu,
    model: (
        image: (size: 16, patch: 8, width: 16, depth: 1, heads: 2),
        text: (tokenizer: Train(captions: 100), vocab_size: 300, context: 8, width: 16, depth: 1, heads: 2),
        embed_dim: 16,
    ),
    data: (train: SOURCE, workers: 2),
    stages: [
        Pretrain(
            length: Steps(12), batch: 8, image_mask: Random(0.5),
            schedule: Constant(lr: Absolute(1e-3), warmup: Steps(2)),
        ),
        Unmask(length: Steps(6), batch: 8, schedule: Constant(lr: Absolute(1e-4), warmup: Steps(1))),
    ],
    checkpoints: (every: Steps(4), keep: 9),
    metrics: (every_steps: 1),
)
"#;

const SCENES: &str = "Scenes(size: 16, split: Train)";

struct There {
    folder: tempfile::TempDir,
}

impl There {
    fn new(source: &str) -> There {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("recipe.ron"), RECIPE.replace("SOURCE", source)).unwrap();
        There { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn flip(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flip"));
        command.current_dir(self.path()).arg("run").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.flip(arguments).output().unwrap()
    }

    /// What a run says that ends well.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        said
    }

    /// What a run says that is refused with this exit code.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    /// A run as it is when it was killed after this checkpoint: later ones are taken away.
    fn back_to(&self, run: &str, checkpoint: &str) {
        let run = self.path().join(run);
        for entry in fs::read_dir(run.join("checkpoints")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap() > checkpoint {
                fs::remove_dir_all(path).unwrap();
            }
        }
        fs::remove_file(run.join("complete")).unwrap();
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        let checkpoint = self.path().join(run).join("checkpoints/stage1-step00000006");
        fs::read(checkpoint.join("model.safetensors")).unwrap()
    }

    fn metrics(&self, run: &str) -> String {
        fs::read_to_string(self.path().join(run).join("metrics.jsonl")).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

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

#[test]
fn what_changes_no_number_may_differ_and_the_folder_needs_no_recipe() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "whole", "--set", "seed=5", "--set", "data.workers=1"]);
    there.done(&["recipe.ron", "--out", "run", "--set", "seed=5"]);
    there.back_to("run", "stage0-step00000004");
    let other = [
        "--set",
        "threads=1",
        "--set",
        "checkpoints.every=Steps(5)",
        "--set",
        "data.storage.stall_limit_s=99",
    ];
    there.done(&[&["run", "--resume"], &other[..]].concat());
    assert_eq!(there.weights("run"), there.weights("whole"));
    assert_eq!(there.metrics("run"), there.metrics("whole"));
    let kept = fs::read_to_string(there.path().join("run/recipe.ron")).unwrap();
    assert!(kept.contains("threads: Some(1)") || kept.contains("threads: 1"), "{kept}");
    assert!(there.path().join("run/checkpoints/stage0-step00000010").exists());

    let refused = there.refused(&["run"], 2);
    assert!(refused.contains("flip run run --resume"), "{refused}");
    let refused = there.refused(&["recipe.ron", "--out", "run", "--resume", "--set", "stages.1.batch=4"], 2);
    assert!(refused.contains("seed: 5 there, seed: 3 now (cannot be amended)"), "{refused}");
    assert!(refused.contains("stages[1].batch: 8 there, stages[1].batch: 4 now"), "{refused}");
    assert!(refused.contains("--amend 'stages.1.batch=4'"), "{refused}");
}

#[test]
fn an_amendment_holds_from_its_step_on_and_is_written_down() {
    let there = There::new(SCENES);
    there.done(&["recipe.ron", "--out", "whole"]);
    there.done(&["recipe.ron", "--out", "run"]);
    there.back_to("run", "stage0-step00000008");
    let amend = ["--amend", "stages.0.schedule.lr=Absolute(0.0005)", "--amend", "stages.0.length=Steps(20)"];
    let told = there.done(&[&["run", "--resume"], &amend[..]].concat());
    assert!(
        told.contains("amended from stage 0, step 8 on: stages[0].length: Steps(12) -> Steps(20)"),
        "{told}"
    );

    let lines = |run: &str| -> Vec<Value> {
        there.metrics(run).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (whole, run) = (lines("whole"), lines("run"));
    assert_eq!(whole[..8], run[..8]);
    assert_eq!((whole[8]["lr"].as_f64(), run[8]["lr"].as_f64()), (Some(1e-3), Some(5e-4)));
    assert_eq!(run.len(), 26);

    let amendments: Value =
        serde_json::from_slice(&fs::read(there.path().join("run/amendments.json")).unwrap()).unwrap();
    let first = &amendments[0];
    assert_eq!(first["field"], "stages[0].schedule.lr");
    assert_eq!((&first["old"], &first["new"]), (&"Absolute(0.001)".into(), &"Absolute(0.0005)".into()));
    assert_eq!((&first["stage"], &first["step"], &first["samples"]), (&0.into(), &8.into(), &64.into()));
    assert!(first["when"].as_str().unwrap().starts_with("20"), "{first}");
    let page = fs::read_to_string(there.path().join("run/report.html")).unwrap();
    assert!(page.contains("Changed after the run had begun") && page.contains("stage 0, step 8"));

    // Given the recipe that the run was started with, it goes on with what was amended.
    let expected = (there.weights("run"), there.metrics("run"));
    there.back_to("run", "stage0-step00000012");
    there.done(&["recipe.ron", "--out", "run", "--resume"]);
    assert_eq!((there.weights("run"), there.metrics("run")), expected);

    let late = there.refused(&["run", "--resume", "--amend", "stages.0.batch=4"], 2);
    assert!(late.contains("stage 0 is done"), "{late}");
    for (fixed, why) in [("seed=4", "every random choice"), ("model.embed_dim=8", "the former model")] {
        let refused = there.refused(&["run", "--resume", "--amend", fixed], 2);
        assert!(
            refused.contains("cannot be changed while a run goes on") && refused.contains(why),
            "{refused}"
        );
    }
    let refused = there.refused(&["recipe.ron", "--out", "new", "--amend", "seed=4"], 2);
    assert!(refused.contains("needs --resume"), "{refused}");
}

#[test]
fn a_batch_is_not_amended_where_it_would_move_the_end_of_the_stage() {
    let there = There::new(SCENES);
    let in_samples = ["--set", "stages.0.length=Samples(96)"];
    there.done(&[&["recipe.ron", "--out", "run"], &in_samples[..]].concat());
    there.back_to("run", "stage0-step00000008");
    let refused = there.refused(&["run", "--resume", "--amend", "stages.0.batch=4"], 2);
    assert!(refused.contains("stages[0].length is not in steps"), "{refused}");
    there.done(&["run", "--resume", "--amend", "stages.0.length=Steps(16)", "--amend", "stages.0.batch=4"]);
    let last =
        there.metrics("run").lines().filter(|line| line.contains("\"stage\":0")).last().unwrap().to_owned();
    assert!(last.contains("\"step\":16,\"samples\":96,"), "{last}");
}

#[test]
fn a_scheduler_can_repeat_one_command() {
    let there = There::new(SCENES);
    let command = ["recipe.ron", "--out", "run", "--resume-or-start"];
    there.done(&command);
    let whole = there.weights("run");
    there.back_to("run", "stage0-step00000004");
    there.done(&command);
    assert_eq!(there.weights("run"), whole);
    fs::remove_dir_all(there.path().join("run")).unwrap();
    fs::create_dir(there.path().join("run")).unwrap();
    there.done(&command);
    assert_eq!(there.weights("run"), whole);
}

/// A run that takes long enough to be disturbed.
fn long(there: &There, out: &str) -> Child {
    let long = ["recipe.ron", "--out", out, "--set", "stages.0.length=Steps(1000000)"];
    there.flip(&[&long[..], &["--set", "checkpoints.every=Steps(1000000)"]].concat()).spawn().unwrap()
}

fn wait_until(mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a minute passed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn steps_logged(there: &There, run: &str) -> usize {
    fs::read_to_string(there.path().join(run).join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_hang_up_and_a_schedulers_warning_save_and_end_the_run() {
    let there = There::new(SCENES);
    for signal in ["HUP", "USR1"] {
        let child = long(&there, signal);
        wait_until(|| steps_logged(&there, signal) > 3);
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", said(&output));
        assert!(said(&output).contains(&format!("flip run {signal} --resume")), "{}", said(&output));
        assert_eq!(fs::read_dir(there.path().join(signal).join("checkpoints")).unwrap().count(), 1);
    }
}

#[test]
fn nohup_stays_in_force() {
    let there = There::new(SCENES);
    let flip = env!("CARGO_BIN_EXE_flip");
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh", flip, "run", "recipe.ron", "--out", "run"])
        .args(["--set", "stages.0.length=Steps(1000000)"])
        .current_dir(there.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| steps_logged(&there, "run") > 3);
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    let logged = steps_logged(&there, "run");
    wait_until(|| steps_logged(&there, "run") > logged + 50);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_folder_that_is_moved_away_ends_the_run_with_an_error() {
    let there = There::new(SCENES);
    let child = long(&there, "run");
    wait_until(|| steps_logged(&there, "run") > 3);
    fs::rename(there.path().join("run"), there.path().join("moved")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the run folder is no longer at run"), "{}", said(&output));
    assert!(!there.path().join("run").exists());
    assert!(!there.path().join("moved/complete").exists());
}

#[test]
fn a_task_of_srun_that_cannot_meet_the_others_is_refused() {
    let there = There::new(SCENES);
    let refused =
        there.flip(&["recipe.ron", "--out", "run"]).env("SLURM_STEP_NUM_TASKS", "4").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("--mpi=pmix"), "{}", said(&refused));
    assert!(!there.path().join("run").exists());
}
