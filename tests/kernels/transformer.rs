use flip::kernel::activation::Activation;
use flip::kernel::element::{Bf16, Element};
use flip::kernel::transformer::{pack, reference, Activations, Keep, Layout, Part, Shape, Stack};
use flip::kernel::Cpu;

use super::bound::*;

fn shape(causal: bool) -> Shape {
    let activation = if causal { Activation::GeluExact } else { Activation::GeluTanh };
    // An MLP of more than three times the width, and one of less: they lie in memory differently.
    let hidden = if causal { sized(40, 20) } else { sized(96, 40) };
    Shape { width: sized(24, 12), depth: 2, heads: 2, hidden, activation, causal, norm_eps: 1e-6 }
}

/// Parameters of a size that keeps the stream near one.
fn parameters<E: Element>(shape: &Shape) -> Vec<f32> {
    let layout = Layout::new(shape);
    let mut flat = numbers(1, layout.len());
    for entry in layout.entries() {
        let part = &mut flat[entry.range.clone()];
        match entry.part {
            Part::Norm1Scale | Part::Norm2Scale => part.iter_mut().for_each(|x| *x = 1.0 + 0.3 * *x),
            _ if entry.shape[0] == 1 => part.iter_mut().for_each(|x| *x *= 0.3),
            _ => part.iter_mut().for_each(|x| *x = E::from_f32(*x * 0.2).to_f32()),
        }
    }
    flat
}

struct Run {
    x: Vec<f32>,
    dx: Vec<f32>,
    gradients: Vec<f32>,
}

fn run<E: Element>(cpu: &Cpu, shape: Shape, batch: usize, tokens: usize, keep: Keep) -> Run {
    let (layout, flat) = (Layout::new(&shape), parameters::<E>(&shape));
    let packed = pack::<E>(cpu, &shape, &flat);
    let stack = Stack::of(shape, &flat, &packed);
    let mut activations = Activations::<E>::new(&shape, batch, tokens, keep);
    activations.x.copy_from_slice(&numbers(2, batch * tokens * shape.width));
    let mut gradients = vec![0.0; layout.len()];
    stack.forward(cpu, &mut activations);
    let x = activations.x.clone();
    activations.dx().copy_from_slice(&numbers(3, x.len()));
    stack.backward(cpu, &mut activations, &mut layout.split(&mut gradients));
    Run { x, dx: activations.dx().to_vec(), gradients }
}

/// |got - want| / |want| as vectors: what the fixtures bound.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(&a, b)| square(a as f64 - b)).sum();
    (difference / want.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

fn against_reference<E: Element>(cpu: &Cpu, causal: bool, bound: f64) {
    let shape = shape(causal);
    let (batch, tokens) = (sized(3, 1), sized(9, 3));
    let got = run::<E>(cpu, shape, batch, tokens, Keep::Everything);
    let flat = exact(&parameters::<E>(&shape));
    let n = batch * tokens * shape.width;
    let (x, dx, gradients) =
        reference::forward_and_backward(&shape, &flat, &exact(&numbers(2, n)), &exact(&numbers(3, n)), batch);
    let what = format!("{:?} {}", cpu.isa(), std::any::type_name::<E>());
    for (name, got, want) in [("x", &got.x, &x), ("dx", &got.dx, &dx)] {
        let distance = distance(got, want);
        assert!(distance < bound, "{what}: {name} is off by {distance:e}");
    }
    for entry in Layout::new(&shape).entries() {
        let (mut got, mut want) = (&got.gradients[entry.range.clone()], &gradients[entry.range.clone()]);
        if entry.part == Part::QkvBias {
            // The bias of keys cancels in the softmax: its gradient is zero but for rounding.
            let keys = shape.width..2 * shape.width;
            assert!(size(&want[keys.clone()], 0.0) < 1e-12);
            let noise = size(&exact(&got[keys]), 0.0);
            assert!(noise < 2.0 * bound, "{what}: gradient {noise:e} of the bias of keys");
            (got, want) = (&got[..shape.width], &want[..shape.width]);
        }
        let distance = distance(got, want);
        assert!(
            distance < bound,
            "{what}: gradient of {:?} of block {} is off by {distance:e}",
            entry.part,
            entry.block
        );
    }
}

#[test]
fn forward_and_every_gradient_match_the_reference() {
    for cpu in processors() {
        for causal in [false, true] {
            against_reference::<f32>(&cpu, causal, 2e-6);
            // Some tens of roundings of half of 2^-8 each.
            against_reference::<Bf16>(&cpu, causal, 2e-2);
        }
    }
}

#[test]
fn recomputing_blocks_changes_nothing() {
    for cpu in processors() {
        let run = |keep| run::<Bf16>(&cpu, shape(false), sized(2, 1), sized(7, 3), keep);
        let (kept, anew) = (run(Keep::Everything), run(Keep::Inputs));
        assert!(kept.x == anew.x && kept.dx == anew.dx && kept.gradients == anew.gradients);
    }
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let [one, two] =
        one_and_two().map(|cpu| run::<Bf16>(&cpu, shape(false), sized(5, 2), sized(17, 3), Keep::Everything));
    assert!(one.x == two.x && one.dx == two.dx && one.gradients == two.gradients);
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic without unsafe code")]
fn reference_matches_finite_differences() {
    let shape = Shape { width: 4, depth: 2, heads: 2, hidden: 8, ..shape(true) };
    let flat = exact(&parameters::<f32>(&shape));
    let (x, dout) = (exact(&numbers(2, 24)), exact(&numbers(3, 24)));
    let (_, dx, gradients) = reference::forward_and_backward(&shape, &flat, &x, &dout, 2);
    let value = |flat: &[f64], x: &[f64]| -> f64 {
        let out = reference::forward_and_backward(&shape, flat, x, &dout, 2).0;
        out.iter().zip(&dout).map(|(a, b)| a * b).sum()
    };
    let moved = |x: &[f64], i: usize, by: f64| {
        let mut x = x.to_vec();
        x[i] += by;
        x
    };
    let h = 1e-5;
    for (i, dx) in dx.iter().enumerate() {
        let numeric = (value(&flat, &moved(&x, i, h)) - value(&flat, &moved(&x, i, -h))) / (2.0 * h);
        assert!((numeric - dx).abs() < 1e-7, "token value {i}");
    }
    for (i, gradient) in gradients.iter().enumerate() {
        let numeric = (value(&moved(&flat, i, h), &x) - value(&moved(&flat, i, -h), &x)) / (2.0 * h);
        assert!((numeric - gradient).abs() < 1e-7, "parameter {i}");
    }
}

#[test]
fn memory_is_what_was_said() {
    for keep in [Keep::Everything, Keep::Inputs, Keep::Nothing] {
        let shape = shape(false);
        let a = Activations::<Bf16>::new(&shape, 3, 7, keep);
        assert_eq!(a.held(), Activations::<Bf16>::bytes(&shape, 3, 7, keep));
    }
}
