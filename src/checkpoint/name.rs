//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

/// Place in a run at which a snapshot was taken. Snapshots are ordered by it, never by file times, which copying
/// changes. Written `stage0-step00000500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of that stage that are done.
    pub step: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage{}-step{:08}", self.stage, self.step)
    }
}

impl FromStr for Name {
    type Err = ();

    /// Accepts exactly what `Display` writes, so that a folder has one name and a name one folder.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (stage, step) = text.strip_prefix("stage").and_then(|rest| rest.split_once("-step")).ok_or(())?;
        let name = Name { stage: stage.parse().map_err(drop)?, step: step.parse().map_err(drop)? };
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_order_by_stage_then_step_and_have_one_spelling() {
        let name = Name { stage: 0, step: 500 };
        assert_eq!(name.to_string(), "stage0-step00000500");
        assert_eq!("stage0-step00000500".parse(), Ok(name));
        let long = Name { stage: 12, step: 123_456_789_012 };
        assert_eq!(long.to_string().parse(), Ok(long));
        assert!(Name { stage: 2, step: 0 } < Name { stage: 10, step: 0 });
        assert!(Name { stage: 0, step: 99_999_999 } < Name { stage: 0, step: 100_000_000 });
        for other in ["stage0-step500", "stage00-step00000500", "stage0-step+0000500", "stage0", "model", ""]
        {
            assert_eq!(other.parse::<Name>(), Err(()), "{other}");
        }
    }
}
