//! From a [`Recipe`] back to RON: what a run saves beside its results.

use ron::ser::PrettyConfig;

use super::read::options;
use super::Recipe;

/// The fully resolved recipe, every default written out, as RON that reads back to an equal recipe.
///
/// # Panics
/// A recipe built in code holds a path that is not UTF-8; one that was read cannot.
pub fn write(recipe: &Recipe) -> String {
    let pretty = PrettyConfig::new().compact_arrays(false);
    let text = options().to_string_pretty(recipe, pretty);
    let mut text = text.expect("everything a recipe holds has a RON form, except paths that are not UTF-8");
    text.push('\n');
    text
}
