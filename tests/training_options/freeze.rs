//! Towers that do not learn.

use std::path::Path;

use safetensors::SafeTensors;

use crate::runs::*;

fn of(freeze: &str) -> String {
    recipe(&format!(
        "Pretrain(length: Steps(8), batch: 8, image_mask: Random(0.5), {freeze}
            schedule: Constant(lr: Absolute(3e-3), warmup: Steps(1))),
         Unmask(length: Steps(3), batch: 8, schedule: Constant(lr: Absolute(1e-3)))"
    ))
}

/// Bytes of the tensors of a file whose names begin so.
fn tensors(file: &Path, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<(String, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, view)| (name, view.data().to_vec()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{prefix}");
    found
}

const KEEP: [&str; 2] = ["checkpoints.every=Steps(1)", "checkpoints.keep=50"];

fn at(run: &Path, stage: usize, step: usize) -> std::path::PathBuf {
    let mut names: Vec<_> = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("stage{stage}")))
        .collect();
    names.sort();
    names.swap_remove(step - 1)
}

/// The tower keeps its bytes; the other one has, at the same weights, the gradients that it has where both learn: after the first
/// update that moves anything it is the same.
#[test]
fn a_frozen_tower_stays_and_the_other_learns_as_ever() {
    let place = Place::new();
    for (compute, micro_batch, towers) in [
        ("Fused", "8", vec![("image.", "text."), ("text.", "image.")]),
        ("Reference", "2", vec![("image.", "text.")]),
    ] {
        {
            let sets = [
                KEEP[0].to_owned(),
                KEEP[1].to_owned(),
                format!("compute={compute}"),
                format!("stages.0.micro_batch={micro_batch}"),
                "ranks.parts=1".into(),
            ];
            let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
            let name = |what: &str| format!("{what}{compute}{micro_batch}");
            let both = place.whole(&name("both"), &of(""), &sets, 1);
            for (tower, other) in towers {
                let freeze = if tower == "image." { "freeze: [Image]," } else { "freeze: [Text]," };
                let run = place.whole(&name(tower), &of(freeze), &sets, 1);
                let model = |run: &Path, stage, step| at(run, stage, step).join("model.safetensors");
                assert!(tensors(&model(&run, 0, 1), tower) == tensors(&model(&run, 0, 8), tower));
                assert!(
                    tensors(&model(&run, 0, 2), other) == tensors(&model(&both, 0, 2), other),
                    "{compute}"
                );
                assert!(tensors(&model(&run, 0, 2), other) != tensors(&model(&run, 0, 8), other));
                let moments = at(&run, 0, 8).join("optimizer.safetensors");
                for which in ["first", "second"] {
                    let of = |tower: &str| tensors(&moments, &format!("adamw.{which}.{tower}"));
                    assert!(of(tower).iter().all(|(_, bytes)| bytes.iter().all(|byte| *byte == 0)));
                    assert!(of(other).iter().any(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)));
                }
                // The stage behind learns with all of the model again.
                assert!(tensors(&model(&run, 0, 8), tower) != tensors(&model(&run, 1, 3), tower));
            }
        }
    }
}

#[test]
fn stops_and_other_ranks_change_nothing() {
    let place = Place::new();
    for (freeze, precision, shard) in [
        ("freeze: [Image], micro_batch: 2,", "precision=F32", "ranks.shard=Nothing"),
        ("freeze: [Image], clip_grad_norm: 0.5,", "precision=F32", "ranks.shard=Optimizer"),
        ("freeze: [Text],", "precision=Bf16", "ranks.shard=Masters"),
    ] {
        let text = of(freeze);
        let alone = place.whole(&format!("{freeze}{shard}"), &text, &[precision], 1);
        let name = format!("{freeze}{shard} stopped");
        let run = place.stopped(&name, &text, &[precision, shard], &[3], &[2, 4]);
        assert_left(&left(&alone), &run, &name);
    }
}

#[test]
fn what_does_not_learn_costs_no_moments_and_less_work() {
    let forecast = |freeze: &str| {
        let recipe = flip::recipe::read_text("r.ron", &of(freeze), &[]).unwrap();
        let plan = flip::recipe::forecast::forecast(&recipe)[0].training().unwrap().clone();
        (plan, recipe.model.parameter_counts())
    };
    let ((all, counts), (frozen, _)) = (forecast(""), forecast("freeze: [Image],"));
    assert_eq!(all.memory.moments - frozen.memory.moments, 8.0 * counts.image as f64);
    assert_eq!(all.memory.gradients - frozen.memory.gradients, 4.0 * counts.image as f64);
    assert!(frozen.flops_per_step < 0.8 * all.flops_per_step);
}
