//! Rows of an evaluation's data as ranks read and embed them, on their way to rank 0 and there in the order of the data.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::data::Batch;

use super::left_out::LeftOut;

/// Answer of a rank that is asked for its next rows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// Facts of each row; pixels and embeddings are beside them.
    pub rows: Vec<RowFacts>,
    /// Side of the images, pixels.
    pub size: usize,
    /// Nothing comes after this; what was left out of the data.
    pub end: Option<LeftOut>,
    /// The data cannot be had, and why.
    pub failure: Option<String>,
}

/// Everything about a row but its pixels and its embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RowFacts {
    /// As [`Batch::numbers`].
    number: u64,
    key: String,
    captions: Vec<String>,
    label: Option<i64>,
    label_set: Option<Vec<u32>>,
    image: Option<u64>,
    tokens: Vec<u32>,
    length: u32,
}

/// A row that is embedded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    facts: RowFacts,
    /// [size, size, 3]
    pixels: Vec<u8>,
    /// [embed_dim]
    embedding: Vec<f32>,
}

impl Told {
    /// The rows of a batch.
    pub fn rows(batch: &Batch) -> Told {
        let context = batch.tokens.len() / batch.keys.len().max(1);
        let facts = |row: usize| RowFacts {
            number: batch.numbers[row],
            key: batch.keys[row].clone(),
            captions: batch.captions[row].clone(),
            label: batch.labels[row],
            label_set: batch.label_sets[row].clone(),
            image: batch.images[row],
            tokens: batch.tokens[row * context..(row + 1) * context].to_vec(),
            length: batch.lengths[row],
        };
        Told { rows: (0..batch.keys.len()).map(facts).collect(), size: batch.size, ..Told::default() }
    }

    /// As words of 4 bytes, in which ranks exchange values, with the rows' pixels and embeddings behind: the length of the
    /// facts in bytes, the facts as JSON, pixels, embeddings.
    pub fn into_words(self, pixels: &[u8], embeddings: &[f32]) -> Result<Vec<f32>, serde_json::Error> {
        let facts = serde_json::to_vec(&self)?;
        let length = facts.len() as u32;
        let mut words = vec![f32::from_bits(length)];
        for bytes in [facts.as_slice(), pixels] {
            words.extend(bytes.chunks(4).map(|four| {
                let mut word = [0; 4];
                word[..four.len()].copy_from_slice(four);
                f32::from_bits(u32::from_le_bytes(word))
            }));
        }
        words.extend_from_slice(embeddings);
        Ok(words)
    }

    /// The facts that [`into_words`](Self::into_words) made, and its rows; `None` where they are cut short.
    pub fn from_words(words: &[f32], dim: usize) -> Option<(Told, Vec<Row>)> {
        let (first, rest) = words.split_first()?;
        let (facts, rest) = bytes(rest, first.to_bits() as usize)?;
        let told: Told = serde_json::from_slice(&facts).ok()?;
        let (image, count) = (told.size.pow(2) * 3, told.rows.len());
        let (pixels, embeddings) = bytes(rest, image * count)?;
        if embeddings.len() != dim * count {
            return None;
        }
        let row = |(place, facts): (usize, &RowFacts)| Row {
            facts: facts.clone(),
            pixels: pixels[place * image..][..image].to_vec(),
            embedding: embeddings[place * dim..][..dim].to_vec(),
        };
        let rows = told.rows.iter().enumerate().map(row).collect();
        Some((told, rows))
    }
}

/// So many bytes at the begin of words, and the words behind them.
fn bytes(words: &[f32], count: usize) -> Option<(Vec<u8>, &[f32])> {
    let taken = count.div_ceil(4);
    let some = words.get(..taken)?;
    let mut bytes: Vec<u8> = some.iter().flat_map(|word| word.to_bits().to_le_bytes()).collect();
    bytes.truncate(count);
    Some((bytes, &words[taken..]))
}

/// Rows of all ranks, each of which has its own in their order, brought into one order.
#[derive(Debug, Default)]
pub(super) struct Merge {
    ranks: Vec<Waiting>,
}

/// Rows of a rank that are not in order yet.
#[derive(Debug, Default)]
struct Waiting {
    rows: VecDeque<Row>,
    ended: bool,
}

impl Merge {
    /// Of so many ranks.
    pub fn of(ranks: usize) -> Merge {
        Merge { ranks: (0..ranks).map(|_| Waiting::default()).collect() }
    }

    /// Takes the next rows of a rank.
    pub fn add(&mut self, rank: usize, rows: Vec<Row>) {
        self.ranks[rank].rows.extend(rows);
    }

    /// Notes that a rank has no more; true the first time.
    pub fn end(&mut self, rank: usize) -> bool {
        !std::mem::replace(&mut self.ranks[rank].ended, true)
    }

    /// True while a rank that has more has told of none: nobody knows which row comes next.
    pub fn wants(&self) -> bool {
        self.ranks.iter().any(|rank| rank.rows.is_empty() && !rank.ended)
    }

    /// The next row of all; `None` at the end.
    pub fn next(&mut self) -> Option<Row> {
        let firsts = self.ranks.iter().enumerate();
        let firsts = firsts.filter_map(|(rank, waiting)| Some((waiting.rows.front()?.facts.number, rank)));
        let (_, rank) = firsts.min()?;
        self.ranks[rank].rows.pop_front()
    }
}

/// A batch of rows, and their embeddings [rows, dim].
pub(super) fn stack(rows: Vec<Row>, size: usize) -> (Batch, Vec<f32>) {
    let mut embeddings = Vec::new();
    let mut batch = Batch { size, ..Batch::default() };
    for Row { facts, pixels, embedding } in rows {
        batch.pixels.extend(pixels);
        embeddings.extend(embedding);
        batch.tokens.extend(facts.tokens);
        batch.lengths.push(facts.length);
        batch.captions.push(facts.captions);
        batch.labels.push(facts.label);
        batch.label_sets.push(facts.label_set);
        batch.keys.push(facts.key);
        batch.images.push(facts.image);
        batch.numbers.push(facts.number);
    }
    (batch, embeddings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Row {
        let facts = RowFacts {
            number,
            key: format!("{number}"),
            captions: vec!["a \u{e9}".into(); number as usize % 3],
            label: Some(number as i64),
            label_set: (number == 2).then(|| vec![1, 7]),
            image: None,
            tokens: vec![number as u32; 2],
            length: 1,
        };
        Row { facts, pixels: vec![number as u8; 12], embedding: vec![number as f32 + 0.5; 3] }
    }

    #[test]
    fn rows_come_in_one_order_whoever_read_them() {
        // Three ranks; number 4 and 7 were broken.
        let mut merge = Merge::of(3);
        let mut left = [vec![0, 3, 6, 9], vec![1, 10], vec![2, 5, 8]].map(VecDeque::from);
        let mut order = Vec::new();
        loop {
            while merge.wants() {
                for (rank, numbers) in left.iter_mut().enumerate() {
                    let some: Vec<Row> = (0..2).filter_map(|_| numbers.pop_front()).map(row).collect();
                    if some.is_empty() {
                        merge.end(rank);
                    }
                    merge.add(rank, some);
                }
            }
            let Some(row) = merge.next() else { break };
            order.push(row.facts.number);
        }
        assert_eq!(order, [0, 1, 2, 3, 5, 6, 8, 9, 10]);
    }

    #[test]
    fn rows_travel_as_words() {
        let (batch, embeddings) = stack((0..5).map(row).collect(), 2);
        let words = Told::rows(&batch).into_words(&batch.pixels, &embeddings).unwrap();
        let (told, rows) = Told::from_words(&words, 3).unwrap();
        assert_eq!((told.end, told.failure, told.size), (None, None, 2));
        assert_eq!(rows, (0..5).map(row).collect::<Vec<_>>());
        for cut in [0, 1, 5, words.len() - 1] {
            assert_eq!(Told::from_words(&words[..cut], 3), None, "cut after {cut} words");
        }
        let end = Told { end: Some(LeftOut::default()), ..Told::default() };
        let words = end.clone().into_words(&[], &[]).unwrap();
        assert_eq!(Told::from_words(&words, 3), Some((end, Vec::new())));
    }
}
