//! Standard output and error that are closed, full, or a terminal that goes away.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{closed, files, finished_run, flip, full, said, shard, QUICKSTART, RECIPE};

/// Runs a command with its output closed, then full.
#[track_caller]
fn survives(folder: &Path, arguments: &[&str]) {
    let run = |out: Stdio| flip(folder, arguments).stdout(out).output().unwrap();
    let reader_gone = run(closed());
    assert_eq!(reader_gone.status.code(), Some(0), "{arguments:?}: {}", said(&reader_gone));
    assert!(!said(&reader_gone).contains("rror"), "{arguments:?}: {}", said(&reader_gone));
    let disk_full = run(full());
    assert_eq!(disk_full.status.code(), Some(1), "{arguments:?}: {}", said(&disk_full));
    let said = said(&disk_full);
    assert!(said.contains("error: cannot write to standard output: No space left on device"), "{said}");
    // Nobody is left to tell.
    let both = flip(folder, arguments).stdout(full()).stderr(full()).output().unwrap();
    assert_eq!(both.status.code(), Some(1), "{arguments:?}");
}

#[test]
fn commands_that_print_survive_a_closed_and_a_full_standard_output() {
    let there = tempfile::tempdir().unwrap();
    let folder = there.path();
    fs::write(folder.join("a.tar"), shard(&[("a", "an image"), ("b", "another")])).unwrap();
    let run = finished_run().to_str().unwrap();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["validate", QUICKSTART],
        &["validate", QUICKSTART, "--json"],
        &["sweep", QUICKSTART, "--seeds", "2", "--plan"],
        &["data", "inspect", "a.tar"],
        &["data", "inspect", "a.tar", "--samples", "--json"],
        &["card", run],
        &["compare", run, run],
    ] {
        survives(folder, arguments);
    }
}

#[test]
fn commands_that_write_files_have_written_them_when_their_output_is_full() {
    let there = tempfile::tempdir().unwrap();
    let run = finished_run().to_str().unwrap();
    fs::write(there.path().join("texts.txt"), "a red square\na blue circle\n").unwrap();
    for (out, arguments) in [
        ("onnx/image.onnx", &["export", run, "--to", "onnx", "--out", "onnx"][..]),
        ("texts.npy", &["embed", run, "--texts", "texts.txt", "--out", "texts.npy"]),
        ("compare.html", &["compare", run, run]),
        ("schema/recipe.json", &["schema", "export"]),
    ] {
        let done = flip(there.path(), arguments).stdout(full()).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", said(&done));
        assert!(said(&done).contains("cannot write to standard output"), "{arguments:?}: {}", said(&done));
        assert!(there.path().join(out).is_file(), "{arguments:?}: {}", said(&done));
    }
}

#[test]
fn an_error_that_cannot_be_told_keeps_its_exit_code() {
    let there = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (&["validate", "absent.ron"][..], 2),
        (&["no-such-command"], 2),
        (&["data", "inspect", "absent.tar"], 2),
        (&["compare", "absent"], 2),
    ] {
        for stream in [full as fn() -> Stdio, closed] {
            let done = flip(there.path(), arguments).stderr(stream()).output().unwrap();
            assert_eq!(done.status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn streams_that_were_closed_before_the_start_are_no_fault() {
    let there = tempfile::tempdir().unwrap();
    let script = "exec \"$0\" \"$@\" >&- 2>&-";
    let mut command = Command::new("sh");
    command.current_dir(there.path()).args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_flip"),
        "validate",
        QUICKSTART,
    ]);
    assert_eq!(command.status().unwrap().code(), Some(0));
}

/// What a run must leave the same, whatever it prints to.
fn left(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let same = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".safetensors") || ["metrics.jsonl", "eval.json", "complete"].contains(&name)
    };
    let all = files(run).into_iter().filter(same);
    let all: Vec<_> =
        all.map(|path| (path.strip_prefix(run).unwrap().to_owned(), fs::read(&path).unwrap())).collect();
    assert!(all.len() >= 4, "{:?}", files(run));
    all
}

#[test]
fn a_run_whose_streams_are_closed_or_full_leaves_the_bytes_of_any_other() {
    let expected = left(finished_run());
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
    for (out, stream, code) in [("closed", closed as fn() -> Stdio, 0), ("full", full, 1)] {
        let arguments = ["run", "recipe.ron", "--out", out];
        let done = flip(there.path(), &arguments).stdout(stream()).stderr(stream()).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{out}");
        assert!(left(&there.path().join(out)) == expected, "{out}");
        assert!(there.path().join(out).join("report.html").is_file());
    }
}

/// A pseudo-terminal: the side of the terminal window, and that of the program.
fn terminal() -> (File, OwnedFd) {
    let (mut window, mut program) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let (no_name, no_settings) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: the pointers are to two integers and a size, which openpty fills and reads before it returns.
    let opened = unsafe { libc::openpty(&mut window, &mut program, no_name, no_settings, &size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    for side in [window, program] {
        // SAFETY: both were opened above. The child gets copies; no side may stay open in it beside them.
        unsafe { libc::fcntl(side, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: both were opened above and belong to nobody else.
    unsafe { (File::from_raw_fd(window), OwnedFd::from_raw_fd(program)) }
}

#[test]
fn a_terminal_that_goes_away_during_a_run_is_not_missed() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
    // Long enough to be in the middle of it.
    let run =
        |out| flip(there.path(), &["run", "recipe.ron", "--set", "stages.0.length=Steps(400)", "--out", out]);
    let undisturbed = run("undisturbed").output().unwrap();
    assert!(undisturbed.status.success(), "{}", said(&undisturbed));
    let (mut window, program) = terminal();
    let mut child =
        run("run").env("TERM", "xterm").stdout(program.try_clone().unwrap()).stderr(program).spawn().unwrap();
    // The bar of the training stage is on the screen when the window is closed.
    let mut seen = String::new();
    let mut bytes = [0; 256];
    while !seen.contains("/3,200 images") {
        let read = window.read(&mut bytes).unwrap();
        assert!(read > 0, "{seen}");
        seen += &String::from_utf8_lossy(&bytes[..read]);
    }
    assert!(child.try_wait().unwrap().is_none(), "the run was over before the terminal went away: {seen}");
    drop(window);
    let began = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if began.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("the run hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(left(&there.path().join("run")) == left(&there.path().join("undisturbed")));
}
