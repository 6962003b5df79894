//! Inputs, and the one tolerance of all tests.

use flip::kernel::element::Element;
use flip::kernel::isa::Isa;
use flip::kernel::Cpu;

/// Lengths around every vector width, and two of real encoders.
pub const LENGTHS: [usize; 6] = if cfg!(miri) { [1, 7, 8, 9, 17, 19] } else { [1, 7, 8, 9, 63, 197] };

/// A size, or a smaller one for Miri, which takes a thousand times as long.
pub const fn sized(size: usize, under_miri: usize) -> usize {
    if cfg!(miri) {
        under_miri
    } else {
        size
    }
}

/// Every instruction set there is, on two threads.
pub fn processors() -> Vec<Cpu> {
    let there = Isa::ALL.into_iter().filter(|isa| isa.available());
    there.map(|isa| Cpu::new(isa, 2).unwrap()).collect()
}

/// The best instruction set on one thread and on two.
pub fn one_and_two() -> [Cpu; 2] {
    let best = Isa::ALL.into_iter().find(|isa| isa.available()).unwrap();
    [1, 2].map(|threads| Cpu::new(best, threads).unwrap())
}

/// Numbers in [-1, 1) that `seed` determines.
pub fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// As the kernels store them.
pub fn stored<E: Element>(x: &[f32]) -> Vec<E> {
    x.iter().map(|&x| E::from_f32(x)).collect()
}

/// Without loss.
pub fn exact<E: Element>(x: &[E]) -> Vec<f64> {
    x.iter().map(|x| x.to_f32() as f64).collect()
}

/// |got - want| <= c * eps(E) * sqrt(length) * size: `length` terms of magnitude `size` were summed, each
/// rounded to E. Prints the index, both values and the share of the tolerance.
#[track_caller]
pub fn close<E: Element>(what: &str, got: &[f64], want: &[f64], length: usize, size: f64) {
    const C: f64 = 4.0;
    let tolerance = C * E::EPSILON as f64 * (length as f64).sqrt() * size;
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let share = (got - want).abs() / tolerance;
        assert!(share <= 1.0, "{what}: [{i}] is {got:e}, expected {want:e}: {share:.2} of the tolerance");
    }
}

/// Largest magnitude, at least `least`.
pub fn size(x: &[f64], least: f64) -> f64 {
    x.iter().fold(least, |a, b| a.max(b.abs()))
}
