//! The files of a run folder: where each lies, the rows that it holds, and how they are written and read. A run writes them,
//! and reports, comparisons and sweeps read them, all through the types of this module.
//!
//! | file | holds | type |
//! |---|---|---|
//! | `recipe.ron` | the recipe with every default and override written out | [`StageKind`] is what others read of it |
//! | `metrics.jsonl` | a line a logged step: numbers that the seed determines | [`StepMetrics`] |
//! | `timing.jsonl` | a line a logged step: how fast the machine was | [`StepTiming`] |
//! | `eval.json` | a row an evaluation | [`EvaluationRow`] |
//! | `examples/*.json` | images with what was found for them, a file an evaluation | [`Examples`] |
//! | `amendments.json` | fields of the recipe that were changed while the run went on | [`Amendment`] |
//! | `lengths.json` | lengths of stages that were resolved to steps | [`ResolvedLength`] |
//! | `processes.json` | the processes that worked on the run | [`Process`] |
//! | `checkpoints/` | snapshots | [`crate::checkpoint`] writes and reads them |
//! | all the others | | [`RunPaths`] lists them |
//!
//! [`RunFolder`] is a folder that a process has entered to write into it: it is locked.
//!
//! ```
//! use flip::record::{EvaluationRow, RunPaths};
//!
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(
//! #     folder.path().join("eval.json"),
//! #     r#"[{"stage": 1, "step": 0, "samples": 6400, "kind": "retrieval", "dataset": "held out", "task": "",
//! #         "metrics": {"image_to_text_r1": 0.25}, "n": 100}]"#,
//! # )?;
//! # let folder = folder.path();
//! let run = RunPaths::new(folder);
//! for row in EvaluationRow::read_all(&run.evaluations())? {
//!     println!("stage {}, {} {}: {:?}", row.stage, row.kind, row.dataset, row.metrics);
//! #   assert_eq!((row.stage, row.metrics[0].1), (1, 0.25));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod amendment;
mod evaluation;
mod example;
mod folder;
mod length;
mod lines;
mod model_evaluation;
mod number;
mod paths;
mod process;
mod stage;
mod step;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use amendment::Amendment;
pub use evaluation::{ClassResult, Confusion, Evaluation, EvaluationRow};
pub use example::{Answer, Example, Examples};
pub use folder::{Entry, RunFolder, RunFolderError};
pub use length::ResolvedLength;
pub use lines::{last_line, read_lines, JsonLines};
pub use model_evaluation::{Failed, Measured, MissingSet, ModelEvaluation};
pub use paths::RunPaths;
pub use process::{now, Process};
pub use stage::StageKind;
pub use step::{Metrics, RankTiming, StepMetrics, StepTiming, Timing};

/// A file of a run folder that cannot be written, or is not what a run writes there.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk, or the permissions of the file.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// In words: "read", "append to".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is there, and something else is in it.
    #[error("{path} is not the {expected}: {source}. {advice}")]
    Content {
        /// The file.
        path: PathBuf,
        /// In words: "list of evaluations that a run writes".
        expected: &'static str,
        /// Advice, as a sentence.
        advice: &'static str,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// A resumed run cannot continue a file that lost or changed what was written before.
    #[error(
        "{path} does not have a line end at byte {expected}, where the checkpoint continues it (it has {found} \
         bytes): put the original back, or start in a new run folder"
    )]
    NotContinued {
        /// The file.
        path: PathBuf,
        /// Its length when the checkpoint was written, bytes.
        expected: u64,
        /// Its length now, bytes.
        found: u64,
    },
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
}

impl RecordError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| RecordError::Io { action, path: path.to_path_buf(), source }
    }
}

/// The bytes of a file; none where it is absent: a run that is young has not written everything yet.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, RecordError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordError::io("read", path)(error)),
    }
}
