//! `flip schema export`: the JSON Schemas of recipes and studies as files, and whether the files are up to date.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{recipe, sweep, whole_file};

use super::{Failure, Outcome};

/// A schema that was not written, or is not fresh.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} differs from the schema of this version; run `flip schema export`", path.display())]
    Stale { path: PathBuf },
}

/// Writes `recipe.json` and `study.json` into `folder`, or with `check` only compares them.
///
/// # Errors
/// A file cannot be written or read; or, with `check`, it is missing or differs.
pub fn export(folder: &Path, check: bool, out: &mut dyn Write) -> Result<Outcome, Failure> {
    for (name, schema) in [("recipe.json", recipe::recipe_json()), ("study.json", sweep::schema_json())] {
        export_one(&folder.join(name), schema, check, out)?;
    }
    Ok(Outcome::Done)
}

fn export_one(path: &Path, schema: String, check: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let io = |source| SchemaError::Io { path: path.into(), source };
    let verb = if check {
        match std::fs::read_to_string(path) {
            Ok(written) if written == schema => "is up to date",
            Ok(_) => return Err(SchemaError::Stale { path: path.into() }.into()),
            Err(source) => return Err(io(source).into()),
        }
    } else {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
            .and_then(|()| whole_file::replace(path, schema.as_bytes()))
            .map_err(io)?;
        "written"
    };
    writeln!(out, "{} {verb}", path.display())?;
    Ok(())
}
