//! The JSON Schema of a recipe, for editors and other programs.

/// `schema/recipe.json`: JSON Schema 2020-12, the documentation of every field as its description.
pub fn recipe_json() -> String {
    format!("{:#}\n", super::shape::schema())
}
