//! The JSON Schema of a recipe, for editors and other programs.

use serde_json::json;

/// `schema/recipe.json`: JSON Schema 2020-12, the documentation of every field as its description. It is what
/// recipes are checked against, but for the model, which is filled in from the checkpoint of `init` before.
pub fn recipe_json() -> String {
    let mut schema = super::shape::schema().clone();
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|field| field != "model");
    }
    schema["anyOf"] = json!([{ "required": ["model"] }, { "required": ["init"] }]);
    format!("{schema:#}\n")
}
