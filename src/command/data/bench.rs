//! `flip data bench`: how fast pairs come out of shards, and how much of that time is decoding.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::command::number::{real, whole};
use crate::command::{Failure, Outcome};
use crate::data::decode::image_file::{decode, Rgb};
use crate::data::decode::ImageLimits;
use crate::data::decode::{CropDecoder, Transform};
use crate::data::load::{
    first_captions, LabelFrom, LimitsConfig, Loader, LoaderOptions, Passes, Patches, Share,
};
use crate::data::source::webdataset::WebDataset;
use crate::data::source::{Order, Source};
use crate::data::storage::StallTimeout;
use crate::data::text::Tokenizer;
use crate::data::{AugmentConfig, Cursor, WebDatasetConfig};
use crate::data::{Image, LoadError};
use crate::mask::{ImageMask, Ratio};
use crate::report::rate;

/// Captions that the tokenizer of the measurement is trained on.
const CAPTIONS: usize = 1000;
/// Its tokens, and those of a caption.
const VOCABULARY: usize = 2000;
const CONTEXT: usize = 32;
/// Batches that find the queues empty.
const WARM_UP: usize = 4;
/// Images that decoding alone is timed on.
const DECODED: usize = 400;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Shards, for example 'data/{00000..00041}.tar'.
    pattern: String,
    /// Side of the images handed over, pixels, 1 to 8192.
    #[arg(long, default_value_t = 224, value_parser = whole(1..=8192))]
    size: usize,
    /// Side of a patch, pixels, 1 to 8192.
    #[arg(long, default_value_t = 16, value_parser = whole(1..=8192))]
    patch: usize,
    /// Share of the patches dropped at random; without it whole images are handed over.
    #[arg(long)]
    mask: Option<f64>,
    /// Pairs of a batch, 1 to 1,048,576.
    #[arg(long, default_value_t = 64, value_parser = whole(1..=1 << 20))]
    batch: usize,
    /// Threads that read, decode and tokenize, 1 to 1024 [default: one a core].
    #[arg(long, value_parser = whole(1..=1024))]
    threads: Option<usize>,
    /// Time measured, seconds, 0 to 86,400.
    #[arg(long, default_value_t = 5.0, value_parser = real(0.0..=86_400.0))]
    seconds: f64,
    /// Print one JSON object, last and on one line.
    #[arg(long)]
    json: bool,
}

/// Result of the measurement.
#[derive(Debug, Serialize)]
struct Measured {
    images_per_s: f64,
    /// Time of a thread for one image, all work included.
    ms_image: f64,
    /// The same for decoding alone: whole images, by the general decoder.
    ms_decode: f64,
    /// The same by the decoder for baseline JPEG, all of whose blocks are wanted; it stops before colours.
    ms_decode_planes: f64,
    images: u64,
    skipped: u64,
    threads: usize,
    size: usize,
    mask: f64,
}

pub fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let measured = measure(args)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&measured)?)?;
        return Ok(Outcome::Done);
    }
    let Measured { images_per_s, ms_image, ms_decode, ms_decode_planes, threads, .. } = measured;
    writeln!(out, "{} images/s on {threads} threads, {} skipped", rate(images_per_s), measured.skipped)?;
    writeln!(out, "{ms_image:.3} ms of a thread for one image; decoding alone, on one thread:")?;
    writeln!(out, "{ms_decode:.3} ms to RGB by the general decoder")?;
    writeln!(out, "{ms_decode_planes:.3} ms to planes by the decoder for baseline JPEG")?;
    Ok(Outcome::Done)
}

fn measure(args: &BenchArgs) -> Result<Measured, Failure> {
    let usage = |what: &str| Failure::Usage(what.into());
    if !args.size.is_multiple_of(args.patch) {
        return Err(usage("--size must be a multiple of --patch"));
    }
    let pixels = 3.0 * args.batch as f64 * (args.size * args.size) as f64;
    if let Some(message) = crate::device::beyond_host("the batch, four times", 4.0 * pixels) {
        return Err(Failure::Usage(format!("{message}; a smaller --batch or --size needs less")));
    }
    let mask = args.mask.map(Ratio::try_from).transpose();
    let mask = mask.map_err(|error| Failure::Usage(format!("--mask: {error}")))?.map(ImageMask::Random);
    let grid = args.size / args.patch;
    let patches = mask.map(|mask| Patches {
        side: args.patch,
        kept: mask.kept(grid),
        keep: Arc::new(move |epoch, index| mask.draw(grid, 1, 0, epoch, index).ids),
    });
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let threads = threads.max(1);
    let source = Arc::new(WebDataset::open(&WebDatasetConfig::new(args.pattern.as_str()))?);
    let captions = first_captions(source.as_ref(), CAPTIONS)?;
    let (ms_decode, ms_decode_planes) = decoding(source.as_ref())?;
    let mut loader = Loader::start(LoaderOptions {
        source,
        order: Order::Shuffled { seed: 0 },
        passes: Passes::Endless,
        share: Share::WHOLE,
        lanes: Vec::new(),
        batches: None,
        start: Cursor::default(),
        batch: args.batch,
        keep_partial: false,
        transform: Transform::Train { size: args.size, augment: AugmentConfig::default() },
        patches,
        tokenizer: Arc::new(Tokenizer::train(captions.into_iter(), VOCABULARY)?),
        context: CONTEXT,
        label: LabelFrom::None,
        filter: None,
        limits: LimitsConfig::default(),
        workers: threads,
        stall_timeout: StallTimeout::default(),
        seed: 0,
    })?;
    for _ in 0..WARM_UP {
        loader.next()?;
    }
    let began = Instant::now();
    let mut images = 0;
    while began.elapsed() < Duration::from_secs_f64(args.seconds) {
        images += loader.next()?.map_or(0, |batch| batch.keys.len() as u64);
    }
    let images_per_s = images as f64 / began.elapsed().as_secs_f64();
    Ok(Measured {
        images_per_s,
        ms_image: 1e3 * threads as f64 / images_per_s,
        ms_decode,
        ms_decode_planes,
        images,
        skipped: loader.skipped().total(),
        threads,
        size: args.size,
        mask: args.mask.unwrap_or(0.0),
    })
}

/// Milliseconds to decode one image, as RGB and as planes: means over the first ones.
fn decoding(source: &dyn Source) -> Result<(f64, f64), Failure> {
    let mut images = Vec::new();
    let mut cursor = Cursor::default();
    while images.len() < DECODED {
        let Some(ticket) = source.ticket(cursor, Order::Stored)? else { break };
        cursor = ticket.after;
        match source.load(&ticket).map(|raw| raw.image) {
            Ok(Image::Encoded(bytes)) => images.push(bytes),
            Ok(Image::Rgb { .. }) | Err(LoadError::Skip(_)) => {}
            Err(LoadError::Failed(error)) => return Err(error.into()),
        }
    }
    let mean = |work: &mut dyn FnMut(&[u8])| {
        let began = Instant::now();
        images.iter().for_each(|bytes| work(bytes));
        1e3 * began.elapsed().as_secs_f64() / images.len().max(1) as f64
    };
    let mut pixels = 0;
    let rgb = mean(&mut |bytes| {
        pixels += decode(bytes, ImageLimits::default()).map_or(0, |Rgb { pixels, .. }| pixels.len());
    });
    let mut decoder = CropDecoder::default();
    let planes = mean(&mut |bytes| {
        std::hint::black_box(decoder.decode_all(bytes, ImageLimits::default()));
    });
    std::hint::black_box(pixels);
    Ok((rgb, planes))
}
