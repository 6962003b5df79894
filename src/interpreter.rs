//! Runs a recipe: device, then stage after stage.
