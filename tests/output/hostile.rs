//! Names and texts from outside that try to steer a terminal, a page, a chart or a table.

use std::fs;
use std::path::Path;

use flip::record::{Answer, Example, Examples};
use flip::report::sweep::{Cell, Outcome, Setting, Sweep};
use serde_json::json;

use super::{files, finished_run, flip, said, shard, RECIPE};

/// Sets the title of a terminal, clears it, breaks the line, and is a script, a table cell and a link.
const HOSTILE: &str =
    "x\u{1b}]0;OWNED\u{7}\u{1b}[2J\u{9b}31m\r\n\u{202e}<script>alert('1')</script>\"&|*a*[b](c)`";

/// What no terminal must ever get.
#[track_caller]
fn steers_nothing(what: &str, text: &str) {
    let steers = |c: char| flip::outside::steers(c) && c != '\n' && c != '\t';
    let found: Vec<char> = text.chars().filter(|c| steers(*c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
}

#[track_caller]
fn is_no_markup(what: &str, text: &str) {
    steers_nothing(what, text);
    for markup in ["<script", "</script", "alert('"] {
        assert!(!text.contains(markup), "{what}: {markup} in {text}");
    }
}

#[test]
fn keys_and_captions_of_shards_do_not_steer_a_terminal_or_a_log() {
    let there = tempfile::tempdir().unwrap();
    let key = "a\u{1b}]0;OWNED\u{7}\u{1b}[31m\u{9b}2Jred";
    let samples = [(key, HOSTILE), ("b", HOSTILE), ("c", "an image")];
    let shards = there.path().join("\u{1b}[2J.tar");
    fs::write(&shards, shard(&samples)).unwrap();
    let pattern = shards.to_str().unwrap();
    for more in [&["--samples"][..], &["--samples", "--json"], &["--json"]] {
        let done = flip(there.path(), &[&["data", "inspect", pattern], more].concat()).output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        steers_nothing("inspect", &said(&done));
        if more.contains(&"--json") {
            let text = String::from_utf8(done.stdout).unwrap();
            serde_json::from_str::<serde_json::Value>(&text)
                .unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }

    // Named as skipped during a run: on the terminal and in its log.
    let mut damaged = tar::Builder::new(Vec::new());
    for (name, body) in [(format!("{key}.png"), &b"no image"[..]), (format!("{key}.txt"), b"a caption")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        damaged.append_data(&mut header, name, body).unwrap();
    }
    fs::write(there.path().join("damaged.tar"), damaged.into_inner().unwrap()).unwrap();
    fs::write(there.path().join("good.tar"), shard(&samples)).unwrap();
    let source = "train: WebDataset(shards: [\"good.tar\", \"damaged.tar\"])";
    fs::write(
        there.path().join("recipe.ron"),
        RECIPE.replace("train: Scenes(size: 32, split: Train)", source),
    )
    .unwrap();
    fs::write(there.path().join("logging.ron"), "(sinks: [Stderr(), File(path: \"run.log\")])").unwrap();
    let arguments = ["run", "recipe.ron", "--out", "run", "--logging", "logging.ron"];
    let done = flip(there.path(), &arguments).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    steers_nothing("run", &said(&done));
    let log = fs::read_to_string(there.path().join("run.log")).unwrap();
    assert!(log.contains("skipped") && log.contains("OWNED"), "{log}");
    steers_nothing("run.log", &log);
}

#[test]
fn arguments_and_names_of_files_do_not_steer_a_terminal() {
    let there = tempfile::tempdir().unwrap();
    let name = "\u{1b}]0;OWNED\u{7}\u{1b}[2J.ron";
    fs::write(there.path().join(name), "Recipe(\u{1b}[2J: 1)").unwrap();
    for arguments in [
        &["validate", name][..],
        &["validate", "absent\u{1b}[2J.ron"],
        &["validate", super::QUICKSTART, "--set", "a\u{1b}[2J=1"],
        &["\u{1b}[2Jcommand"],
        &["import", "absent\u{1b}[2J", "--out", "x"],
        &["embed", "absent\u{1b}[2J", "--texts", "x", "--out", "x.npy"],
        &["compare", "absent\u{1b}[2J"],
        &["data", "inspect", "absent\u{1b}[2J.tar"],
    ] {
        let done = flip(there.path(), arguments).output().unwrap();
        assert!(matches!(done.status.code(), Some(1 | 2)), "{arguments:?}: {}", said(&done));
        steers_nothing("an error", &said(&done));
    }
}

/// A copy of a finished run whose results have hostile names.
fn hostile_run(folder: &Path) -> std::path::PathBuf {
    let run = folder.join("run");
    for path in files(finished_run()) {
        let to = run.join(path.strip_prefix(finished_run()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    let row = json!({
        "stage": 1, "step": 0, "samples": 160, "kind": HOSTILE, "dataset": HOSTILE, "task": HOSTILE,
        "metrics": {"top1": 0.5, HOSTILE: 0.25}, "n": 4,
        "per_class": [{"name": HOSTILE, "n": 2, "top1": 0.5}],
        "confusions": [{"class": HOSTILE, "taken_for": HOSTILE, "n": 1}],
    });
    let later = json!({"stage": 0, "step": 10, "samples": 80, "kind": HOSTILE, "dataset": HOSTILE, "task": HOSTILE,
        "metrics": {"top1": 0.4, HOSTILE: 0.2}, "n": 4});
    fs::write(run.join("eval.json"), json!([later, row]).to_string()).unwrap();
    let answer = Answer { what: HOSTILE.into(), similarity: 0.5, right: true };
    let example = Example {
        image: HOSTILE.into(),
        caption: HOSTILE.into(),
        texts: vec![answer.clone()],
        images: vec![answer],
    };
    let examples = Examples {
        stage: 1,
        kind: HOSTILE.into(),
        dataset: HOSTILE.into(),
        task: HOSTILE.into(),
        examples: vec![example],
    };
    fs::create_dir_all(run.join("examples")).unwrap();
    fs::write(run.join("examples/x.json"), serde_json::to_string(&examples).unwrap()).unwrap();
    run
}

#[test]
fn pages_charts_and_tables_show_hostile_names_as_text() {
    let there = tempfile::tempdir().unwrap();
    let run = hostile_run(there.path());
    flip::report::write(&run).unwrap();
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    is_no_markup("report.html", &page);
    assert!(page.matches("&lt;script&gt;").count() >= 6, "{page}");
    for path in files(&run.join("curves")) {
        is_no_markup(path.to_str().unwrap(), &fs::read_to_string(&path).unwrap());
    }

    // Twice the same, so that there is something to compare.
    let second = there.path().join("second\u{1b}[2J*`");
    fs::create_dir(&second).unwrap();
    for path in files(&run) {
        let to = second.join(path.strip_prefix(&run).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    let compared = flip(there.path(), &["compare", "run", second.to_str().unwrap()]).output().unwrap();
    assert!(compared.status.success(), "{}", said(&compared));
    steers_nothing("compare", &said(&compared));
    is_no_markup("compare.html", &fs::read_to_string(there.path().join("compare.html")).unwrap());

    let card = flip(there.path(), &["card", second.to_str().unwrap()]).output().unwrap();
    assert!(card.status.success(), "{}", said(&card));
    let card = String::from_utf8(card.stdout).unwrap();
    // The recipe in between is code.
    let (before, rest) = card.split_once("<details>").unwrap();
    let text = before.to_owned() + rest.split_once("</details>").unwrap().1;
    steers_nothing("the card", &text);
    assert!(!text.contains("<script") && !text.contains("</script"), "{text}");
    assert!(text.contains("&lt;script&gt;") && text.contains("\\|\\*a\\*\\[b\\](c)\\`"), "{text}");
    let rows = text.lines().filter(|line| line.contains("0.5000")).count();
    assert_eq!(rows, 1, "a hostile name broke a row of the card: {text}");
}

#[test]
fn the_page_charts_and_csv_of_a_sweep_show_hostile_names_as_text() {
    let there = tempfile::tempdir().unwrap();
    let run = hostile_run(there.path());
    let setting = |name: &str| {
        let cell = |seed, outcome| Cell::read(seed, &run, HOSTILE.into(), outcome, &[1e9, 0.0]).unwrap();
        let cells = vec![cell(1, Outcome::Finished), cell(2, Outcome::Failed(HOSTILE.into()))];
        Setting { name: format!("{name}{HOSTILE}"), planned: 2, cells }
    };
    let sweep = Sweep {
        name: HOSTILE.into(),
        claim: Some(HOSTILE.into()),
        settings: vec![setting("a"), setting("b")],
        baseline: 0,
        wanted: None,
        study: HOSTILE.into(),
    };
    let out = there.path().join("sweep");
    fs::create_dir(&out).unwrap();
    sweep.write(&out).unwrap();
    let table = sweep.text(None).unwrap();
    assert!(!table.is_empty());
    assert_eq!(table.matches("1 of 2").count(), 2, "{table}");
    let csv = fs::read_to_string(out.join("points.csv")).unwrap();
    steers_nothing("points.csv", &csv);
    let lines = csv::Reader::from_reader(csv.as_bytes()).records().count();
    assert_eq!(csv.lines().count(), lines + 1, "a record a line: {csv}");
    is_no_markup("report.html", &fs::read_to_string(out.join("report.html")).unwrap());
    let charts = files(&out.join("charts"));
    assert!(charts.iter().filter(|path| path.extension().is_some_and(|ending| ending == "svg")).count() >= 3);
    for path in charts.iter().filter(|path| path.extension().is_some_and(|ending| ending == "svg")) {
        is_no_markup(path.to_str().unwrap(), &fs::read_to_string(path).unwrap());
    }
}
