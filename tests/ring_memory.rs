//! What one rank holds in memory: for the loss, what is linear in its own pairs, and next to nothing for those of others; for
//! gradients that are added up, a few pieces.
//!
//! One rank of many computes; the others are made up, as their embeddings change nothing about memory. The allocator of
//! this test counts, so it has a file of its own. The ignored test prints
//! a table up to a batch of 65,536.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use flip::kernel::isa::Isa;
use flip::kernel::Cpu;
use flip::model::ring_loss;
use flip::ranks::{reduce, Parts, Ranks, RanksConfig, RanksError, Traffic};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        System.dealloc(at, layout)
    }
    // Large blocks shrink where they are; one that grows may be there twice for a moment.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        MOST.fetch_max(if size < layout.size() { held - layout.size() } else { held }, Ordering::Relaxed);
        System.realloc(at, layout, size)
    }
}

/// Tests run one at a time: all count in one place.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static COUNTING: Counting = Counting;

/// Rank 0 of many that are not there: what they would send is zeros.
#[derive(Debug, Default)]
struct Pretended {
    count: usize,
    traffic: Traffic,
}

impl Ranks for Pretended {
    fn rank(&self) -> usize {
        0
    }
    fn count(&self) -> usize {
        self.count
    }
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(vec![own.to_vec(); self.count])
    }
    fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), RanksError> {
        Ok(())
    }
    fn exchange(&self, _: &[&[f32]], _: &mut [&mut [f32]]) -> Result<(), RanksError> {
        Ok(())
    }
    fn pass(&self, _: Option<&[f32]>, _: Option<&mut [f32]>) -> Result<(), RanksError> {
        Ok(())
    }
    fn traffic(&self) -> &Traffic {
        &self.traffic
    }
    fn end(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// Bytes beyond the embeddings themselves, at their most. The middle one of three counts: the thread of a test that has just
/// ended may still free something.
fn bytes(cpu: &Cpu, batch: usize, ranks: usize, width: usize) -> usize {
    let ranks = Pretended { count: ranks, ..Default::default() };
    let parts = Parts::of(&RanksConfig::default(), batch, 1, &ranks).unwrap();
    let rows = batch / ranks.count;
    let z: Vec<f32> = (0..rows * width).map(|i| ((i % 7) as f32 - 3.0) * 0.05).collect();
    let mut counts = [(); 3].map(|()| {
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        ring_loss(&ranks, cpu, &parts, (&z, &z), 10.0, width).unwrap();
        MOST.load(Ordering::Relaxed) - before
    });
    counts.sort_unstable();
    counts[1]
}

/// Kernels whose scratch memory, which has a largest size, is there already.
fn warm(width: usize) -> Cpu {
    let cpu = Cpu::new(Isa::detect().unwrap(), 1).unwrap();
    bytes(&cpu, 2 * 6144, 2, width);
    cpu
}

#[test]
fn what_is_added_up_takes_a_few_pieces_and_is_freed_once_it_is_sent() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const MIB: usize = 1 << 20;
    for count in [2, 4, 7] {
        let ranks = Pretended { count, ..Default::default() };
        let parts = Parts::of(&RanksConfig::default(), count, 1, &ranks).unwrap();
        let buffers = || vec![vec![0.0f32; 28 * (MIB / 4 * 3)]];
        let ranges = || (0..28).map(|i| i * (MIB / 4 * 3)..(i + 1) * (MIB / 4 * 3)).collect::<Vec<_>>();
        let owners: Vec<usize> = (0..28).map(|tensor| tensor % count).collect();
        let all = 28 * 3 * MIB;
        let most = reduce::scratch_bytes(all / 4, count);
        assert!(most < all / 2, "{most} bytes");

        let own = buffers();
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let sums = reduce::reduce_scatter(&ranks, &parts, own, ranges(), &owners).unwrap();
        let beside = MOST.load(Ordering::Relaxed) - before;
        assert!(
            beside <= most + MIB / 16,
            "{beside} bytes beside the gradients on {count} ranks, not {most}"
        );
        let held = 4 * sums.capacity();
        assert_eq!(held, owners.iter().filter(|&&owner| owner == 0).count() * 3 * MIB);
        let freed = before - HELD.load(Ordering::Relaxed);
        assert!(freed + held >= all - MIB / 16, "{freed} bytes freed, {held} held");
        drop(sums);

        let own = buffers();
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        reduce::all_reduce(&ranks, &parts, own, ranges()).unwrap();
        let beside = MOST.load(Ordering::Relaxed) - before;
        assert!(
            beside <= most + MIB / 16,
            "{beside} bytes beside the gradients on {count} ranks, not {most}"
        );
    }
}

#[test]
fn memory_of_the_loss_is_linear_in_the_pairs_of_a_rank() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let width = 16;
    let cpu = warm(width);
    // Twice the pairs of a rank, the same number of ranks: twice the bytes, but for what tiles take.
    let [small, middle, large] = [4096, 8192, 16_384].map(|batch| bytes(&cpu, batch, 2, width));
    let (first, second) = (middle - small, large - middle);
    assert!((second as f64 / first as f64 - 2.0).abs() < 0.1, "{small}, {middle}, {large} bytes");
    // Gradients of both sides, and for each row two log-sum-exps, maxima, sums and shares in the scale.
    let a_row = (second / 4096) as f64;
    assert!(a_row < 4.0 * (2.0 * width as f64 + 16.0), "{a_row} bytes a pair");
    // Twice the batch on twice the ranks: what others have costs nothing.
    let more = bytes(&cpu, 32_768, 4, width);
    assert!(
        (more as f64 / large as f64 - 1.0).abs() < 0.02,
        "{large} bytes of 16,384 pairs, {more} of 32,768"
    );
}

/// `cargo test --release --test ring_memory -- --ignored --nocapture`
#[test]
#[ignore = "prints a table; takes a minute"]
fn memory_of_the_loss_up_to_a_batch_of_65_536() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let width = 512;
    let cpu = warm(width);
    println!("embeddings of {width} values; MiB of one rank beside its embeddings");
    println!("{:>8} {:>6} {:>8} {:>8} {:>18}", "batch", "ranks", "pairs", "MiB", "N x N matrix, MiB");
    for (batch, ranks) in
        [(1024, 8), (4096, 8), (16_384, 8), (65_536, 8), (65_536, 16), (65_536, 64), (65_536, 256)]
    {
        let held = bytes(&cpu, batch, ranks, width) as f64 / f64::from(1 << 20);
        let matrix = (batch * batch * 4) >> 20;
        println!("{batch:>8} {ranks:>6} {:>8} {held:>8.1} {matrix:>18}", batch / ranks);
    }
}
