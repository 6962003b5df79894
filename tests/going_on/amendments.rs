//! Recipe that a run goes on with: its own, or what is amended and written down.

use std::fs;

use serde_json::Value;

use super::{There, SCENES};

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
    let last = there.metrics("run").lines().rfind(|line| line.contains("\"stage\":0")).unwrap().to_owned();
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
