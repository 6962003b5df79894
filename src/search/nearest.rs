//! The images nearest to a query, by the cosine with every one of them.
//!
//! No graph of neighbours (HNSW) stands beside the embeddings: all of a million are compared in about the time that a text takes to be
//! embedded, a graph of them takes hours to build, is not the same twice, and misses some. The guide has the numbers.

use super::error::SearchError;
use super::index::Index;
use crate::evaluator::ranking::{dot, Best};
use crate::kernel::threads::Threads;

/// Embeddings that a thread takes at a time.
const PIECE: usize = 1024;

/// An image and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its row in the index.
    pub row: usize,
    /// Cosine with the query.
    pub score: f32,
}

/// Ranks images.
pub struct Nearest {
    threads: Threads,
}

impl Nearest {
    /// On all cores.
    ///
    /// # Errors
    /// The system refuses threads.
    pub fn new() -> Result<Self, SearchError> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Ok(Nearest { threads: Threads::new(cores).map_err(SearchError::Threads)? })
    }

    /// The `most` images nearest to a query `[width]`, best first; of equals the earlier one. `except` is left out.
    pub fn to(&self, index: &Index, query: &[f32], most: usize, except: Option<usize>) -> Vec<Found> {
        let width = index.width();
        assert_eq!(query.len(), width, "the query is of another model");
        let mut scores = vec![0.0; index.len()];
        let pieces = index.embeddings().chunks(PIECE * width).zip(scores.chunks_mut(PIECE));
        self.threads.each(pieces, |_, (rows, scores)| {
            for (score, row) in scores.iter_mut().zip(rows.chunks_exact(width)) {
                *score = dot(row, query);
            }
        });
        let mut best = Best::new(most.min(index.len()));
        for (row, score) in scores.into_iter().enumerate() {
            if except != Some(row) {
                best.offer(score, || row);
            }
        }
        best.finish().into_iter().map(|(score, row)| Found { row, score }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::collection::Place;
    use super::super::index::{Contents, Entry};
    use super::*;

    /// Sixteenths in a NumPy file of signed bytes.
    fn sixteenths(name: &str) -> Vec<f32> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/search").join(name);
        let bytes = std::fs::read(path).unwrap();
        bytes[128..].iter().map(|byte| f32::from(*byte as i8) / 16.0).collect()
    }

    #[test]
    fn the_nearest_are_those_of_numpy_and_equals_keep_their_order() {
        let (rows, queries) = (sixteenths("images.npy"), sixteenths("queries.npy"));
        let width = 12;
        let entry =
            |file| Entry { place: Place { file, number: 0 }, key: String::new(), caption: String::new() };
        let entries = (0..(rows.len() / width) as u32).map(entry).collect();
        let contents =
            Contents { model: String::new(), width, files: Vec::new(), entries, broken: Vec::new() };
        let index = Index { contents, rows };
        let expected = include_str!("../../tests/data/search/nearest.json");
        let expected: Vec<Vec<(usize, f32)>> = serde_json::from_str(expected).unwrap();
        let nearest = Nearest::new().unwrap();
        for (query, expected) in queries.chunks(width).zip(expected) {
            let found = nearest.to(&index, query, expected.len(), None);
            let found: Vec<(usize, f32)> = found.iter().map(|found| (found.row, found.score)).collect();
            assert_eq!(found, expected);
            let others = nearest.to(&index, query, expected.len() - 1, Some(expected[0].0));
            let others: Vec<usize> = others.iter().map(|found| found.row).collect();
            assert_eq!(others, expected[1..].iter().map(|(row, _)| *row).collect::<Vec<_>>());
        }
        assert_eq!(nearest.to(&index, &queries[..width], usize::MAX, None).len(), index.len());
    }
}
