//! Paths of the files of a run.

use std::path::{Path, PathBuf};

/// The files of a run by their names, in a folder that need not be entered, nor be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPaths {
    root: PathBuf,
}

impl RunPaths {
    /// Those of the run in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> RunPaths {
        RunPaths { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The recipe with every default and override written out. Where it is, there is a run.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.ron")
    }

    /// True if there is a run in the folder.
    pub fn holds_run(&self) -> bool {
        self.recipe().exists()
    }

    /// The architecture of weights that were imported: such a folder has no recipe.
    pub fn model(&self) -> PathBuf {
        self.root.join("model.ron")
    }

    /// The tokenizer that the model was trained with.
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("tokenizer.json")
    }

    /// The folder of the snapshots.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// A line a logged step: numbers that the seed determines.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// A line a logged step: numbers that the clock gives.
    pub fn timing(&self) -> PathBuf {
        self.root.join("timing.jsonl")
    }

    /// Results of the evaluations.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("eval.json")
    }

    /// The folder of evaluated images with what was found for them, a file an evaluation.
    pub fn examples(&self) -> PathBuf {
        self.root.join("examples")
    }

    /// The examples of an evaluation: the `index`th of those of the stage.
    pub fn examples_of(&self, stage: usize, index: usize) -> PathBuf {
        self.examples().join(format!("stage{stage}-{index}.json"))
    }

    /// Training images beside what their masks leave.
    pub fn masks(&self) -> PathBuf {
        self.root.join("masks.png")
    }

    /// The folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// Identity of the run, and the list of the training files.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    /// The index of the training shards, where the run counted them.
    pub fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// Fields of the recipe that were changed while the run went on.
    pub fn amendments(&self) -> PathBuf {
        self.root.join("amendments.json")
    }

    /// Lengths of stages that were resolved to steps when the stages began.
    pub fn lengths(&self) -> PathBuf {
        self.root.join("lengths.json")
    }

    /// The processes that worked on the run.
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    /// There once the run has come to its end.
    pub fn complete(&self) -> PathBuf {
        self.root.join("complete")
    }

    /// True if the run has come to its end.
    pub fn is_complete(&self) -> bool {
        self.complete().exists()
    }

    /// The report as one page.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The folder of the charts of the report.
    pub fn curves(&self) -> PathBuf {
        self.root.join("curves")
    }

    /// Log levels, format and sinks; watched while the run goes on.
    pub fn logging(&self) -> PathBuf {
        self.root.join("logging.ron")
    }

    /// The folder of the logs of other ranks than 0.
    pub fn rank_logs(&self) -> PathBuf {
        self.root.join("ranks")
    }

    /// The log of a rank other than 0.
    pub fn log_of_rank(&self, rank: usize) -> PathBuf {
        self.rank_logs().join(format!("rank{rank:04}.log"))
    }

    /// Locked by the process that writes into the folder.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join(".lock")
    }
}
