//! `flip search` and `flip serve` on the binary, with a tiny model.

mod finding;
mod http;
#[path = "../process/mod.rs"]
mod process;
mod serving;
mod updating;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

use process::{done, flip, tiny_recipe};

const RECIPE: &str = tiny_recipe!(
    "
    name: \"tiny\",
    data: (train: Scenes(size: 32, split: Train, samples: 300), workers: 1),
    stages: [Pretrain(length: Steps(1), batch: 8, image_mask: Keep, schedule: Constant(lr: Absolute(1e-4)))],"
);

/// A folder with a trained model in `run`, and another one in `other` where that is asked for.
struct There {
    folder: TempDir,
}

impl There {
    fn new(names: &[&str]) -> There {
        let folder = tempfile::tempdir().unwrap();
        for (seed, name) in names.iter().enumerate() {
            let recipe = folder.path().join(format!("{name}.ron"));
            fs::write(&recipe, RECIPE.replace("seed: 3", &format!("seed: {}", seed + 3))).unwrap();
            done(flip(folder.path(), &["run", recipe.to_str().unwrap(), "--out", name]));
        }
        fs::create_dir(folder.path().join("images")).unwrap();
        There { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn image(&self, name: &str) -> PathBuf {
        self.path().join("images").join(name)
    }

    /// Writes an image of its own colours, and a caption where there is one.
    fn draw(&self, name: &str, number: u32, caption: &str) {
        let path = self.image(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drawing(number).save(&path).unwrap();
        if !caption.is_empty() {
            fs::write(path.with_extension("txt"), caption).unwrap();
        }
    }

    fn search(&self, arguments: &[&str]) -> Command {
        flip(self.path(), &[&["search", "run", "--images", "images"], arguments].concat())
    }

    /// What a search finds, and what it says beside.
    fn found(&self, arguments: &[&str]) -> (Value, String) {
        let output = self.search(&[arguments, &["--json"]].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }
}

fn drawing(number: u32) -> RgbImage {
    RgbImage::from_fn(36, 32, |x, y| {
        let mixed = (number + 1).wrapping_mul(2_654_435_761);
        let [a, b, c, _] = mixed.to_le_bytes();
        match (x / 6 + y / 5 + number) % 3 {
            0 => Rgb([a, b, c]),
            1 => Rgb([c, a, (x * 7) as u8]),
            _ => Rgb([(y * 8) as u8, c, b]),
        }
    })
}

/// Names of what was found, best first.
fn names(found: &Value) -> Vec<String> {
    let name = |hit: &Value| hit["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    found["found"].as_array().unwrap().iter().map(name).collect()
}
