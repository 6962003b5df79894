use flip::kernel::attention::{backward, forward, reference, Attention};
use flip::kernel::element::{Bf16, Element};
use flip::kernel::Cpu;

use super::bound::*;

fn against_reference<E: Element>(cpu: &Cpu, of: Attention, magnitude: f32) {
    let rows = of.batch * of.tokens;
    let qkv: Vec<f32> = numbers(1, rows * 3 * of.width()).iter().map(|x| x * magnitude).collect();
    let (qkv, dout) = (stored::<E>(&qkv), stored::<E>(&numbers(2, rows * of.width())));
    let mut out = vec![E::default(); dout.len()];
    let mut lse = vec![0.0; of.saved()];
    forward(cpu, &mut out, &mut lse, &qkv, of);
    let want = reference::forward(&exact(&qkv), of);
    // An error of S is relative to S, and goes into the exponent.
    let logit = 1.0 + (magnitude * magnitude) as f64 * (of.head as f64).sqrt();
    let what = format!("{:?} {of:?} x {magnitude}", cpu.isa());
    close::<E>(&format!("{what}: out"), &exact(&out), &want, 1, size(&want, 1.0));
    let mut dqkv = vec![E::default(); qkv.len()];
    let mut again = vec![E::default(); dout.len()];
    backward(cpu, &mut dqkv, &mut again, &dout, &qkv, &lse, of);
    close::<E>(&format!("{what}: out again"), &exact(&again), &want, 1, logit * size(&want, 1.0));
    let want = reference::backward(&exact(&dout), &exact(&qkv), of);
    close::<E>(&format!("{what}: dqkv"), &exact(&dqkv), &want, 1, logit * size(&want, 1.0));
}

#[test]
fn every_length_head_and_instruction_set() {
    for cpu in processors() {
        // Under Miri, lengths just below and above the width of its vectors.
        let some =
            LENGTHS.into_iter().enumerate().filter(|(_, tokens)| !cfg!(miri) || [7, 9].contains(tokens));
        for (i, tokens) in some {
            let head = [12, 13, 64, sized(80, 17), 128, 32][i];
            for causal in [false, true] {
                let of = Attention { batch: sized(2, 1), tokens, heads: 2, head, causal };
                against_reference::<f32>(&cpu, of, 1.0);
                against_reference::<Bf16>(&cpu, of, 1.0);
            }
        }
    }
}

#[test]
fn large_and_small_logits() {
    for cpu in processors() {
        let of = Attention { batch: 1, tokens: 9, heads: 1, head: 16, causal: false };
        for magnitude in [1e-12, 8.0] {
            against_reference::<f32>(&cpu, of, magnitude);
            against_reference::<Bf16>(&cpu, of, magnitude);
        }
    }
}

#[test]
fn a_dominant_key_takes_everything() {
    for cpu in processors() {
        let of = Attention { batch: 1, tokens: 3, heads: 1, head: 2, causal: false };
        // Token 1 has a key that every query likes by more than an exponential can hold.
        let mut qkv = vec![0.0f32; 18];
        for i in 0..3 {
            qkv[i * 6] = 100.0;
            qkv[i * 6 + 4] = i as f32;
        }
        qkv[6 + 2] = 100.0;
        let (mut out, mut lse) = (vec![0.0f32; 6], vec![0.0; 3]);
        forward(&cpu, &mut out, &mut lse, &qkv, of);
        assert_eq!(out, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let mut dqkv = vec![f32::NAN; 18];
        let mut again = vec![f32::NAN; 6];
        backward(&cpu, &mut dqkv, &mut again, &[1.0; 6], &qkv, &lse, of);
        assert!(dqkv.iter().all(|x| x.is_finite()));
        // The logit is 1e4 / sqrt(2), and an error of it goes into the exponent.
        let bound = 1e4 * f32::EPSILON;
        assert!(again.iter().zip(&out).all(|(again, out)| (again - out).abs() <= bound), "{again:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic without unsafe code")]
fn reference_matches_finite_differences() {
    let of = Attention { batch: 1, tokens: 3, heads: 2, head: 2, causal: true };
    let qkv = exact(&numbers(1, 36));
    let dout = exact(&numbers(2, 12));
    let gradient = reference::backward(&dout, &qkv, of);
    let value =
        |qkv: &[f64]| -> f64 { reference::forward(qkv, of).iter().zip(&dout).map(|(a, b)| a * b).sum() };
    for i in 0..qkv.len() {
        let (mut up, mut down) = (qkv.clone(), qkv.clone());
        up[i] += 1e-5;
        down[i] -= 1e-5;
        assert!(((value(&up) - value(&down)) / 2e-5 - gradient[i]).abs() < 1e-8);
    }
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let (batch, tokens, heads, head) = (sized(3, 2), sized(63, 7), sized(3, 2), sized(24, 9));
    let of = Attention { batch, tokens, heads, head, causal: false };
    let qkv = stored::<Bf16>(&numbers(1, batch * tokens * 3 * of.width()));
    let dout = stored::<Bf16>(&numbers(2, batch * tokens * of.width()));
    let [one, two] = one_and_two().map(|cpu| {
        let (mut out, mut lse, mut dqkv) = (dout.clone(), vec![0.0; of.saved()], qkv.clone());
        forward(&cpu, &mut out, &mut lse, &qkv, of);
        let mut again = dout.clone();
        backward(&cpu, &mut dqkv, &mut again, &dout, &qkv, &lse, of);
        (out, lse, dqkv, again)
    });
    assert_eq!(one, two);
}
