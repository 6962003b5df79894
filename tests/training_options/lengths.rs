//! Lengths that are budgets.

use flip::record::ResolvedLength;

use crate::runs::*;

fn of(length: &str) -> String {
    recipe(&format!(
        "Pretrain(length: {length}, batch: 8, micro_batch: 2, image_mask: Random(0.5),
            schedule: WarmupStableDecay(lr: Absolute(1e-3), warmup: Share(0.1), decay: Share(0.3))),"
    ))
}

fn resolved(run: &std::path::Path) -> ResolvedLength {
    let mut all = ResolvedLength::read_all(&run.join("lengths.json")).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn a_budget_of_work_is_the_steps_that_it_pays_for() {
    let place = Place::new();
    let config = flip::recipe::read_text("r.ron", &of("Steps(10)"), &[]).unwrap();
    let step = config.stages[0].training().unwrap().flops_per_step(&config.model);
    let run = place.whole("flop", &of(&format!("Flop({})", 10.5 * step)), &[], 1);
    let length = resolved(&run);
    assert_eq!((length.steps, length.flop_per_step), (10, Some(step)));
    let steps = place.whole("steps", &of("Steps(10)"), &[], 1);
    assert_left(&left(&steps), &run, "ten steps");
    // Encoding less at a time is no more work.
    let other = place.whole("micro", &of(&format!("Flop({})", 10.5 * step)), &["stages.0.micro_batch=8"], 1);
    assert_eq!(resolved(&other).steps, 10);
    let page = flip::report::write(&run).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("is 10 steps, of "), "the report does not say the steps");
}

/// What the clock said when the stage began holds to its end: the run is the one of as many steps, wherever it is resumed.
#[test]
fn a_budget_of_time_is_resolved_once() {
    let place = Place::new();
    // 5 seconds.
    let text = of("Hours(0.00138889)");
    let run = place.run("hours");
    let stop = go(&run, &text, &[], 2, Some(3)).unwrap();
    assert_eq!(stop, flip::train::Ended::Interrupted);
    let ResolvedLength { steps, seconds_per_step, .. } = resolved(&run);
    let seconds = seconds_per_step.unwrap();
    assert!(steps > 3 && (steps as f64 - 5.0 / seconds).abs() <= 1.0, "{steps} of {seconds}");
    // On this number of ranks steps take another time; the number stays.
    go(&run, &text, &[], 4, None).unwrap();
    assert_eq!(resolved(&run).steps, steps);
    let as_many = place.whole("steps", &of(&format!("Steps({steps})")), &[], 1);
    assert_left(&left(&as_many), &run, "as many steps");
}

#[test]
fn steps_that_were_lost_are_asked_for() {
    let place = Place::new();
    let text = of("Hours(0.00138889)");
    let run = place.run("lost");
    go(&run, &text, &[], 1, Some(2)).unwrap();
    std::fs::remove_file(run.join("lengths.json")).unwrap();
    let told = go(&run, &text, &[], 1, None).unwrap_err().to_string();
    assert!(told.contains("stages[0]: length: lengths.json") && told.contains("--amend"), "{told}");
    // Amended, it is resolved anew.
    go(&run, &text, &["stages.0.length=Steps(12)"], 1, None).unwrap();
    assert_eq!(metrics(&run).len(), 12);
}
