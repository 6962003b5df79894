//! From a [`Recipe`] back to RON: what a run saves beside its results.

use ron::ser::PrettyConfig;

use super::read::options;
use super::Recipe;

/// The fully resolved recipe, every default written out, as RON that reads back to an equal recipe.
///
/// # Errors
/// None for a recipe that was read; ron's own for one built in code that RON cannot hold.
pub fn write(recipe: &Recipe) -> Result<String, ron::Error> {
    let pretty = PrettyConfig::new().depth_limit(8).compact_arrays(false);
    let mut text = options().to_string_pretty(recipe, pretty)?;
    text.push('\n');
    Ok(text)
}
