//! The contrastive loss of a very large batch and the gradients of all its embeddings, tile by tile: seconds, and
//! the memory that the process held at most.
//!
//! ```text
//! cargo run --release --example large_batch_loss -- [PAIRS] [WIDTH]
//! ```
//!
//! The paper's batch of 65,536 pairs of 512-wide embeddings would have a matrix of 16 GiB; none is ever made.

use std::time::Instant;

use flip::kernel::contrastive::loss_and_gradients;
use flip::kernel::isa::Isa;
use flip::kernel::Cpu;
use rand::Rng;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let pairs = numbers.next().transpose()?.unwrap_or(65_536);
    let width = numbers.next().transpose()?.unwrap_or(512);
    let threads = std::thread::available_parallelism()?.get();
    let cpu = Cpu::new(Isa::detect()?, threads)?;
    let unit = |counter| {
        let mut rng = flip::seed::rng(0, flip::seed::Purpose::Bench, counter, 0);
        let mut rows: Vec<f32> = (0..pairs * width).map(|_| rng.gen_range(-1.0..1.0)).collect();
        for row in rows.chunks_mut(width) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        rows
    };
    let (images, texts) = (unit(0), unit(1));
    let (mut of_images, mut of_texts) = (vec![0.0; images.len()], vec![0.0; texts.len()]);
    let started = Instant::now();
    let loss = loss_and_gradients(&cpu, &mut of_images, &mut of_texts, &images, &texts, 14.3, width);
    let seconds = started.elapsed().as_secs_f64();
    let operations = 12.0 * pairs as f64 * pairs as f64 * width as f64;
    println!(
        "{pairs} pairs of width {width} on {threads} threads ({}): loss {:.4} in {seconds:.1} s, {:.0} GFLOP/s",
        cpu.isa().name(),
        loss.loss,
        operations / seconds / 1e9
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("largest resident memory: {}", line.trim_start_matches("VmHWM:").trim());
    }
    Ok(())
}
