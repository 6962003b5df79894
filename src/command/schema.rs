//! `flip schema export`: the JSON Schema of a recipe as a file, and whether the file is up to date.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::recipe;

use super::{Failure, Outcome};

/// Why the schema was not written, or is not fresh.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} differs from the schema of this version; run `flip schema export`", path.display())]
    Stale { path: PathBuf },
}

/// Writes `recipe.json` into `folder`, or with `check` only compares it.
///
/// # Errors
/// The file cannot be written or read; or, with `check`, it is missing or differs.
pub fn export(folder: &Path, check: bool, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let path = folder.join("recipe.json");
    let schema = recipe::recipe_json();
    let verb = if check {
        match std::fs::read_to_string(&path) {
            Ok(written) if written == schema => "is up to date",
            Ok(_) => return Err(SchemaError::Stale { path }.into()),
            Err(source) => return Err(SchemaError::Io { path, source }.into()),
        }
    } else {
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, schema))
            .map_err(|source| SchemaError::Io { path: path.clone(), source })?;
        "written"
    };
    writeln!(out, "{} {verb}", path.display())?;
    Ok(Outcome::Done)
}
