//! Signals, and a folder that is moved away.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{lines_logged, said, signal as send};
use super::{There, SCENES};

/// A run that takes long enough to be disturbed.
fn long(there: &There, out: &str) -> Child {
    let long = ["recipe.ron", "--out", out, "--set", "stages.0.length=Steps(1000000)"];
    let mut flip = there.flip(&[&long[..], &["--set", "checkpoints.every=Steps(1000000)"]].concat());
    hearing_hang_ups(&mut flip).spawn().unwrap()
}

/// The tests themselves may run under nohup, which the program would inherit and keep to.
fn hearing_hang_ups(command: &mut Command) -> &mut Command {
    // SAFETY: `signal` is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    }
}

fn wait_until(mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a minute passed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_hang_up_and_a_schedulers_warning_save_and_end_the_run() {
    let there = There::new(SCENES);
    for signal in ["HUP", "USR1"] {
        let child = long(&there, signal);
        wait_until(|| lines_logged(&there.path().join(signal)) > 3);
        send(child.id(), &format!("-{signal}"));
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
    wait_until(|| lines_logged(&there.path().join("run")) > 3);
    send(child.id(), "-HUP");
    let logged = lines_logged(&there.path().join("run"));
    wait_until(|| lines_logged(&there.path().join("run")) > logged + 50);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_folder_that_is_moved_away_ends_the_run_with_an_error() {
    let there = There::new(SCENES);
    let child = long(&there, "run");
    wait_until(|| lines_logged(&there.path().join("run")) > 3);
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
