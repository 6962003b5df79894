//! Titles of the stages of a recipe, in tables and curves.

use crate::record::StageKind;

/// A title for every stage of the recipe in `recipe`: "pretrain", "unmask", and for an evaluation the stage
/// before it, "after pretrain"; before the first one "as loaded" where the recipe begins with weights, else "untrained". Titles that would be there twice carry the index of their stage. Empty where
/// the text is no recipe; `title` then still has an answer.
pub fn stage_titles(recipe: &str) -> Vec<String> {
    let mut titles = Vec::new();
    let mut trained: Option<String> = None;
    let loaded = StageKind::begins_with_weights(recipe);
    for (index, stage) in StageKind::of_recipe(recipe).into_iter().enumerate() {
        let mut title = match (stage, &trained) {
            (StageKind::Pretrain | StageKind::Unmask, _) => stage.name().to_string(),
            (StageKind::Evaluate, Some(trained)) => format!("after {trained}"),
            (StageKind::Evaluate, None) if loaded => "as loaded".to_string(),
            (StageKind::Evaluate, None) => "untrained".to_string(),
        };
        if titles.contains(&title) {
            title = format!("{title} ({index})");
        }
        if stage != StageKind::Evaluate {
            trained = Some(title.clone());
        }
        titles.push(title);
    }
    titles
}

/// The title of a stage.
pub fn title(titles: &[String], stage: usize) -> String {
    titles.get(stage).cloned().unwrap_or_else(|| format!("stage {stage}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_named_by_what_they_do() {
        let recipe = r#"#![enable(implicit_some)]
            // A comment with Pretrain( in it.
            (name: "x", model: (image: (size: 32)), data: (train: Scenes((size: 32, split: Train))),
             stages: [
                Evaluate([ZeroShot((name: "scenes", classes: Source(templates: ["a {}"])))]),
                Pretrain((length: Steps(400), batch: 256, image_mask: Random(0.5), schedule: Cosine(peak: 1e-3))),
                Evaluate([]),
                Unmask((length: Epochs(1.0), batch: 256, clip_grad_norm: Some(1.0))),
                Evaluate([HeldOutLoss((name: "b", batch: 64))]),
                Unmask(length: Samples(10), batch: 2),
                Evaluate([]),
             ])"#;
        let titles = stage_titles(recipe);
        let expected = [
            "untrained",
            "pretrain",
            "after pretrain",
            "unmask",
            "after unmask",
            "unmask (5)",
            "after unmask (5)",
        ];
        assert_eq!(titles, expected);
        assert_eq!(title(&titles, 3), "unmask");
        assert_eq!(title(&titles, 9), "stage 9");
        let loaded = stage_titles("(init: Checkpoint(\"runs/x\"), stages: [Evaluate([]), Evaluate([])])");
        assert_eq!(loaded, ["as loaded", "as loaded (1)"]);
        assert_eq!(stage_titles("no recipe"), Vec::<String>::new());
    }
}
