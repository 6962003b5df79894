//! `flip data pack`: pictures and captions as they lie about, into shards.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::{Failure, Outcome};
use crate::log::Progress;

/// Endings of pictures.
const PICTURES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Names of the columns that are taken, in lower case.
const PATHS: [&str; 6] = ["path", "filepath", "file_path", "image_path", "image", "file"];
const CAPTIONS: [&str; 4] = ["caption", "text", "title", "txt"];

#[derive(Debug, Args)]
pub struct PackArgs {
    /// A folder with pictures (in sub-folders too), each beside a .txt of the same name; or a .csv or .tsv with a
    /// column of paths and one of captions.
    from: PathBuf,
    /// Folder to write 00000.tar, 00001.tar, ... into.
    #[arg(long)]
    out: PathBuf,
    /// Samples of a shard.
    #[arg(long, default_value_t = 10_000)]
    per_shard: usize,
}

/// A picture and where its caption comes from.
struct Pair {
    picture: PathBuf,
    /// `None`: a file beside the picture.
    caption: Option<String>,
}

/// Copies pictures as they are, byte for byte, in the order of their names or of the table. Pictures without a
/// caption and lines without a picture are named and left out.
pub fn pack(args: &PackArgs, progress: &Progress, out: &mut dyn Write) -> Result<Outcome, Failure> {
    if args.per_shard == 0 {
        return Err(Failure::Usage("--per-shard must be at least 1".into()));
    }
    let pairs = if args.from.is_dir() { folder(&args.from)? } else { table(&args.from)? };
    if pairs.is_empty() {
        let from = args.from.display();
        return Err(Failure::Usage(format!("{from}: no picture; expected .jpg, .png, .webp, .gif or .bmp")));
    }
    fs::create_dir_all(&args.out).map_err(|error| failed(&args.out, error))?;
    if let Some(there) = shards_in(&args.out)? {
        let there = there.display();
        return Err(Failure::Usage(format!("{there} is already there; pack into an empty folder")));
    }
    let bar = progress.bar("pack", pairs.len() as u64, "samples");
    let (mut packed, mut left_out) = (0usize, 0usize);
    let mut shard: Option<Shard> = None;
    for (done, pair) in pairs.iter().enumerate() {
        bar.update(done as u64, "");
        let (picture, caption) = match read(pair) {
            Ok(both) => both,
            Err(reason) => {
                left_out += 1;
                if left_out <= 10 {
                    tracing::warn!(target: "flip::data", "left out: {reason}");
                }
                continue;
            }
        };
        if packed.is_multiple_of(args.per_shard) {
            if let Some(full) = shard.take() {
                full.finish()?;
            }
        }
        let shard = match &mut shard {
            Some(shard) => shard,
            None => shard.insert(Shard::create(&args.out, packed / args.per_shard)?),
        };
        let ending = ending(&pair.picture);
        shard.add(&format!("{packed:09}.{ending}"), &picture)?;
        shard.add(&format!("{packed:09}.txt"), caption.as_bytes())?;
        let beside = pair.picture.with_extension("json");
        if pair.caption.is_none() && beside.is_file() {
            let meta = fs::read(&beside).map_err(|error| failed(&beside, error))?;
            shard.add(&format!("{packed:09}.json"), &meta)?;
        }
        packed += 1;
    }
    if let Some(last) = shard {
        last.finish()?;
    }
    bar.finish();
    let shards = packed.div_ceil(args.per_shard);
    writeln!(out, "{packed} samples in {shards} shards in {}, {left_out} left out", args.out.display())?;
    if packed == 0 {
        return Err(Failure::Usage("not one picture has a caption that can be read".into()));
    }
    Ok(Outcome::Done)
}

/// A shard while it is written: under another name until it is whole.
struct Shard {
    builder: tar::Builder<BufWriter<File>>,
    path: PathBuf,
}

impl Shard {
    fn create(folder: &Path, number: usize) -> Result<Shard, Failure> {
        let path = folder.join(format!("{number:05}.tar"));
        let file = File::create(partial(&path)).map_err(|error| failed(&path, error))?;
        Ok(Shard { builder: tar::Builder::new(BufWriter::new(file)), path })
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, name, bytes).map_err(|error| failed(&self.path, error))
    }

    fn finish(self) -> Result<(), Failure> {
        let Shard { builder, path } = self;
        let writer = builder.into_inner().map_err(|error| failed(&path, error))?;
        let file = writer.into_inner().map_err(|error| failed(&path, error.into_error()))?;
        file.sync_all().map_err(|error| failed(&path, error))?;
        fs::rename(partial(&path), &path).map_err(|error| failed(&path, error))
    }
}

fn partial(path: &Path) -> PathBuf {
    path.with_extension("tar.part")
}

fn shards_in(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|ending| ending == "tar") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The pictures of a folder and those below it, by name.
fn folder(root: &Path) -> Result<Vec<Pair>, Failure> {
    let (mut pairs, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let kind = entry.file_type().map_err(|error| failed(&folder, error))?;
            let path = entry.path();
            // Links to folders are not followed: they may lead in circles.
            if kind.is_dir() {
                open.push(path);
            } else if PICTURES.contains(&ending(&path).as_str()) {
                pairs.push(Pair { picture: path, caption: None });
            }
        }
    }
    pairs.sort_by(|a, b| a.picture.cmp(&b.picture));
    Ok(pairs)
}

/// The lines of a table with a header; paths are relative to it.
fn table(path: &Path) -> Result<Vec<Pair>, Failure> {
    let usage = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let separator = match ending(path).as_str() {
        "csv" => b',',
        "tsv" => b'\t',
        _ => return Err(usage("expected a folder, a .csv or a .tsv".into())),
    };
    let reader = csv::ReaderBuilder::new().delimiter(separator).flexible(true).from_path(path);
    let mut reader = reader.map_err(|error| usage(error.to_string()))?;
    let header = reader.headers().map_err(|error| usage(error.to_string()))?.clone();
    let column = |names: &[&str], what: &str| {
        let lower: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
        names.iter().find_map(|name| lower.iter().position(|other| other == name)).ok_or_else(|| {
            let there: Vec<&str> = header.iter().collect();
            usage(format!("no column of {what}; expected one of {names:?}, found {there:?}"))
        })
    };
    let (path_column, caption_column) = (column(&PATHS, "paths")?, column(&CAPTIONS, "captions")?);
    let beside = path.parent().unwrap_or(Path::new(""));
    let mut pairs = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| usage(error.to_string()))?;
        let field = |column: usize| record.get(column).unwrap_or_default();
        let caption = Some(field(caption_column).to_owned());
        pairs.push(Pair { picture: beside.join(field(path_column)), caption });
    }
    Ok(pairs)
}

fn read(pair: &Pair) -> Result<(Vec<u8>, String), String> {
    let told = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let caption = match &pair.caption {
        Some(caption) => caption.clone(),
        None => {
            let beside = pair.picture.with_extension("txt");
            fs::read_to_string(&beside).map_err(|error| told(&beside, &error))?
        }
    };
    if caption.trim().is_empty() {
        return Err(told(&pair.picture, &"its caption is empty"));
    }
    let picture = fs::read(&pair.picture).map_err(|error| told(&pair.picture, &error))?;
    if !PICTURES.contains(&ending(&pair.picture).as_str()) {
        return Err(told(&pair.picture, &"expected .jpg, .png, .webp, .gif or .bmp"));
    }
    Ok((picture, caption))
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}
