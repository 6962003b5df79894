//! Dot products of embeddings. Every metric goes through this one function, so that equal embeddings have
//! equal similarities and ties are real ties.

/// Partial sums, so that the compiler may use vector registers without reordering a sum.
const LANES: usize = 16;

/// Dot product of two vectors of the same length; the order of additions depends on the length alone.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::dot;

    #[test]
    fn every_length_counts_every_element() {
        for length in 0..70u32 {
            let a: Vec<f32> = (0..length).map(|i| (i + 1) as f32).collect();
            let squares = (1..=length).map(|i| i * i).sum::<u32>();
            assert_eq!(dot(&a, &a), squares as f32, "length {length}");
        }
    }
}
