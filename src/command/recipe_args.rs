//! The recipe that a command is given.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::recipe::{self, Recipe};
use crate::terminal;

/// A recipe and changes of it.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// The recipe, a RON file.
    pub recipe: PathBuf,
    /// Override a field, for example --set stages.0.batch=256 (may be given several times).
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

/// Reads the recipe a command was given; its errors are shown with the lines they concern.
pub(super) fn read_recipe(args: &RecipeArgs) -> Result<Recipe, Failure> {
    recipe::read(&args.recipe, &args.sets).map_err(|errors| {
        Failure::Usage(match crate::sweep::study::is_study(&args.recipe) {
            true => format!("{0} is a study of many runs: flip sweep {0}", args.recipe.display()),
            false => errors.render(terminal::colours()),
        })
    })
}
