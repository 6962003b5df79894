use flip::kernel::attention::cuda::{backward, forward, Saved, HEADS};
use flip::kernel::attention::{reference, Attention};
use flip::kernel::cuda::Gpu;
use flip::kernel::element::Bf16;

use crate::bound::*;
use crate::{down, each_gpu};

fn against_reference<G: Gpu>(gpu: &G, of: Attention, magnitude: f32) {
    let rows = of.batch * of.tokens;
    let qkv: Vec<f32> = numbers(1, rows * 3 * of.width()).iter().map(|x| x * magnitude).collect();
    let (qkv, dout) = (stored::<Bf16>(&qkv), stored::<Bf16>(&numbers(2, rows * of.width())));
    let (on, of_out) = (gpu.upload(&qkv).unwrap(), gpu.upload(&dout).unwrap());
    let mut out = gpu.zeros::<Bf16>(dout.len()).unwrap();
    let (mut lse, mut dots) = (gpu.zeros::<f32>(of.saved()).unwrap(), gpu.zeros::<f32>(of.saved()).unwrap());
    let (to, saved) = (gpu.view_mut(&mut out), gpu.view_mut(&mut lse));
    forward(gpu, to, saved, gpu.view(&on), of).unwrap();
    let want = reference::forward(&exact(&qkv), of);
    // An error of S is relative to S, and goes into the exponent.
    let logit = 1.0 + (magnitude * magnitude) as f64 * (of.head as f64).sqrt();
    close::<Bf16>(
        &format!("{of:?} x {magnitude}: out"),
        &exact(&down(gpu, &out)),
        &want,
        1,
        size(&want, 1.0),
    );

    let mut dqkv = gpu.upload(&vec![Bf16::from_bits_of_nan(); qkv.len()]).unwrap();
    let saved = Saved { qkv: gpu.view(&on), out: gpu.view(&out), lse: gpu.view(&lse) };
    let (to, scratch) = (gpu.view_mut(&mut dqkv), gpu.view_mut(&mut dots));
    backward(gpu, to, scratch, gpu.view(&of_out), saved, of).unwrap();
    let want = reference::backward(&exact(&dout), &exact(&qkv), of);
    let got = exact(&down(gpu, &dqkv));
    close::<Bf16>(&format!("{of:?} x {magnitude}: dqkv"), &got, &want, 1, logit * size(&want, 1.0));
    for (i, what) in ["queries", "keys", "values"].into_iter().enumerate() {
        let part = |all: &[f64]| -> Vec<f64> {
            all.chunks(3 * of.width()).flat_map(|row| row[i * of.width()..][..of.width()].to_vec()).collect()
        };
        let distance = distance(&part(&got), &part(&want));
        assert!(distance < 2e-2, "{of:?} x {magnitude}: the gradient of {what} is off by {distance:e}");
    }
}

/// |got - want| / |want| as vectors; of a gradient that is zero but for rounding, |got|.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    let length = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let apart = length(&mut got.iter().zip(want).map(|(a, b)| a - b));
    let whole = length(&mut want.iter().copied());
    if whole < 1e-9 {
        apart
    } else {
        apart / whole
    }
}

/// Every place must be written.
trait Nan {
    fn from_bits_of_nan() -> Self;
}
impl Nan for Bf16 {
    fn from_bits_of_nan() -> Self {
        Bf16(0x7fc0)
    }
}

#[test]
fn every_head_there_is_a_kernel_for() {
    each_gpu!(gpu => {
        for (i, head) in HEADS.into_iter().enumerate() {
            let tokens = [9, 17, 1, 7, 16, 5, 17, 33, 20, 8, 63, 64][i];
            for causal in [false, true] {
                against_reference(gpu, Attention { batch: 2, tokens, heads: 2, head, causal }, 1.0);
            }
        }
    });
}

#[test]
fn sequences_of_several_chunks() {
    each_gpu!(gpu => {
        for (tokens, head) in [(65, 64), (99, 64), (130, 80), (197, 32), (70, 12), (66, 88)] {
            for causal in [false, true] {
                against_reference(gpu, Attention { batch: 1, tokens, heads: 1, head, causal }, 1.0);
            }
        }
    });
}

#[test]
fn large_and_small_logits() {
    each_gpu!(gpu => {
        let of = Attention { batch: 1, tokens: 70, heads: 1, head: 32, causal: false };
        for magnitude in [1e-12, 8.0] {
            against_reference(gpu, of, magnitude);
        }
    });
}
