//! Times loops on several threads beside one thread, on a machine that other programs keep busy.
//!
//! ```text
//! cargo run --release --example measure_threads -- [--threads 2] [--busy 1]
//! ```
//!
//! `--busy` threads of this process compute all the time. Loops on one thread and on several alternate, so that both
//! meet the same neighbours; the medians of eleven rounds are compared. More runnable threads than cores may cost
//! at most 1.15x of one thread's time, or the exit status is 1.

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use flip::kernel::threads::Threads;

/// Pieces of a loop, as many as a product of a small model has.
const PIECES: usize = 16;
const ROUNDS: usize = 11;
/// Largest ratio of several threads to one.
const LIMIT: f64 = 1.15;

/// A number that takes time and no memory.
fn compute(steps: usize) -> f64 {
    (0..steps).fold(1.0, |x, i| x * 1.000_000_1 + i as f64 * 1e-9)
}

/// Seconds of a loop over pieces of `steps`, the mean of `loops`.
fn seconds(threads: &Threads, steps: usize, loops: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..loops {
        threads.each(0..PIECES, |_, _| {
            black_box(compute(steps));
        });
    }
    start.elapsed().as_secs_f64() / loops as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn argument(name: &str, default: usize) -> Result<usize, Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map_or(Ok(default), |value| Ok(value.parse()?))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let (count, busy) = (argument("--threads", cores)?, argument("--busy", 1)?);
    let (one, several) = (Threads::new(1)?, Threads::new(count)?);
    let end = AtomicBool::new(false);
    let mut worst: f64 = 0.0;
    std::thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    black_box(compute(100_000));
                }
            });
        }
        println!("{count} threads beside {busy} busy ones on {cores} cores");
        for (steps, loops) in [(2_000, 2_000), (20_000, 300), (200_000, 40)] {
            seconds(&several, steps, loops);
            let rounds = (0..ROUNDS).map(|_| (seconds(&one, steps, loops), seconds(&several, steps, loops)));
            let (alone, together): (Vec<f64>, Vec<f64>) = rounds.unzip();
            let (alone, together) = (median(alone), median(together));
            worst = worst.max(together / alone);
            println!(
                "a loop of {:8.3} ms on one thread takes {:8.3} ms, {:.2}x",
                alone * 1e3,
                together * 1e3,
                together / alone
            );
        }
        end.store(true, Ordering::Relaxed);
    });
    let holds = count + busy <= cores || worst <= LIMIT;
    if !holds {
        println!("more than {LIMIT}x of one thread's time");
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
