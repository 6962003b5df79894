//! Inputs in a process of their own, whose memory and time are limited: what ends it is put down to its input.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::change::change;
use super::kinds::{Kind, Seed, KINDS};

/// Memory of the process, bytes: what it may map.
const MEMORY: u64 = 2 << 30;
/// Time of an input.
const TIME: Duration = Duration::from_secs(20);
/// The test that runs a batch where this variable says which one.
const BATCH: &str = "FLIP_MUTATED_BATCH";
const TEST: &str = "a_batch_of_mutated_inputs";

/// What an input did that none may.
#[derive(Debug)]
pub struct Finding {
    pub kind: &'static str,
    pub number: u64,
    pub how: String,
}

/// Input `number` of a kind and the name of the file that it was made of.
fn input(kind: &Kind, seeds: &[Seed], number: u64) -> (String, Vec<u8>) {
    let salt = kind.name.bytes().fold(0, |salt: u64, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
    let mut rng = ChaCha8Rng::seed_from_u64(salt ^ number);
    let (name, bytes) = &seeds[rng.gen_range(0..seeds.len())];
    let (_, other) = &seeds[rng.gen_range(0..seeds.len())];
    (name.clone(), change(&mut rng, bytes, other))
}

/// Runs inputs `0..count` of a kind in processes of their own.
pub fn run(kind: &'static Kind, count: u64) -> Vec<Finding> {
    let folder = tempfile::tempdir().expect("a folder");
    (kind.prepare)(folder.path());
    let told = folder.path().join("told");
    let (mut findings, mut next) = (Vec::new(), 0);
    while next < count {
        File::create(&told).expect("a file");
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([TEST, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(BATCH, format!("{} {next} {count} {}", kind.name, folder.path().display()))
            // Address space that nobody uses counts as well.
            .env("MALLOC_ARENA_MAX", "2")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let stderr = child.stderr.take().expect("its stderr");
        let said = std::thread::spawn(move || last_of(stderr));
        let mut late = false;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a process") {
                break status;
            }
            let since = fs::metadata(&told).and_then(|told| told.modified()).expect("a file");
            if SystemTime::now().duration_since(since).unwrap_or_default() > TIME {
                late = true;
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = said.join().unwrap_or_default();
        let lines = fs::read_to_string(&told).expect("what was told");
        let mut begun = None;
        for line in lines.lines() {
            match line.split_once(' ') {
                Some(("panic", number)) => {
                    findings.push(Finding {
                        kind: kind.name,
                        number: number.parse().unwrap(),
                        how: "panic".into(),
                    });
                }
                Some(("begin", number)) => begun = Some(number.parse::<u64>().unwrap()),
                _ => begun = None,
            }
        }
        match begun {
            Some(number) => {
                let how = if late { format!("over {TIME:?}") } else { format!("{status}: {said}") };
                findings.push(Finding { kind: kind.name, number, how });
                next = number + 1;
            }
            None => {
                assert!(status.success(), "the process of {}: {status}: {said}", kind.name);
                next = count;
            }
        }
    }
    for finding in &findings {
        keep(kind, folder.path(), finding);
    }
    findings
}

/// The end of a stream.
fn last_of(mut stream: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Keeps the input of a finding.
fn keep(kind: &Kind, folder: &Path, finding: &Finding) {
    let (name, bytes) = input(kind, &(kind.seeds)(folder), finding.number);
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutated");
    fs::create_dir_all(&kept).expect("a folder");
    let path = kept.join(format!("{}-{}-{}", kind.name, finding.number, name.replace('/', "_")));
    fs::write(&path, bytes).expect("a file");
    println!("{} {}: {}: {}", finding.kind, finding.number, finding.how, path.display());
}

/// What the process does; nothing where it was not started by [`run`].
pub fn run_batch() {
    let Ok(batch) = std::env::var(BATCH) else { return };
    let mut fields = batch.splitn(4, ' ');
    let mut field = || fields.next().expect("a field").to_owned();
    let (kind, from, to, folder) = (field(), field(), field(), PathBuf::from(field()));
    let kind = KINDS.iter().find(|each| each.name == kind).expect("a kind");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let seeds = (kind.seeds)(&folder);
    assert!(!seeds.is_empty(), "{} has nothing to change", kind.name);
    limit_memory();
    let mut told = File::create(folder.join("told")).expect("a file");
    for number in from..to {
        let (name, bytes) = input(kind, &seeds, number);
        writeln!(told, "begin {number}").expect("told");
        let began = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| (kind.run)(&folder, &name, &bytes)));
        if began.elapsed() > Duration::from_secs(5) {
            eprintln!("{} {number}: {:?}", kind.name, began.elapsed());
        }
        writeln!(told, "{} {number}", if ran.is_ok() { "end" } else { "panic" }).expect("told");
    }
}

fn limit_memory() {
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both point to a limit, and the process holds nothing yet that the limits take away.
    let set =
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) | libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    assert_eq!(set, 0, "the limits of the process");
}
