//! Images per second of the loader over tar shards: `measure_loader PATTERN [SIZE [WORKERS [SECONDS]]]`.
//!
//! It does all that training does: read, decode, random resized crop, mirror, tokenize, stack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flip::data::captions::first_captions;
use flip::data::loader::{LabelFrom, Loader, Passes, Plan};
use flip::data::source::Order;
use flip::data::tokenizer::Tokenizer;
use flip::data::transform::Transform;
use flip::data::webdataset::WebDataset;
use flip::data::{AugmentConfig, Cursor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let pattern = arguments.first().ok_or("usage: measure_loader PATTERN [SIZE [WORKERS [SECONDS]]]")?;
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (size, workers, seconds) = (number(1, 224)?, number(2, 2)?, number(3, 5)?);

    let config = serde_json::from_value(serde_json::json!({ "shards": pattern }))?;
    let source = Arc::new(WebDataset::open(&config)?);
    let captions = first_captions(source.as_ref(), 1000)?;
    let mut loader = Loader::start(Plan {
        source,
        order: Order::Shuffled { seed: 0 },
        passes: Passes::Endless,
        start: Cursor::default(),
        batch: 64,
        keep_partial: false,
        transform: Transform::Train { size, augment: AugmentConfig::default() },
        tokenizer: Arc::new(Tokenizer::train(captions.into_iter(), 2000)?),
        context: 32,
        label: LabelFrom::None,
        workers,
        seed: 0,
    })?;
    // The first batches find the queues empty.
    for _ in 0..4 {
        loader.next()?;
    }
    let began = Instant::now();
    let mut images = 0;
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        images += loader.next()?.map_or(0, |batch| batch.keys.len());
    }
    let rate = images as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} images/s at {size} px with {workers} workers; skipped: {}", loader.skipped().total());
    Ok(())
}
