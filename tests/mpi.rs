//! Runs of several processes under `mpirun`, more of them than this machine may have cores: the same numbers on any number
//! of ranks, across a stop too; ranks that differ, die or stop.
//!
//! Built with the feature `mpi` only. Where there is no `mpirun`, it fails and says which package has it.

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use process::{assert_left, ended, left, lines_logged, signal, tiny_recipe, PATIENCE};
use rand::{Rng, SeedableRng};

/// Every kind of stage, checkpoints close together, and parts for up to four ranks.
const RECIPE: &str = tiny_recipe!(
    r#"
    name: "ranks",
    threads: 1,
    data: (
        train: Scenes(size: 32, split: Train),
        validation: Scenes(size: 32, split: HeldOut, samples: 100),
        workers: 1,
    ),
    stages: [
        Pretrain(
            length: Steps(40), batch: 24, micro_batch: 3, image_mask: Random(0.5), text_mask: Frequency(0.25),
            schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(5)), clip_grad_norm: 1.0,
            evaluate: (every: Steps(20), evaluators: [ZeroShot(name: "held out")]),
        ),
        Evaluate([ZeroShot(name: "held out", classes: Source()), Retrieval(name: "held out")]),
        Unmask(length: Steps(20), batch: 16, schedule: Constant(lr: Absolute(1e-4), warmup: Steps(5))),
    ],
    checkpoints: (every: Steps(7), keep: 2),
    metrics: (every_steps: 1),
    ranks: (parts: 4),
"#
);

struct Place(tempfile::TempDir);

impl Place {
    fn new(recipe: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("recipe.ron"), recipe).unwrap();
        Place(folder)
    }

    fn run(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// So many ranks of `flip run`; one is started without a launcher.
    fn command(&self, ranks: usize, arguments: &[&str]) -> Command {
        let flip = env!("CARGO_BIN_EXE_flip");
        let mut command = match ranks {
            1 => Command::new(flip),
            _ => {
                let mut mpirun = mpirun(self.0.path());
                mpirun.args(["-n", &ranks.to_string(), flip]);
                mpirun
            }
        };
        command.current_dir(self.0.path()).args(["run", "recipe.ron", "--out"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null());
        command
    }

    fn finish(&self, ranks: usize, arguments: &[&str]) -> String {
        let Output { status, stderr, .. } = ended(self.command(ranks, arguments).spawn().unwrap(), PATIENCE);
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(status.success(), "{ranks} ranks, {arguments:?}: {status}\n{said}");
        said
    }
}

/// With a folder of its own for what it keeps while it runs: two that begin at once trip over each other in /tmp.
fn mpirun(folder: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--allow-run-as-root", "--mca", "orte_tmpdir_base"]).arg(folder);
    command
}

/// Processes of a rank of the run in this folder: all that mpirun started, in the order of their rank.
fn processes(out: &Path) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let rank = environment.split('\0').find_map(|set| set.strip_prefix("OMPI_COMM_WORLD_RANK="));
        let here = arguments.split('\0').any(|argument| Path::new(argument) == out);
        if let (Some(rank), true) = (rank.and_then(|rank| rank.parse().ok()), here) {
            found.push((rank, process));
        }
    }
    found.sort();
    found
}

/// Waits until the metrics of a run have so many lines.
fn wait_for_lines(run: &Path, lines: usize) {
    let began = Instant::now();
    while lines_logged(run) < lines {
        assert!(began.elapsed() < PATIENCE, "{} does not get on", run.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn there_is_an_mpirun() {
    let found = Command::new("mpirun").arg("--version").output();
    assert!(found.is_ok_and(|found| found.status.success()), "mpirun is missing: apt install openmpi-bin");
}

#[test]
fn any_number_of_ranks_leaves_the_same_bytes() {
    let place = Place::new(RECIPE);
    place.finish(1, &["one"]);
    let shard = ["--set", "ranks.shard=Optimizer"];
    for (ranks, set) in [(2, &[][..]), (3, &shard[..]), (4, &[]), (2, &shard[..])] {
        let name = format!("of{ranks}");
        let said = place.finish(ranks, &[&[name.as_str(), "--restart"], set].concat());
        assert_left(&left(&place.run("one")), &place.run(&name), &format!("{ranks} ranks"));
        // One voice: every line is of rank 0, and the others have files.
        assert_eq!(said.matches("run \"ranks\"").count(), 1, "{said}");
        for rank in 1..ranks {
            let log = place.run(&name).join(format!("ranks/rank{rank:04}.log"));
            assert!(fs::read_to_string(&log).unwrap().contains("computing on the CPU"), "{}", log.display());
        }
    }
}

/// Shards of so many samples, every sixth of them without an image that can be read.
fn write_shards(folder: &Path, sizes: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    for (shard, &samples) in sizes.iter().enumerate() {
        let mut builder = tar::Builder::new(fs::File::create(folder.join(format!("{shard}.tar"))).unwrap());
        for sample in 0..samples {
            let image = image::RgbImage::from_fn(24, 20, |x, y| {
                image::Rgb([8 * x as u8 + sample, 9 * y as u8, 20 * shard as u8])
            });
            let mut png = std::io::Cursor::new(Vec::new());
            image.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let png = if sample % 6 == 5 { b"no image".to_vec() } else { png.into_inner() };
            let caption = format!("image {sample} of shard {shard}").into_bytes();
            for (ending, bytes) in [("png", png), ("txt", caption)] {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, format!("{sample:03}.{ending}"), &bytes[..]).unwrap();
            }
        }
        builder.into_inner().unwrap();
    }
}

/// Shards in lanes, with a mix of two sets, some epochs long.
fn shards_recipe() -> String {
    let source = r#"Mix([(WebDataset(shards: "data/*.tar", shuffle_shards: 2), 3), (WebDataset(shards: "more/*.tar"), 1)])"#;
    RECIPE
        .replace("Scenes(size: 32, split: Train)", source)
        .replace("workers: 1,", "workers: 1, lanes: 8, limits: (broken_share: 1.0),")
}

#[test]
fn lanes_of_shards_leave_the_same_bytes_on_any_number_of_ranks_and_across_stops() {
    let place = Place::new(&shards_recipe());
    write_shards(&place.run("data"), &[17, 40, 9, 31, 22, 28, 13, 50]);
    write_shards(&place.run("more"), &[19, 25]);
    place.finish(1, &["one"]);
    let index = fs::read(place.run("one").join("index.json")).unwrap();
    for ranks in [2, 3, 4] {
        let name = format!("of{ranks}");
        place.finish(ranks, &[&name]);
        assert_left(&left(&place.run("one")), &place.run(&name), &format!("{ranks} ranks"));
        assert!(fs::read(place.run(&name).join("index.json")).unwrap() == index, "{ranks} ranks counted");
    }
    let out = place.run("stopped");
    let name = out.to_str().unwrap().to_owned();
    for (ranks, lines, resume) in [(4, 9, &[][..]), (3, 25, &["--resume"][..])] {
        let run = place.command(ranks, &[&[name.as_str()], resume].concat()).spawn().unwrap();
        wait_for_lines(&out, lines);
        signal(processes(&out)[1].1, "-TERM");
        assert_eq!(ended(run, PATIENCE).status.code(), Some(130));
    }
    place.finish(1, &[&name, "--resume"]);
    assert_left(&left(&place.run("one")), &out, "four ranks, then three, then one");
}

#[test]
fn a_rank_with_other_shards_is_refused_before_the_first_step() {
    let place = Place::new(&shards_recipe().replace("\"data/", "\"all/").replace("\"more/", "\"all/"));
    for rank in 0..2 {
        write_shards(&place.run(&format!("rank{rank}/all")), &[17, 40, 9]);
    }
    let other = place.run("rank1/all/1.tar");
    let whole = fs::read(&other).unwrap();
    let mut changed = whole.clone();
    changed[700] ^= 1;
    let refused = |expected: &str| {
        let out = place.run("run");
        let script = format!(
            "cd rank$OMPI_COMM_WORLD_RANK && exec {} run ../recipe.ron --restart --out {}",
            env!("CARGO_BIN_EXE_flip"),
            out.display()
        );
        let mut command = mpirun(place.0.path());
        command.current_dir(place.0.path()).args(["-n", "2", "sh", "-c", &script]);
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("rank 1 of 2") && said.contains(expected), "{said}");
        assert!(said.contains("than rank 0 (hash "), "{said}");
        assert_eq!(lines_logged(&out), 0);
    };
    fs::write(&other, &whole[..whole.len() - 512]).unwrap();
    refused(&format!("all/1.tar has {} bytes instead of {} bytes", whole.len() - 512, whole.len()));
    fs::write(&other, &changed).unwrap();
    refused("all/1.tar has other contents of the same length (checksum ");
    fs::remove_file(&other).unwrap();
    refused(&format!("all/1.tar ({} bytes) is missing", whole.len()));
}

#[test]
fn timing_tells_of_every_rank() {
    let place = Place::new(RECIPE);
    place.finish(3, &["of3"]);
    let rows = fs::read_to_string(place.run("of3").join("timing.jsonl")).unwrap();
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let ranks = row["ranks"].as_array().unwrap();
        assert_eq!(ranks.len(), 3, "{row}");
        let encode = |rank: &serde_json::Value| rank["encode_ms"].as_f64().unwrap();
        assert!(ranks
            .iter()
            .all(|rank| (0.0..row["step_ms"].as_f64().unwrap() + 1.0).contains(&encode(rank))));
        assert!(ranks.iter().all(|rank| rank["data_ms"].as_f64().unwrap() >= 0.0), "{row}");
    }
    assert_eq!(rows.lines().count(), 60);
    place.finish(1, &["one"]);
    assert!(!fs::read_to_string(place.run("one").join("timing.jsonl")).unwrap().contains("ranks"));
}

/// Small drawings in a folder a class; some files among them are no images.
fn drawings(folder: &Path, images: usize) {
    for number in 0..images {
        let (class, shade) = (number % 3, (number * 29 % 200) as u8);
        let there = folder.join(["blue", "green", "red"][class]);
        fs::create_dir_all(&there).unwrap();
        let file = there.join(format!("{number:03}.png"));
        let mut pixel = [shade / 3; 3];
        pixel[2 - class] = 255 - shade;
        let drawn = image::RgbImage::from_fn(20, 24, |x, y| {
            image::Rgb(pixel.map(|value| value ^ ((x + y * number as u32) % 7) as u8))
        });
        drawn.save(&file).unwrap();
        if number % 11 == 4 {
            fs::write(file, b"no image").unwrap();
        }
    }
}

/// Every rank reads its own samples; broken ones among them change nothing, nor do sets with fewer samples than ranks.
#[test]
fn evaluations_have_the_same_bytes_on_any_number_of_ranks() {
    let recipe = tiny_recipe!(
        r#"
        name: "evaluated",
        threads: 1,
        data: (
            train: Scenes(size: 32, split: Train), validation: Folder(path: "test"), workers: 2,
            limits: (broken_share: 0.5),
        ),
        stages: [
            Evaluate([
                ZeroShot(name: "whole", classes: Source()),
                ZeroShot(name: "masked", classes: Source(), image_mask: Random(0.5)),
                ZeroShot(name: "few", data: Folder(path: "few"), classes: Source()),
                Retrieval(name: "retrieval"),
                NearestNeighbours(name: "neighbours", train: Folder(path: "train"), k: 5),
                FewShot(name: "few shot", train: Folder(path: "train"), shots: [2]),
                HeldOutLoss(name: "loss", batch: 10),
            ]),
        ],
        ranks: (parts: 4),
    "#
    );
    let place = Place::new(recipe);
    for (name, images) in [("test", 300), ("train", 90), ("few", 3)] {
        drawings(&place.run(name), images);
    }
    let said = place.finish(1, &["one"]);
    let whole = fs::read(place.run("one/eval.json")).unwrap();
    assert!(said.contains("27 image_decode"), "{said}");
    for ranks in [2, 3, 4] {
        let name = format!("of{ranks}");
        let said = place.finish(ranks, &[&name]);
        assert!(fs::read(place.run(&name).join("eval.json")).unwrap() == whole, "on {ranks} ranks");
        assert!(said.contains("27 image_decode"), "{said}");
        let example = |run: &str| fs::read(place.run(run).join("examples/stage0-3.json")).unwrap();
        assert!(example("one") == example(&name), "examples on {ranks} ranks");
    }
    // Data that one rank does not have ends all of them: it runs in a folder without it.
    let elsewhere = place.run("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(place.run("recipe.ron"), elsewhere.join("recipe.ron")).unwrap();
    let out = place.run("without").display().to_string();
    let flip = [env!("CARGO_BIN_EXE_flip"), "run", "recipe.ron", "--out", &out];
    let mut command = mpirun(&place.run(""));
    command.current_dir(place.run("")).args(["-n", "1"]).args(flip).args([":", "-n", "1", "--wdir"]);
    command.arg(&elsewhere).args(flip).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let Output { status, stderr, .. } = ended(command.spawn().unwrap(), PATIENCE);
    let said = String::from_utf8_lossy(&stderr);
    assert!(!status.success() && said.contains("rank 1 cannot go on: test"), "{status}: {said}");
}

#[test]
fn masters_on_one_rank_each_leave_the_same_bytes() {
    let place = Place::new(&RECIPE.replace("threads: 1,", "threads: 1, precision: Bf16,"));
    place.finish(1, &["one"]);
    let shard = ["--set", "ranks.shard=Masters"];
    place.finish(3, &[&["of3"], &shard[..]].concat());
    assert_left(&left(&place.run("one")), &place.run("of3"), "masters on three ranks");

    let out = place.run("stopped");
    let name = out.to_str().unwrap().to_owned();
    let four = place.command(4, &[&[name.as_str()], &shard[..]].concat()).spawn().unwrap();
    wait_for_lines(&out, 12);
    signal(processes(&out)[1].1, "-TERM");
    assert_eq!(ended(four, PATIENCE).status.code(), Some(130));
    place.finish(2, &[&[name.as_str(), "--resume"], &shard[..]].concat());
    assert_left(&left(&place.run("one")), &out, "masters on four ranks, then on two");
}

#[test]
fn a_run_stops_with_four_ranks_and_goes_on_with_two_and_then_one() {
    let place = Place::new(RECIPE);
    place.finish(1, &["whole"]);
    let out = place.run("stopped");
    let name = out.to_str().unwrap().to_owned();
    let shard = ["--set", "ranks.shard=Optimizer"];
    let four = place.command(4, &[&[name.as_str()], &shard[..]].concat()).spawn().unwrap();
    wait_for_lines(&out, 9);
    // The signal reaches one rank; all of them stop at the same step.
    signal(processes(&out)[2].1, "-INT");
    let Output { status, stderr, .. } = ended(four, PATIENCE);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(130), "{said}");
    assert_eq!(said.matches("interrupted; go on with flip run").count(), 1, "{said}");

    let resume = [&[name.as_str(), "--resume"], &shard[..]].concat();
    let two = place.command(2, &resume).spawn().unwrap();
    wait_for_lines(&out, 25);
    signal(processes(&out)[0].1, "-INT");
    assert_eq!(ended(two, PATIENCE).status.code(), Some(130));
    place.finish(1, &resume);
    assert_left(&left(&place.run("whole")), &out, "four ranks, then two, then one");
}

#[test]
fn a_killed_rank_ends_the_run_on_all_and_it_resumes_exactly() {
    let place = Place::new(RECIPE);
    place.finish(1, &["whole"]);
    let out = place.run("killed");
    let name = out.to_str().unwrap().to_owned();
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    for kill in 0..3 {
        let resume = ["--resume"];
        let resume = if out.join("recipe.ron").exists() { &resume[..] } else { &[] };
        let run = place.command(3, &[&[name.as_str()], resume].concat()).spawn().unwrap();
        let at = 3 + 9 * kill + random.gen_range(0..6);
        wait_for_lines(&out, at);
        let ranks = processes(&out);
        if ranks.len() < 3 {
            // Lines of the run before: this one has hardly begun.
            std::thread::sleep(Duration::from_millis(random.gen_range(500..2_000)));
        }
        let ranks = processes(&out);
        let (rank, victim) = ranks[random.gen_range(0..ranks.len())];
        let began = Instant::now();
        signal(victim, "-KILL");
        let Output { status, stderr, .. } = ended(run, Duration::from_secs(30));
        assert!(!status.success());
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(said.contains(&format!("rank {rank} ")), "{rank} is not named:\n{said}");
        while !processes(&out).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "ranks are left: {:?}", processes(&out));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    place.finish(3, &[&name, "--resume"]);
    assert_left(&left(&place.run("whole")), &out, "killed three times");
}

#[test]
fn a_stopped_rank_ends_the_run_and_is_named() {
    let place = Place::new(&RECIPE.replace("Steps(40)", "Steps(400000)"));
    let out = place.run("stalled");
    let run = place.command(3, &[out.to_str().unwrap()]).spawn().unwrap();
    wait_for_lines(&out, 5);
    let (rank, victim) = processes(&out)[1];
    let began = Instant::now();
    signal(victim, "-STOP");
    let Output { status, stderr, .. } = ended(run, Duration::from_secs(30));
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success());
    let named = format!("rank {rank} of 3 (host ");
    assert!(said.contains(&named) && said.contains("has not been heard from for"), "{said}");
    while !processes(&out).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "ranks are left: {:?}", processes(&out));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The numbers of this name in the JSON lines of a log, in order.
fn logged(log: &Path, message: &str, field: &str) -> Vec<u64> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().filter(|line| line.contains(message));
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let number = |line: &str| -> Option<u64> {
        let line = value(line);
        line[field].as_u64().or_else(|| line["fields"][field].as_u64())
    };
    lines.map(|line| number(line).unwrap_or_else(|| panic!("no {field} in {line}"))).collect()
}

#[test]
fn the_bytes_of_a_step_are_those_of_the_formula() {
    let place = Place::new(RECIPE);
    let log = r#"(targets: {"flip::ranks": Trace}, format: Json, sinks: [File(path: "run.log")])"#;
    fs::write(place.run("logging.ron"), log).unwrap();
    place.finish(2, &["out", "--logging", "logging.ron"]);

    let recipe = flip::recipe::read(&place.run("recipe.ron"), &[]).unwrap();
    let counts = recipe.model.parameter_counts();
    for (rank, log) in [(0, place.run("run.log")), (1, place.run("out/ranks/rank0001.log"))] {
        let steps = |field| logged(&log, "bytes sent so far", field);
        let (batch, width) = (24, recipe.model.embed_dim as u64);
        let ring = steps("ring");
        // 40 steps of one stage; the first line holds what there was before.
        for pair in ring[..40].windows(2) {
            assert_eq!(pair[1] - pair[0], 4 * (batch - batch / 2) * (4 * width + 2), "rank {rank}");
        }
        let ranks = flip::ranks::Together::of(2);
        let parts = flip::ranks::Parts::of(&recipe.ranks, 24, 1, &ranks[rank]).unwrap();
        let sum = |values: u64| flip::ranks::reduce::bytes_sent(&parts, values as usize, rank, 2);
        let exchange = steps("exchange");
        // Evaluations after 20 and 40 steps embed with exchanges of their own.
        for (at, pair) in exchange[..40].windows(2).enumerate().filter(|(at, _)| at + 1 != 20) {
            assert_eq!(pair[1] - pair[0], sum(counts.image) + sum(counts.text), "rank {rank}, step {at}");
        }
    }
}

#[test]
fn gradients_are_exchanged_beside_the_backward_pass() {
    // Large enough for a backward pass of some milliseconds.
    let recipe =
        RECIPE.replace("width: 16, depth: 1", "width: 64, depth: 3").replace("Steps(40)", "Steps(20)");
    let place = Place::new(&recipe.replace("batch: 24, micro_batch: 3", "batch: 96"));
    let log = r#"(targets: {"flip::ranks": Trace}, format: Json, sinks: [File(path: "run.log")])"#;
    fs::write(place.run("logging.ron"), log).unwrap();
    place.finish(2, &["out", "--logging", "logging.ron"]);
    for log in [place.run("run.log"), place.run("out/ranks/rank0001.log")] {
        let of = |field| logged(&log, "exchanged while", field);
        let times = of("exchange_from_us").into_iter().zip(of("exchange_to_us"));
        let beside = times.zip(of("backward_from_us").into_iter().zip(of("backward_to_us")));
        let overlap = beside.map(|((from, to), (begin, end))| to.min(end).saturating_sub(from.max(begin)));
        let overlaps: Vec<u64> = overlap.take(20).collect();
        // Where a core is free for it: more ranks and tests may run here than there are.
        assert!(overlaps.iter().filter(|&&us| us > 0).count() >= 3, "{overlaps:?}");
    }
}

#[test]
fn another_seed_on_one_rank_is_refused_at_the_start() {
    let place = Place::new(RECIPE);
    let flip = env!("CARGO_BIN_EXE_flip");
    let mut command = mpirun(place.0.path());
    command.current_dir(place.0.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.args(["-n", "1", flip, "run", "recipe.ron", "--out", "a", ":"]);
    command.args(["-n", "1", flip, "run", "recipe.ron", "--out", "a", "--set", "seed=4"]);
    let Output { status, stderr, .. } = ended(command.spawn().unwrap(), Duration::from_secs(30));
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("has another seed: 4; rank 0 has 3"), "{said}");
    assert!(said.contains("has another recipe: "), "{said}");
    assert!(!place.run("a").exists(), "nothing is written");
}

#[test]
fn more_ranks_than_parts_are_refused_with_what_to_do() {
    let place = Place::new(&RECIPE.replace("parts: 4", "parts: 2"));
    let Output { status, stderr, .. } = ended(place.command(3, &["a"]).spawn().unwrap(), PATIENCE);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success());
    assert!(said.contains("there are 3 ranks and 2 parts") && said.contains("ranks.parts"), "{said}");
}
