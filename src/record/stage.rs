//! Kinds of stages, and which of them a recipe has.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// A kind of stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageKind {
    /// Masked contrastive training.
    Pretrain,
    /// Training without masks.
    Unmask,
    /// Measurements.
    Evaluate,
}

impl StageKind {
    /// The name in titles, logs and messages.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::Pretrain => "pretrain",
            StageKind::Unmask => "unmask",
            StageKind::Evaluate => "evaluate",
        }
    }

    /// True of a recipe that begins with the weights of a checkpoint: its field `init` is set.
    pub fn begins_with_weights(text: &str) -> bool {
        read_recipe(text).is_some_and(|recipe| recipe.init.is_some())
    }

    /// The kinds of the stages of a recipe, in sequence; none where the text is no recipe. No other field is looked at, so
    /// that recipes of any version are read.
    pub fn of_recipe(text: &str) -> Vec<StageKind> {
        let stages = read_recipe(text).map_or_else(Vec::new, |recipe| recipe.stages);
        let kind = |stage: RecipeStage| match stage {
            RecipeStage::Pretrain(_) => StageKind::Pretrain,
            RecipeStage::Unmask(_) => StageKind::Unmask,
            RecipeStage::Evaluate(_) => StageKind::Evaluate,
        };
        stages.into_iter().map(kind).collect()
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn read_recipe(text: &str) -> Option<RecipeStages> {
    use ron::extensions::Extensions;
    let options = ron::Options::default().with_default_extension(
        Extensions::UNWRAP_VARIANT_NEWTYPES | Extensions::UNWRAP_NEWTYPES | Extensions::IMPLICIT_SOME,
    );
    options.from_str(text).ok()
}

/// The fields of a recipe that are read here.
#[derive(Deserialize)]
struct RecipeStages {
    #[serde(default)]
    init: Option<IgnoredAny>,
    stages: Vec<RecipeStage>,
}

/// A stage with whatever is in it.
#[derive(Deserialize)]
enum RecipeStage {
    Pretrain(#[allow(dead_code)] IgnoredAny),
    Unmask(#[allow(dead_code)] IgnoredAny),
    Evaluate(#[allow(dead_code)] IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_whatever_else_a_recipe_says() {
        let recipe = r#"(
            name: "x", // a comment with Unmask( in it
            later: [Pretrain((1, 2))],
            stages: [Evaluate([]), Pretrain((length: Steps(4))), Unmask(length: Samples(10), batch: 2)],
        )"#;
        assert_eq!(
            StageKind::of_recipe(recipe),
            [StageKind::Evaluate, StageKind::Pretrain, StageKind::Unmask]
        );
        assert_eq!(StageKind::of_recipe("no recipe"), []);
        let begins =
            |init: &str| StageKind::begins_with_weights(&format!("(init: {init}, stages: [Evaluate([])])"));
        assert!(begins("Checkpoint(\"runs/x\")") && begins("Some(Checkpoint(\"runs/x\"))"));
        assert!(!begins("None") && !StageKind::begins_with_weights(recipe));
    }
}
