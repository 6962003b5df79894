//! How long evaluators compute once everything is embedded: random embeddings, no model.
//!
//!     cargo run --release --example measure_evaluators -- [images] [captions an image] [dim]

use std::time::Instant;

use flip::data::{Batch, Cursor, FolderConfig, SourceConfig};
use flip::evaluator::{
    Embedder, Evaluator, Known, LabelsConfig, LinearProbeConfig, Material, NearestNeighboursConfig, Penalty,
    RetrievalCaptions, RetrievalConfig,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BATCH: usize = 1000;
const CLASSES: usize = 100;

/// A unit vector that depends on `seed` alone; those of a class lie near each other.
fn embedding(seed: u64, class: u64, dim: usize) -> Vec<f32> {
    let mut near = ChaCha8Rng::seed_from_u64(class ^ 0x5eed_0000_0000);
    let mut own = ChaCha8Rng::seed_from_u64(seed);
    let mut row: Vec<f32> =
        (0..dim).map(|_| near.gen_range(-1.0..1.0f32) + own.gen_range(-2.0..2.0f32)).collect();
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= norm);
    row
}

fn batches(images: usize, captions: usize) -> impl FnMut() -> Result<Option<Batch>, flip::data::DataError> {
    let mut next = 0;
    move || {
        let rows: Vec<usize> = (next..(next + BATCH).min(images)).collect();
        next += rows.len();
        let batch = Batch {
            pixels: Vec::new(),
            size: 0,
            patches: Vec::new(),
            tokens: Vec::new(),
            lengths: Vec::new(),
            captions: rows.iter().map(|row| (0..captions).map(|c| format!("{row} {c}")).collect()).collect(),
            label_sets: Vec::new(),
            labels: rows.iter().map(|row| Some((row % CLASSES) as i64)).collect(),
            keys: rows.iter().map(usize::to_string).collect(),
            images: vec![None; rows.len()],
            numbers: Vec::new(),
            cursor: Cursor::default(),
            cursors: Vec::new(),
        };
        Ok((!rows.is_empty()).then_some(batch))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let argument = |at: usize, otherwise| arguments.get(at).copied().unwrap_or(otherwise);
    let (count, captions, dim) = (argument(0, 5_000), argument(1, 5), argument(2, 512));
    let nowhere = || SourceConfig::Folder(FolderConfig { path: "nowhere".into() });
    let (name, data, labels) = (String::from("random"), None, LabelsConfig::Source);
    let retrieval = RetrievalConfig {
        name: name.clone(),
        data: None,
        captions: RetrievalCaptions::All,
        image_mask: Default::default(),
    };
    let neighbours = NearestNeighboursConfig {
        name: name.clone(),
        train: nowhere(),
        data: None,
        labels: labels.clone(),
        k: 20,
        temperature: None,
    };
    let probe = LinearProbeConfig {
        name,
        train: nowhere(),
        data,
        labels,
        penalty: Penalty::C(10.0),
        iterations: 1000,
    };
    let evaluators: [(&dyn Evaluator, f64); 3] = [
        (&retrieval, 2.0 * (count * count * captions * dim) as f64),
        (&neighbours, 2.0 * (count * count * dim) as f64),
        (&probe, f64::NAN),
    ];
    for (evaluator, flop) in evaluators {
        // Embeddings are made by the closures: their time is taken off.
        let making = std::cell::Cell::new(0.0);
        let timed = |make: &mut dyn FnMut() -> Vec<f32>| {
            let began = Instant::now();
            let made = make();
            making.set(making.get() + began.elapsed().as_secs_f64());
            Ok(made)
        };
        let mut images = |batch: &Batch| {
            timed(&mut || {
                let row = |key: &String| key.parse::<u64>().unwrap_or(0);
                batch
                    .keys
                    .iter()
                    .flat_map(|key| embedding(row(key), row(key) % CLASSES as u64, dim))
                    .collect()
            })
        };
        let mut texts = |texts: &[String]| {
            timed(&mut || {
                let number = |text: &String| {
                    let (row, caption) = text.split_once(' ').unwrap_or(("0", "0"));
                    (row.parse::<u64>().unwrap_or(0), caption.parse::<u64>().unwrap_or(0))
                };
                let row = |text| {
                    let (row, caption) = number(text);
                    embedding(row | (caption + 1) << 40, row % CLASSES as u64, dim)
                };
                texts.iter().flat_map(row).collect()
            })
        };
        let mut embedder = Embedder { images: &mut images, texts: &mut texts, dim };
        let (mut test, mut train) = (batches(count, captions), batches(count, 0));
        let material = Material {
            test: &mut test,
            known: Known::default(),
            train: Some(&mut train),
            logit_scale: 100.0,
            seed: 0,
            stop: &|| false,
        };
        let began = Instant::now();
        let result = evaluator.evaluate(material, &mut embedder)?.evaluation;
        let seconds = began.elapsed().as_secs_f64() - making.get();
        let rate =
            if flop.is_finite() { format!(", {:.0} GFLOP/s", flop / seconds / 1e9) } else { String::new() };
        let (metric, value) = &result.metrics[0];
        println!("{}: {seconds:.2} s{rate}; {metric} {value:.4}, n {}", result.kind, result.n);
    }
    Ok(())
}
