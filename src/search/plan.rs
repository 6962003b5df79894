//! What an index has of a collection, and what it lacks.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::collection::{Collection, IndexedFile, Place};
use super::error::SearchError;
use super::index::{Contents, Entry, Index};

/// Name of a row that waits for its index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub file: IndexedFile,
    pub number: u32,
    pub key: String,
    pub caption: String,
}

/// Embeddings that were made and wait for their index.
#[derive(Debug, Default)]
pub(super) struct Grown {
    pub names: Vec<Waiting>,
    /// [names, width]
    pub rows: Vec<f32>,
}

/// Where the embedding of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Have {
    /// Row of the former index.
    Former(usize),
    /// Row that waits for its index.
    Grown(usize),
    /// It was read and is no image.
    Broken,
    Missing,
}

/// Every image of a collection in its order.
pub(super) struct Plan {
    images: Vec<(Place, Have)>,
    /// True if the former index is as the new one would be.
    pub up_to_date: bool,
}

impl Plan {
    /// # Errors
    /// A shard that is not in the index cannot be had.
    pub fn of(collection: &Collection, former: Option<&Index>, grown: &Grown) -> Result<Self, SearchError> {
        let known = former.map(Known::of).unwrap_or_default();
        let waiting: HashMap<(&IndexedFile, u32), usize> = grown
            .names
            .iter()
            .enumerate()
            .map(|(row, waiting)| ((&waiting.file, waiting.number), row))
            .collect();
        let mut images = Vec::new();
        for (file, named) in collection.files().iter().enumerate() {
            let place = |number| Place { file: file as u32, number };
            if let Some(of_file) = known.files.get(named) {
                images.extend(of_file.iter().map(|&(number, have)| (place(number), have)));
                continue;
            }
            for number in 0..collection.images_of(file)? {
                let have = waiting.get(&(named, number)).map_or(Have::Missing, |row| Have::Grown(*row));
                images.push((place(number), have));
            }
        }
        let up_to_date = former.is_some_and(|former| {
            former.contents.files == collection.files()
                && images.iter().all(|(_, have)| matches!(have, Have::Former(_) | Have::Broken))
        });
        Ok(Plan { images, up_to_date })
    }

    /// Images that are to be embedded.
    pub fn missing(&self) -> Vec<Place> {
        let missing = self.images.iter().filter(|(_, have)| *have == Have::Missing);
        missing.map(|(place, _)| *place).collect()
    }

    /// The index of the collection. What is still missing was tried and is broken.
    pub fn index(
        self,
        collection: &Collection,
        former: Option<Index>,
        grown: &Grown,
        (model, width): (&str, usize),
    ) -> Index {
        let files = collection.files().to_vec();
        let mut contents =
            Contents { model: model.into(), width, files, entries: Vec::new(), broken: Vec::new() };
        let mut rows = Vec::with_capacity(self.images.len() * width);
        for (place, have) in self.images {
            let (row, key, caption) = match (have, &former) {
                (Have::Former(row), Some(former)) => {
                    let entry = former.entry(row);
                    (former.embedding(row), &entry.key, &entry.caption)
                }
                (Have::Grown(row), _) => {
                    let name = &grown.names[row];
                    (&grown.rows[row * width..][..width], &name.key, &name.caption)
                }
                _ => {
                    contents.broken.push((place.file, place.number));
                    continue;
                }
            };
            rows.extend_from_slice(row);
            contents.entries.push(Entry { place, key: key.clone(), caption: caption.clone() });
        }
        Index { contents, rows }
    }
}

/// Images of an index by their file.
#[derive(Default)]
struct Known<'a> {
    files: HashMap<&'a IndexedFile, Vec<(u32, Have)>>,
}

impl<'a> Known<'a> {
    fn of(index: &'a Index) -> Self {
        let Contents { files, entries, broken, .. } = &index.contents;
        let mut images: Vec<Vec<(u32, Have)>> = vec![Vec::new(); files.len()];
        for (row, Entry { place, .. }) in entries.iter().enumerate() {
            images[place.file as usize].push((place.number, Have::Former(row)));
        }
        for (file, number) in broken {
            images[*file as usize].push((*number, Have::Broken));
        }
        for images in &mut images {
            images.sort_by_key(|(number, _)| *number);
        }
        Known { files: files.iter().zip(images).collect() }
    }
}
