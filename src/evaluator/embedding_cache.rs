//! Embeddings on disk, by what they depend on: the model, the data, and how it was looked at. Whatever is damaged there is
//! computed again.
//!
//! ```text
//! images/KEY.jsonl          a line a sample
//! images/KEY.safetensors    rows, and features where there are some; it names the hash of the lines
//! texts/KEY.safetensors     embeddings of texts
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::embedded_set::EmbeddedSet;
use crate::whole_file;

/// Raised when what is computed changes for the same model and data.
const VERSION: &str = "1";

/// A folder of embeddings.
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    folder: PathBuf,
}

/// The hash, in hexadecimal, of texts that together name what embeddings depend on.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in [VERSION].into_iter().chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl EmbeddingCache {
    /// Embeddings in a folder, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        EmbeddingCache { folder: folder.into() }
    }

    fn path(&self, kind: &str, key: &str, ending: &str) -> PathBuf {
        self.folder.join(kind).join(format!("{key}.{ending}"))
    }

    /// A set that was kept, `with_features` if they are there too.
    pub fn images(&self, key: &str, with_features: bool) -> Option<EmbeddedSet> {
        let tensors = std::fs::read(self.path("images", key, "safetensors")).ok()?;
        let lines = std::fs::read(self.path("images", key, "jsonl")).ok()?;
        let (_, header) = SafeTensors::read_metadata(&tensors).ok()?;
        let told = header.metadata().as_ref()?;
        if told.get("samples") != Some(&hash(&lines)) {
            return None;
        }
        let left_out = told.get("left_out").cloned().unwrap_or_default();
        let samples = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let samples: Vec<_> = samples.map(serde_json::from_slice).collect::<Result<_, _>>().ok()?;
        let tensors = SafeTensors::deserialize(&tensors).ok()?;
        let rows = floats(&tensors, "rows", samples.len())?;
        let features = match with_features {
            true => floats(&tensors, "features", samples.len())?,
            false => Vec::new(),
        };
        Some(EmbeddedSet { samples, rows, features, left_out })
    }

    /// Keeps a set.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_images(&self, key: &str, set: &EmbeddedSet) -> io::Result<()> {
        let mut lines = Vec::new();
        for sample in &set.samples {
            serde_json::to_writer(&mut lines, sample)?;
            lines.push(b'\n');
        }
        let told = HashMap::from([
            ("samples".to_owned(), hash(&lines)),
            ("left_out".to_owned(), set.left_out.clone()),
        ]);
        let path = self.path("images", key, "jsonl");
        create_parent(&path)?;
        whole_file::replace(&path, &lines)?;
        let mut tensors = vec![("rows", set.rows.as_slice())];
        if !set.features.is_empty() {
            tensors.push(("features", &set.features));
        }
        write(&self.path("images", key, "safetensors"), &tensors, set.samples.len(), told)
    }

    /// Embeddings of so many texts that were kept.
    pub fn texts(&self, key: &str, count: usize) -> Option<Vec<f32>> {
        let tensors = std::fs::read(self.path("texts", key, "safetensors")).ok()?;
        floats(&SafeTensors::deserialize(&tensors).ok()?, "rows", count)
    }

    /// Keeps embeddings of so many texts.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_texts(&self, key: &str, count: usize, rows: &[f32]) -> io::Result<()> {
        let path = self.path("texts", key, "safetensors");
        create_parent(&path)?;
        write(&path, &[("rows", rows)], count, HashMap::new())
    }
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tensor of `count` rows; none where it is another.
fn floats(tensors: &SafeTensors<'_>, name: &str, count: usize) -> Option<Vec<f32>> {
    let tensor = tensors.tensor(name).ok()?;
    let fits = tensor.dtype() == Dtype::F32 && tensor.shape().first() == Some(&count);
    fits.then(|| {
        tensor
            .data()
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect()
    })
}

fn write(
    path: &Path,
    tensors: &[(&str, &[f32])],
    count: usize,
    told: HashMap<String, String>,
) -> io::Result<()> {
    let view = |rows: &'_ [f32]| -> io::Result<Vec<u8>> {
        Ok(rows.iter().flat_map(|value| value.to_le_bytes()).collect())
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, rows)| view(rows)).collect::<io::Result<_>>()?;
    let views = tensors.iter().zip(&bytes).map(|((name, rows), bytes)| {
        let shape = vec![count, rows.len().checked_div(count).unwrap_or(0)];
        TensorView::new(Dtype::F32, shape, bytes).map(|view| (*name, view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let told = (!told.is_empty()).then_some(told);
    let file = safetensors::serialize(views, told).map_err(io::Error::other)?;
    whole_file::replace(path, &file)
}

#[cfg(test)]
mod tests {
    use super::super::embedded_set::EmbeddedSample;
    use super::*;

    fn set() -> EmbeddedSet {
        let sample = |key: &str, label| EmbeddedSample {
            key: key.into(),
            label,
            label_set: None,
            captions: vec!["a\nb".into()],
            image: None,
        };
        EmbeddedSet {
            samples: vec![sample("x", Some(3)), sample("y", None)],
            rows: vec![1.0, 2.0, 3.0, 4.0],
            features: vec![0.5; 6],
            left_out: "2 broken".into(),
        }
    }

    #[test]
    fn what_is_kept_is_found_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::new(folder.path().join("cache"));
        let (one, other) = (key(["model", "data"]), key(["modeld", "ata"]));
        assert_ne!(one, other);
        assert_eq!(cache.images(&one, true), None);
        cache.keep_images(&one, &set()).unwrap();
        assert_eq!(cache.images(&one, true), Some(set()));
        assert_eq!(cache.images(&one, false), Some(EmbeddedSet { features: Vec::new(), ..set() }));
        assert_eq!(cache.images(&other, false), None);
        cache.keep_images(&other, &EmbeddedSet { features: Vec::new(), ..set() }).unwrap();
        assert_eq!(cache.images(&other, true), None);
        cache.keep_texts(&one, 2, &[1.0, 2.0]).unwrap();
        assert_eq!(cache.texts(&one, 2), Some(vec![1.0, 2.0]));
        assert_eq!(cache.texts(&one, 3), None);
    }

    #[test]
    fn what_is_damaged_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::new(folder.path());
        for (file, cut) in [("k.safetensors", 5), ("k.jsonl", 3)] {
            cache.keep_images("k", &set()).unwrap();
            let path = folder.path().join("images").join(file);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
            assert_eq!(cache.images("k", false), None, "{file}");
        }
    }
}
