//! The files for clusters in examples/cluster, as far as one machine can try them: Slurm's commands are stood in for by
//! scripts that do with one task what Slurm does with many.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{There, SCENES};
use crate::process::{assert_left, left, said};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster").join(name)
}

/// Puts a script on the path of the commands.
fn command(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/bash\n{text}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `srun` runs its one task; at the first start it sends SIGUSR1 once the run has written metrics, as Slurm does before the
/// time of a job is over. `scontrol` notes what it is asked for.
fn slurm(folder: &Path, run: &Path) {
    let metrics = run.join("metrics.jsonl");
    let srun = format!(
        r#"echo "$@" >> {calls}
while [[ "$1" == --* ]]; do shift; done
"$@" &
task=$!
if [ ! -e {warned} ]; then
    touch {warned}
    until [ -s {metrics} ]; do sleep 0.01; done
    kill -USR1 $task
fi
wait $task
"#,
        calls = folder.join("srun.txt").display(),
        warned = folder.join("warned").display(),
        metrics = metrics.display(),
    );
    command(folder, "srun", &srun);
    command(folder, "scontrol", &format!("echo \"$@\" >> {}\n", folder.join("scontrol.txt").display()));
    command(folder, "flip", &format!("exec {} \"$@\"\n", env!("CARGO_BIN_EXE_flip")));
}

#[test]
fn a_slurm_job_saves_before_its_end_and_is_queued_again() {
    let there = There::new(SCENES);
    // Long enough to be interrupted in the middle.
    let longer = ["--set", "stages.0.length=Steps(400)"];
    there.done(&[&["recipe.ron", "--out", "undisturbed"], &longer[..]].concat());
    let commands = there.path().join("commands");
    fs::create_dir(&commands).unwrap();
    let run = there.path().join("job");
    slurm(&commands, &run);
    let job = || -> Output {
        let path = format!("{}:{}", commands.display(), std::env::var("PATH").unwrap());
        let mut script = Command::new("bash");
        script.arg(example("slurm.sbatch")).args(["recipe.ron", "job"]).args(longer);
        script.current_dir(there.path()).env("PATH", path);
        script.envs([("SLURM_JOB_ID", "4711"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "1")]);
        script.output().unwrap()
    };
    let first = job();
    assert_eq!(first.status.code(), Some(130), "{}", said(&first));
    assert_eq!(fs::read_to_string(commands.join("scontrol.txt")).unwrap(), "requeue 4711\n");
    let second = job();
    assert_eq!(second.status.code(), Some(0), "{}", said(&second));
    assert_eq!(fs::read_to_string(commands.join("scontrol.txt")).unwrap(), "requeue 4711\n", "once");
    assert!(fs::read_to_string(commands.join("srun.txt"))
        .unwrap()
        .starts_with("--mpi=pmix --cpu-bind=cores flip run"));
    assert_left(&left(&there.path().join("undisturbed")), &run, "a job that was queued again");
}

#[test]
fn a_wrong_recipe_is_not_queued_again() {
    let there = There::new(SCENES);
    let commands = there.path().join("commands");
    fs::create_dir(&commands).unwrap();
    slurm(&commands, &there.path().join("job"));
    fs::write(commands.join("warned"), "").unwrap();
    let mut script = Command::new("bash");
    script.arg(example("slurm.sbatch")).args(["absent.ron", "job"]).current_dir(there.path());
    script.env("PATH", format!("{}:{}", commands.display(), std::env::var("PATH").unwrap()));
    let output = script.env("SLURM_JOB_ID", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(!commands.join("scontrol.txt").exists());
    let usage = Command::new("bash").arg(example("slurm.sbatch")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(said(&usage).contains("RECIPE RUN_FOLDER"), "{}", said(&usage));
}
