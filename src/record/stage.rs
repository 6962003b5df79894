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

    /// The kinds of the stages of a recipe, in sequence; none where the text is no recipe. No other field is looked at, so
    /// that recipes of any version are read.
    pub fn of_recipe(text: &str) -> Vec<StageKind> {
        use ron::extensions::Extensions;
        let options = ron::Options::default().with_default_extension(
            Extensions::UNWRAP_VARIANT_NEWTYPES | Extensions::UNWRAP_NEWTYPES | Extensions::IMPLICIT_SOME,
        );
        let stages =
            options.from_str::<RecipeStages>(text).map_or_else(|_| Vec::new(), |recipe| recipe.stages);
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

/// The one field of a recipe that is read here.
#[derive(Deserialize)]
struct RecipeStages {
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
    }
}
