//! Learning rates that fall at the end of a stage, and moments that go from stage to stage.

use flip::duration::Phase;
use flip::optimizer::{DecayShape, PeakLr, Schedule, ScheduleConfig, WarmupStableDecayConfig};
use serde_json::Value;

use crate::runs::*;

fn schedule(peak: f64, warmup: u64, decay: Phase, shape: DecayShape, min_lr: f64, steps: u64) -> Schedule {
    let config = WarmupStableDecayConfig {
        lr: PeakLr::Absolute(peak),
        warmup: Phase::Steps(warmup),
        decay,
        shape,
        min_lr,
    };
    Schedule::new(&ScheduleConfig::WarmupStableDecay(config), 8, steps, None).unwrap()
}

#[test]
fn a_constant_rate_with_a_cooldown_is_open_clip_s() {
    let text = include_str!("../data/training/schedules.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let whole = |name: &str| case[name].as_u64().unwrap();
        let (peak, end) = (case["peak"].as_f64().unwrap(), case["end"].as_f64().unwrap());
        let (warmup, steps) = (whole("warmup"), whole("steps"));
        let ours = schedule(peak, warmup, Phase::Steps(whole("cooldown")), DecayShape::Linear, end, steps);
        for step in warmup..steps {
            let theirs = case["rates"][step as usize].as_f64().unwrap();
            assert!((ours.lr(step) - theirs).abs() <= 1e-15, "step {step}: {} for {theirs}", ours.lr(step));
        }
    }
}

#[test]
fn decays_follow_their_formulas() {
    let (peak, end) = (1e-3, 1e-5);
    for (shape, at) in [
        (DecayShape::OneMinusSqrt, (|t: f64| 1e-5 + (1e-3 - 1e-5) * (1.0 - t.sqrt())) as fn(f64) -> f64),
        (DecayShape::Exponential, |t: f64| 1e-3 * 0.01f64.powf(t)),
    ] {
        // A fifth of 50 steps.
        let ours = schedule(peak, 4, Phase::Share(0.2), shape, end, 50);
        assert_eq!([ours.lr(2), ours.lr(4), ours.lr(39), ours.lr(40)], [peak / 2.0, peak, peak, peak]);
        for step in 40..50 {
            let expected = at((step - 40) as f64 / 10.0);
            assert!((ours.lr(step) - expected).abs() < 1e-15, "{shape:?}, step {step}");
        }
        assert!((ours.lr(50) - end).abs() < 1e-15);
    }
}

const STABLE: &str = "schedule: Constant(lr: Absolute(1e-3), warmup: Steps(3))";
const DECAY: &str = "schedule: WarmupStableDecay(lr: Absolute(1e-3), decay: Share(1.0), shape: OneMinusSqrt)";

fn in_two_stages(optimizer: &str) -> String {
    recipe(&format!(
        "Pretrain(length: Steps(12), batch: 8, image_mask: Random(0.5), {STABLE}),
         Evaluate([ZeroShot(name: \"held out\", classes: Source())]),
         Pretrain(length: Steps(8), batch: 8, image_mask: Random(0.5), {optimizer} {DECAY}),"
    ))
}

/// A decay in a stage of its own is the same training as one stage with a decay at its end.
#[test]
fn a_stage_that_continues_is_as_if_there_were_no_stage_between() {
    let place = Place::new();
    let one = recipe(
        "Pretrain(length: Steps(20), batch: 8, image_mask: Random(0.5), schedule: WarmupStableDecay(lr: Absolute(1e-3),
            warmup: Steps(3), decay: Steps(8), shape: OneMinusSqrt)),",
    );
    let whole = place.whole("one", &one, &[], 1);
    let two = place.whole("two", &in_two_stages("optimizer: Continue,"), &[], 1);
    let tensors = |run: &std::path::Path, name: &str| std::fs::read(checkpoint(run).join(name)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(tensors(&whole, name) == tensors(&two, name), "{name}");
    }
    let fresh = place.whole("fresh", &in_two_stages(""), &[], 1);
    assert!(tensors(&whole, "model.safetensors") != tensors(&fresh, "model.safetensors"));
}

#[test]
fn moments_survive_a_stop_in_any_stage_and_another_number_of_ranks() {
    let (place, text) = (Place::new(), in_two_stages("optimizer: Continue,"));
    let whole = left(&place.whole("whole", &text, &[], 1));
    for (lines, ranks) in
        [(vec![5, 12, 15], vec![1, 2, 4, 1]), (vec![12], vec![4, 1]), (vec![14], vec![2, 2])]
    {
        let name = format!("{lines:?}{ranks:?}");
        assert_left(&whole, &place.stopped(&name, &text, &[], &lines, &ranks), &name);
        let sharded = &["ranks.shard=Optimizer"];
        let name = format!("sharded {name}");
        assert_left(&whole, &place.stopped(&name, &text, sharded, &lines, &ranks), &name);
    }
}
