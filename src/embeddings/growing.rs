//! A file of embeddings as it grows, so that a killed command goes on where it was.
//!
//! ```text
//! OUT.partial        room for a header, then rows of f32
//! OUT.keys.partial   the name of each row, a JSON string a line
//! OUT.journal        what is being embedded; then a line now and then: rows that are whole, and what comes next
//! ```
//!
//! Rows and keys are on the disk before the journal says so; what lies behind its last line is cut off and
//! embedded again. At the end the header is filled in and the files get their names. A Parquet file, which cannot
//! grow after a kill, is made of the rows at the end. Memory holds a batch, whatever the length.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{at, EmbeddingsError};
use super::format::{read_rows, Format, HEADER};
use super::parquet;

/// Between two lines of the journal.
const EVERY: Duration = Duration::from_secs(1);

/// First line of the journal: an output goes on only with what it was begun with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The checkpoint.
    pub checkpoint: String,
    /// Hash of the model.
    pub sha256: String,
    /// Input that is embedded.
    pub input: Value,
    /// Numbers of a row.
    pub width: usize,
}

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    rows: u64,
    /// Length of the file of keys.
    keys: u64,
    /// Place where the input goes on.
    next: Value,
}

/// An output that was opened.
pub enum Opened {
    /// Everything is there already.
    Complete,
    /// To be written on from a row.
    Growing(Box<Output>),
}

/// An output that grows.
pub struct Output {
    paths: Paths,
    format: Format,
    width: usize,
    rows: BufWriter<File>,
    keys: BufWriter<File>,
    journal: File,
    mark: Mark,
    marked: Instant,
}

#[derive(Debug, Clone)]
struct Paths {
    out: PathBuf,
    rows: PathBuf,
    keys: PathBuf,
    journal: PathBuf,
    /// Place of the names of rows at the end.
    names: PathBuf,
}

impl Paths {
    fn of(out: &Path) -> Paths {
        let beside = |ending: &str| {
            let mut name = out.file_name().unwrap_or_default().to_os_string();
            name.push(ending);
            out.with_file_name(name)
        };
        Paths {
            out: out.into(),
            rows: beside(".partial"),
            keys: beside(".keys.partial"),
            journal: beside(".journal"),
            names: out.with_extension("keys.jsonl"),
        }
    }
}

impl Output {
    /// Opens an output: a new one, or one that was begun and not finished.
    ///
    /// # Errors
    /// A finished file is there, or one that was begun with another subject; unless `restart` says to delete it.
    pub fn open(
        out: &Path,
        format: Format,
        subject: &Subject,
        restart: bool,
    ) -> Result<Opened, EmbeddingsError> {
        let paths = Paths::of(out);
        if restart {
            for path in [&paths.journal, &paths.rows, &paths.keys, &paths.names, &paths.out] {
                remove(path)?;
            }
        }
        match begun(&paths, subject)? {
            Some(mark) => Output::go_on(paths, format, subject.width, mark),
            None if paths.out.exists() => Err(EmbeddingsError::Refused(format!(
                "{} is there already; give --restart to embed again, or another --out",
                out.display()
            ))),
            None => Output::begin(paths, format, subject).map(|output| Opened::Growing(Box::new(output))),
        }
    }

    fn begin(paths: Paths, format: Format, subject: &Subject) -> Result<Output, EmbeddingsError> {
        let mut rows = File::create(&paths.rows).map_err(at(&paths.rows))?;
        rows.write_all(&[b' '; HEADER as usize]).map_err(at(&paths.rows))?;
        let keys = File::create(&paths.keys).map_err(at(&paths.keys))?;
        let mut journal = File::create(&paths.journal).map_err(at(&paths.journal))?;
        writeln!(journal, "{}", serde_json::to_string(subject)?).map_err(at(&paths.journal))?;
        let mark = Mark { rows: 0, keys: 0, next: Value::Null };
        Ok(Output::growing(paths, format, subject.width, mark, (rows, keys, journal)))
    }

    /// Cuts off what the journal does not vouch for.
    fn go_on(paths: Paths, format: Format, width: usize, mark: Mark) -> Result<Opened, EmbeddingsError> {
        // Killed while the files were getting their names.
        if paths.out.exists() {
            finish_names(&paths, format)?;
            return Ok(Opened::Complete);
        }
        let open = |path: &Path, length: u64| {
            let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(at(path))?;
            file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).map_err(at(path))?;
            Ok::<File, EmbeddingsError>(file)
        };
        let rows = open(&paths.rows, HEADER + mark.rows * 4 * width as u64)?;
        let keys = open(&paths.keys, mark.keys)?;
        let journal = OpenOptions::new().append(true).open(&paths.journal).map_err(at(&paths.journal))?;
        let output = Output::growing(paths, format, width, mark, (rows, keys, journal));
        Ok(Opened::Growing(Box::new(output)))
    }

    fn growing(
        paths: Paths,
        format: Format,
        width: usize,
        mark: Mark,
        (rows, keys, journal): (File, File, File),
    ) -> Output {
        let (rows, keys) = (BufWriter::new(rows), BufWriter::new(keys));
        Output { paths, format, width, rows, keys, journal, mark, marked: Instant::now() }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.mark.rows
    }

    /// Place where the input goes on; none at its beginning.
    pub fn next<T: DeserializeOwned>(&self) -> Result<Option<T>, EmbeddingsError> {
        Ok(serde_json::from_value(self.mark.next.clone())?)
    }

    /// Names of the rows so far, and the rows [n, width].
    ///
    /// # Errors
    /// They cannot be read.
    pub fn so_far(&mut self) -> Result<(Vec<String>, Vec<f32>), EmbeddingsError> {
        self.vouch()?;
        let keys = File::open(&self.paths.keys).map_err(at(&self.paths.keys))?;
        let keys = BufReader::new(keys)
            .lines()
            .map(|line| Ok(serde_json::from_str(&line.map_err(at(&self.paths.keys))?)?))
            .collect::<Result<Vec<String>, EmbeddingsError>>()?;
        let mut rows = File::open(&self.paths.rows).map_err(at(&self.paths.rows))?;
        rows.seek(SeekFrom::Start(HEADER)).map_err(at(&self.paths.rows))?;
        let rows =
            read_rows(&mut BufReader::new(rows), keys.len(), self.width).map_err(at(&self.paths.rows))?;
        Ok((keys, rows))
    }

    /// Deletes it: what it holds is somewhere else by now.
    ///
    /// # Errors
    /// A file cannot be deleted.
    pub fn discard(self) -> Result<(), EmbeddingsError> {
        // Without the journal the others are nothing.
        remove(&self.paths.journal)?;
        remove(&self.paths.rows)?;
        remove(&self.paths.keys)
    }

    /// Appends rows [n, width] and their names. `next` is where the input goes on behind them.
    pub fn append(
        &mut self,
        rows: &[f32],
        keys: &[String],
        next: &impl Serialize,
    ) -> Result<(), EmbeddingsError> {
        for value in rows {
            self.rows.write_all(&value.to_le_bytes()).map_err(at(&self.paths.rows))?;
        }
        for key in keys {
            let mut line = serde_json::to_vec(key)?;
            line.push(b'\n');
            self.keys.write_all(&line).map_err(at(&self.paths.keys))?;
            self.mark.keys += line.len() as u64;
        }
        self.mark.rows += keys.len() as u64;
        self.mark.next = serde_json::to_value(next)?;
        if self.marked.elapsed() >= EVERY {
            self.vouch()?;
        }
        Ok(())
    }

    /// Brings everything to the disk, then says so in the journal.
    fn vouch(&mut self) -> Result<(), EmbeddingsError> {
        for (file, path) in [(&mut self.rows, &self.paths.rows), (&mut self.keys, &self.paths.keys)] {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(at(path))?;
        }
        let line = format!("{}\n", serde_json::to_string(&self.mark)?);
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.sync_data());
        written.map_err(at(&self.paths.journal))?;
        self.marked = Instant::now();
        Ok(())
    }

    /// Gives the files their names; returns how many rows there are.
    pub fn finish(mut self) -> Result<u64, EmbeddingsError> {
        self.vouch()?;
        let rows = self.mark.rows;
        match self.format.header(rows, self.width) {
            Some(header) => {
                let file = self.rows.get_mut();
                let written = file
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| file.write_all(&header))
                    .and_then(|()| file.sync_all());
                written.map_err(at(&self.paths.rows))?;
                fs::rename(&self.paths.rows, &self.paths.out).map_err(at(&self.paths.out))?;
            }
            None => {
                let beside = self.paths.out.with_extension("parquet.unfinished");
                let mut from = File::open(&self.paths.rows).map_err(at(&self.paths.rows))?;
                from.seek(SeekFrom::Start(HEADER)).map_err(at(&self.paths.rows))?;
                let keys = File::open(&self.paths.keys).map_err(at(&self.paths.keys))?;
                let (from, keys) = (BufReader::new(from), BufReader::new(keys));
                parquet::write(&beside, rows, self.width, from, keys)?;
                fs::rename(&beside, &self.paths.out).map_err(at(&self.paths.out))?;
            }
        }
        finish_names(&self.paths, self.format)?;
        Ok(rows)
    }
}

/// Work that is left once the output has its name.
fn finish_names(paths: &Paths, format: Format) -> Result<(), EmbeddingsError> {
    match format {
        Format::Parquet => {
            remove(&paths.rows)?;
            remove(&paths.keys)?;
        }
        Format::Safetensors | Format::Npy if paths.keys.exists() => {
            fs::rename(&paths.keys, &paths.names).map_err(at(&paths.names))?;
        }
        Format::Safetensors | Format::Npy => {}
    }
    remove(&paths.journal)
}

fn remove(path: &Path) -> Result<(), EmbeddingsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The last mark of an unfinished output that its files bear out; none where nothing was begun. A last line that
/// was cut short is dropped, from the file too.
fn begun(paths: &Paths, subject: &Subject) -> Result<Option<Mark>, EmbeddingsError> {
    let file = match OpenOptions::new().read(true).write(true).open(&paths.journal) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&paths.journal)(error)),
    };
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let (rows, keys) = (length(&paths.rows), length(&paths.keys));
    let mut reader = BufReader::new(&file);
    let mut line = String::new();
    let mut whole = reader.read_line(&mut line).map_err(at(&paths.journal))? as u64;
    match serde_json::from_str::<Subject>(&line) {
        Ok(begun) if begun == *subject => {}
        // Killed before the first line was written.
        Err(_) if !line.ends_with('\n') => return Ok(None),
        _ => {
            return Err(EmbeddingsError::Refused(format!(
                "{} was begun with other input or another checkpoint and is not finished; give --restart to begin again, \
                 or another --out",
                paths.out.display()
            )))
        }
    }
    let mut mark = Mark { rows: 0, keys: 0, next: Value::Null };
    loop {
        line.clear();
        let read = reader.read_line(&mut line).map_err(at(&paths.journal))? as u64;
        let Ok(next) = serde_json::from_str::<Mark>(&line) else { break };
        let there = HEADER + next.rows * 4 * subject.width as u64 <= rows && next.keys <= keys;
        if !line.ends_with('\n') || !(there || paths.out.exists()) {
            break;
        }
        (mark, whole) = (next, whole + read);
    }
    file.set_len(whole).map_err(at(&paths.journal))?;
    Ok(Some(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subject() -> Subject {
        Subject { checkpoint: "c".into(), sha256: "h".into(), input: json!({ "texts": "t" }), width: 2 }
    }

    fn growing(out: &Path) -> Output {
        match Output::open(out, Format::of(out).unwrap(), &subject(), false).unwrap() {
            Opened::Growing(output) => *output,
            Opened::Complete => panic!("complete"),
        }
    }

    #[test]
    fn what_the_journal_does_not_vouch_for_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.safetensors");
        let mut output = growing(&out);
        output.append(&[1.0, 2.0], &["a".into()], &7u64).unwrap();
        output.vouch().unwrap();
        output.append(&[3.0, 4.0], &["b".into()], &8u64).unwrap();
        drop(output);
        let journal = folder.path().join("e.safetensors.journal");
        let mut torn = OpenOptions::new().append(true).open(&journal).unwrap();
        torn.write_all(b"{\"rows\":2,\"ke").unwrap();

        let mut output = growing(&out);
        assert_eq!((output.rows(), output.next::<u64>().unwrap()), (1, Some(7)));
        output.append(&[5.0, 6.0], &["c".into()], &9u64).unwrap();
        assert_eq!(output.finish().unwrap(), 2);
        let bytes = fs::read(&out).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("embeddings").unwrap();
        assert_eq!(tensor.shape(), [2, 2]);
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(values, [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(fs::read_to_string(folder.path().join("e.keys.jsonl")).unwrap(), "\"a\"\n\"c\"\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(matches!(
            Output::open(&out, Format::Safetensors, &subject(), false),
            Err(EmbeddingsError::Refused(_))
        ));
        assert!(matches!(Output::open(&out, Format::Safetensors, &subject(), true), Ok(Opened::Growing(_))));
    }

    #[test]
    fn rows_that_never_reached_the_disk_are_embedded_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.npy");
        let mut output = growing(&out);
        for key in 0..3u64 {
            output.append(&[1.0, 2.0], &[key.to_string()], &key).unwrap();
            output.vouch().unwrap();
        }
        drop(output);
        let rows = folder.path().join("e.npy.partial");
        OpenOptions::new().write(true).open(rows).unwrap().set_len(HEADER + 20).unwrap();
        assert_eq!(growing(&out).rows(), 2);
        // Another model or another input does not go on.
        let other = Subject { sha256: "other".into(), ..subject() };
        let refused = Output::open(&out, Format::Npy, &other, false);
        assert!(matches!(refused, Err(EmbeddingsError::Refused(message)) if message.contains("other input")));
    }

    #[test]
    fn a_kill_between_the_last_renames_is_made_good() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.npy");
        let mut output = growing(&out);
        output.append(&[1.0, 2.0], &["a".into()], &1u64).unwrap();
        output.vouch().unwrap();
        drop(output);
        fs::rename(folder.path().join("e.npy.partial"), &out).unwrap();
        assert!(matches!(Output::open(&out, Format::Npy, &subject(), false), Ok(Opened::Complete)));
        assert_eq!(fs::read_to_string(folder.path().join("e.keys.jsonl")).unwrap(), "\"a\"\n");
        assert!(!folder.path().join("e.npy.journal").exists());
    }
}
