//! `flip data pack`: images and captions as they lie about, into shards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha256};

use super::loose::{self, ending, failed, Loose};
use crate::command::number::whole;
use crate::command::{Failure, Outcome};
use crate::data::load::Skipped;
use crate::data::source::table::{ImageColumn, Table, TableConfig};
use crate::data::source::{table, Order, Source};
use crate::data::text::caption;
use crate::data::{Cursor, DataError};
use crate::data::{Defect, Image, LoadError, Skip};
use crate::log::Progress;
use crate::outside::shown;
use crate::whole_file;

/// Endings of images.
pub(super) const IMAGES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Names of the columns that are taken, in lower case.
const PATHS: [&str; 6] = ["path", "filepath", "file_path", "image_path", "image", "file"];
const CAPTIONS: [&str; 4] = ["caption", "text", "title", "txt"];

#[derive(Debug, Args)]
pub struct PackArgs {
    /// A folder with images (in sub-folders too), each beside a .txt of the same name; or a .csv or .tsv with a
    /// column of paths and one of captions.
    from: PathBuf,
    /// Folder to write 00000.tar, 00001.tar, ... into.
    #[arg(long)]
    out: PathBuf,
    /// Samples of a shard, 1 to 10,000,000.
    #[arg(long, default_value_t = 10_000, value_parser = whole(1..=10_000_000))]
    per_shard: usize,
    /// A value of the table that begins with `"` ends at the next `"` [default: in .csv, not in .tsv].
    #[arg(long, value_name = "true|false")]
    quoted: Option<bool>,
    /// Write a line for everything that is left out, with the reason; without it the first ten are printed.
    #[arg(long, value_name = "FILE")]
    left_out: Option<PathBuf>,
}

/// Parts of a sample to be packed.
struct Pair {
    image: Vec<u8>,
    /// In lower case.
    ending: String,
    caption: String,
    meta: Option<Vec<u8>>,
}

/// Copies images as they are, byte for byte, in the order of their names or of the table. What has no caption or
/// no image is named and left out.
pub fn pack(args: &PackArgs, progress: &Progress, out: &mut dyn Write) -> Result<Outcome, Failure> {
    if args.per_shard == 0 {
        return Err(Failure::Usage("--per-shard must be at least 1".into()));
    }
    let mut left_out = LeftOut::new(args.left_out.as_deref())?;
    let (packed, others) = if args.from.is_dir() {
        let found = loose::search(&args.from)?;
        if found.pairs.is_empty() && found.left_out.is_empty() {
            let (from, others) = (args.from.display(), counted(&found.others));
            return Err(Failure::Usage(format!(
                "{from}: no image; expected .jpg, .png, .webp, .gif or .bmp, found {others}"
            )));
        }
        for (path, defect) in found.left_out {
            left_out.add(defect.of(path.display().to_string()))?;
        }
        let pairs = found.pairs.iter().map(|pair| Ok(read(pair)));
        (write_all(args, progress, found.pairs.len() as u64, pairs, &mut left_out)?, found.others)
    } else {
        let table = open_table(args)?;
        let rows = Rows { table: &table, cursor: Cursor::default() };
        (write_all(args, progress, table.samples().unwrap_or(0), rows, &mut left_out)?, BTreeMap::new())
    };
    let shards = packed.div_ceil(args.per_shard);
    let total = left_out.skipped.total();
    writeln!(out, "{packed} samples in {shards} shards in {}, {total} left out", args.out.display())?;
    left_out.tell(out)?;
    if !others.is_empty() {
        writeln!(out, "files of other kinds: {}", counted(&others))?;
    }
    match packed {
        0 => Err(Failure::Usage("not one image has a caption that can be read".into())),
        _ => Ok(Outcome::Done),
    }
}

/// Writes the shards; returns how many samples are in them.
fn write_all(
    args: &PackArgs,
    progress: &Progress,
    all: u64,
    pairs: impl Iterator<Item = Result<Result<Pair, Skip>, DataError>>,
    left_out: &mut LeftOut,
) -> Result<usize, Failure> {
    fs::create_dir_all(&args.out).map_err(|error| failed(&args.out, error))?;
    if let Some(there) = shards_in(&args.out)? {
        let there = there.display();
        return Err(Failure::Usage(format!("{there} is already there; pack into an empty folder")));
    }
    let bar = progress.bar("pack", all, "samples");
    let mut pairs = pairs.zip(1..);
    let mut good = || -> Result<Option<Pair>, Failure> {
        for (pair, done) in pairs.by_ref() {
            bar.update(done, "");
            match pair? {
                Ok(pair) => return Ok(Some(pair)),
                Err(skip) => left_out.add(skip)?,
            }
        }
        Ok(None)
    };
    let mut packed = 0usize;
    let mut next = good()?;
    while next.is_some() {
        let path = args.out.join(format!("{:05}.tar", packed / args.per_shard));
        let mut failure = None;
        let written = whole_file::replace_with(&path, |out| {
            let mut shard = tar::Builder::new(out);
            while let Some(pair) = next.take() {
                add(&mut shard, packed, &pair)?;
                packed += 1;
                next = good().map_err(|error| {
                    failure = Some(error);
                    io::Error::other("the next sample cannot be read")
                })?;
                if packed.is_multiple_of(args.per_shard) {
                    break;
                }
            }
            shard.into_inner().map(drop)
        });
        match (written, failure) {
            (Ok(()), _) => {}
            (Err(_), Some(failure)) => return Err(failure),
            (Err(error), None) => return Err(failed(&path, error)),
        }
    }
    bar.finish();
    Ok(packed)
}

/// Appends the members of a sample.
fn add(shard: &mut tar::Builder<impl Write>, number: usize, pair: &Pair) -> io::Result<()> {
    let key = key(number, pair);
    let mut member = |ending: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        shard.append_data(&mut header, format!("{key}.{ending}"), bytes)
    };
    member(&pair.ending, &pair.image)?;
    member("txt", pair.caption.as_bytes())?;
    pair.meta.as_deref().map_or(Ok(()), |meta| member("json", meta))
}

/// The number of the sample and a hash of what is in it: sets that are packed apart and trained on together have no
/// key in common but that of the same sample at the same place.
fn key(number: usize, pair: &Pair) -> String {
    let hash =
        Sha256::new().chain_update(&pair.image).chain_update([0]).chain_update(&pair.caption).finalize();
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{number:09}-{hash}")
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

/// A pair of files.
fn read(pair: &Loose) -> Result<Pair, Skip> {
    let told = |path: &Path, defect: Defect| defect.of(path.display().to_string());
    let bytes = |path: &Path| {
        fs::read(path).map_err(|error| told(path, Defect::new("file_unreadable", error.to_string())))
    };
    Ok(Pair {
        caption: caption::read(&bytes(&pair.caption)?).map_err(|defect| told(&pair.caption, defect))?,
        image: bytes(&pair.image)?,
        ending: ending(&pair.image),
        meta: pair.meta.as_deref().map(bytes).transpose()?,
    })
}

/// A table with a header, read as training reads it; paths are relative to it.
fn open_table(args: &PackArgs) -> Result<Table, Failure> {
    let path = &args.from;
    let usage = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    if !["csv", "tsv"].contains(&ending(path).as_str()) {
        return Err(usage("expected a folder, a .csv or a .tsv".into()));
    }
    if !path.is_file() {
        return Err(usage("there is no such file".into()));
    }
    let mut config = TableConfig {
        quoted: args.quoted,
        ..TableConfig::new(vec![path.display().to_string()], ImageColumn::Path(String::new()), String::new())
    };
    let names = table::header_of(path, &config)?;
    let column = |wanted: &[&str], what: &str| {
        let found =
            wanted.iter().find_map(|&wanted| names.iter().find(|name| name.trim().to_lowercase() == wanted));
        let missing = || usage(format!("no column of {what}; expected one of {wanted:?}, found {names:?}"));
        found.cloned().ok_or_else(missing)
    };
    config.image = ImageColumn::Path(column(&PATHS, "paths")?);
    config.caption = column(&CAPTIONS, "captions")?;
    Ok(Table::open(&config, Default::default())?)
}

/// The rows of a table.
struct Rows<'t> {
    table: &'t Table,
    cursor: Cursor,
}

impl Iterator for Rows<'_> {
    type Item = Result<Result<Pair, Skip>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let ticket = match self.table.ticket(self.cursor, Order::Stored).transpose()? {
            Ok(ticket) => ticket,
            Err(error) => return Some(Err(error)),
        };
        self.cursor = ticket.after;
        let raw = match self.table.load(&ticket) {
            Ok(raw) => raw,
            Err(LoadError::Skip(skip)) => return Some(Ok(Err(skip))),
            Err(LoadError::Failed(error)) => return Some(Err(error)),
        };
        let ending = ending(Path::new(&raw.key));
        Some(Ok(match (raw.image, IMAGES.contains(&ending.as_str())) {
            (Image::Encoded(image), true) => {
                let caption = raw.captions.into_iter().next().unwrap_or_default();
                Ok(Pair { image, ending, caption, meta: None })
            }
            _ => {
                let defect = Defect::new("image_format", "expected .jpg, .png, .webp, .gif or .bmp");
                Err(defect.of(self.table.sample_name(&ticket, &raw.key)))
            }
        }))
    }
}

/// Files that are not packed, with reasons.
struct LeftOut {
    skipped: Skipped,
    list: Option<(PathBuf, BufWriter<File>)>,
}

impl LeftOut {
    fn new(list: Option<&Path>) -> Result<Self, Failure> {
        let create = |path: &Path| {
            let file = File::create(path).map_err(|error| failed(path, error))?;
            Ok::<_, Failure>((path.to_owned(), BufWriter::new(file)))
        };
        Ok(LeftOut { skipped: Skipped::default(), list: list.map(create).transpose()? })
    }

    fn add(&mut self, skip: Skip) -> Result<(), Failure> {
        if let Some((path, list)) = &mut self.list {
            writeln!(list, "{}", line(&skip)).map_err(|error| failed(path, error))?;
        }
        self.skipped.add(skip);
        Ok(())
    }

    /// Counts by reason and the first by name.
    fn tell(self, out: &mut dyn Write) -> Result<(), Failure> {
        if let Some((path, mut list)) = self.list {
            list.flush().map_err(|error| failed(&path, error))?;
        }
        for (reason, count) in &self.skipped.counts {
            writeln!(out, "{count:>8}  {reason}")?;
        }
        for skip in &self.skipped.first {
            writeln!(out, "  {}", line(skip))?;
        }
        let named = self.skipped.first.len() as u64;
        match self.skipped.total() - named {
            0 => {}
            more => writeln!(out, "  and {more} more; --left-out FILE lists all")?,
        }
        Ok(())
    }
}

/// `caption_missing: a/b.jpg: no .txt of its name beside it`; names come from anywhere.
fn line(skip: &Skip) -> String {
    format!("{}: {}: {}", skip.reason, shown(&skip.sample), shown(&skip.detail))
}

/// `3 .heic, 1 .md`
fn counted(others: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = others
        .iter()
        .map(|(ending, count)| match ending.as_str() {
            "" => format!("{count} without an ending"),
            ending => format!("{count} .{}", shown(ending)),
        })
        .collect();
    if each.is_empty() {
        "nothing else".into()
    } else {
        each.join(", ")
    }
}
