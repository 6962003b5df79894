//! What a run goes on with: its own data, tokenizer and recipe, or what is amended and written down; and what ends it
//! with a checkpoint.

#![cfg(unix)]

mod amendments;
mod cluster_files;
mod disturbed;
mod identity;
#[path = "../process/mod.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::process::Command;

use process::{done, ends_with, flip, tiny_recipe};

const RECIPE: &str = tiny_recipe!(
    r#"
    name: "going on",
    data: (train: SOURCE, workers: 2),
    stages: [
        Pretrain(
            length: Steps(12), batch: 8, image_mask: Random(0.5),
            schedule: Constant(lr: Absolute(1e-3), warmup: Steps(2)),
        ),
        Unmask(length: Steps(6), batch: 8, schedule: Constant(lr: Absolute(1e-4), warmup: Steps(1))),
    ],
    checkpoints: (every: Steps(4), keep: 9),
    metrics: (every_steps: 1),
"#
);

const SCENES: &str = "Scenes(size: 32, split: Train)";

struct There {
    folder: tempfile::TempDir,
}

impl There {
    fn new(source: &str) -> There {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("recipe.ron"), RECIPE.replace("SOURCE", source)).unwrap();
        There { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn flip(&self, arguments: &[&str]) -> Command {
        flip(self.path(), &[&["run"], arguments].concat())
    }

    /// Messages of a run that ends well.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        done(self.flip(arguments))
    }

    /// Messages of a run that is refused with this exit code.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        ends_with(code, self.flip(arguments))
    }

    /// A run as it is when it was killed after this checkpoint: later ones are taken away.
    fn back_to(&self, run: &str, checkpoint: &str) {
        let run = self.path().join(run);
        for entry in fs::read_dir(run.join("checkpoints")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap() > checkpoint {
                fs::remove_dir_all(path).unwrap();
            }
        }
        fs::remove_file(run.join("complete")).unwrap();
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        let checkpoint = self.path().join(run).join("checkpoints/stage1-step00000006");
        fs::read(checkpoint.join("model.safetensors")).unwrap()
    }

    fn metrics(&self, run: &str) -> String {
        fs::read_to_string(self.path().join(run).join("metrics.jsonl")).unwrap()
    }
}
