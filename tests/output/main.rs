//! What the program prints and writes: streams that are closed, full or gone; names that try to steer a terminal or a
//! page; secrets in URLs.

mod hostile;
#[path = "../process/mod.rs"]
mod process;
mod secrets;
mod streams;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use process::{done, flip, said, tiny_recipe};

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/quickstart.ron");

/// A run of a second.
const RECIPE: &str = tiny_recipe!(
    r#"
    name: "tiny",
    data: (
        train: Scenes(size: 32, split: Train),
        validation: Scenes(size: 32, split: HeldOut, samples: 50),
        workers: 2,
    ),
    stages: [
        Pretrain(
            length: Steps(20), batch: 8, image_mask: Random(0.5),
            schedule: Constant(lr: Absolute(1e-3), warmup: Steps(2)),
        ),
        Evaluate([ZeroShot(name: "held out", classes: Source())]),
    ],
"#
);

/// A stream that takes nothing: every write fails with ENOSPC.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A finished run that no test changes.
fn finished_run() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, run) = RUN.get_or_init(|| {
        let there = tempfile::tempdir().unwrap();
        std::fs::write(there.path().join("recipe.ron"), RECIPE).unwrap();
        done(flip(there.path(), &["run", "recipe.ron", "--out", "run"]));
        let run = there.path().join("run");
        (there, run)
    });
    run
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}

fn shard(samples: &[(&str, &str)]) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([8 * x as u8, 8 * y as u8, 90]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (key, caption) in samples {
        for (ending, body) in [("png", &png.get_ref()[..]), ("txt", caption.as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            builder.append_data(&mut header, format!("{key}.{ending}"), body).unwrap();
        }
    }
    builder.into_inner().unwrap()
}
