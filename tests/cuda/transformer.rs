//! The stack of blocks on a GPU against that of the processor, in f32 and in bf16.

use std::sync::Arc;

use flip::kernel::activation::Activation;
use flip::kernel::backend::cpu::CpuBackend;
use flip::kernel::backend::{gpu::lacking, Backend, Size};
use flip::kernel::element::{Bf16, Element};
use flip::kernel::transformer::{Keep, Shape};

use crate::bound::*;
use crate::stack::{self, Run};
use crate::{each_gpu, each_gpu_and_plain};

fn shape(activation: Activation, causal: bool) -> Shape {
    Shape { width: 64, depth: 2, heads: 2, hidden: 128, activation, causal, norm_eps: 1e-6 }
}

/// Parameters of a size that keeps the stream near one.
fn parameters(shape: &Shape) -> Vec<Vec<f32>> {
    let (sizes, blocks) = stack::parameters(shape);
    let value = |(place, &Size { rows, columns, .. }): (usize, &Size)| {
        let scale = blocks.iter().any(|block| [block.norm1.scale, block.norm2.scale].contains(&place));
        let factor = if rows == 1 { 0.3 } else { 0.15 };
        let of = |x: f32| if scale { 1.0 + 0.3 * x } else { Bf16::from_f32(factor * x).to_f32() };
        numbers(1 + place as u32, rows * columns).into_iter().map(of).collect()
    };
    sizes.iter().enumerate().map(value).collect()
}

fn run<B: Backend>(backend: &B, shape: Shape, batch: usize, tokens: usize, keep: Keep) -> Run {
    let n = batch * tokens * shape.width;
    let values = parameters(&shape);
    stack::run(backend, &shape, &values, (batch, tokens, keep), &numbers(2, n), &numbers(3, n))
}

fn on_the_processor<E: Element>(shape: Shape, batch: usize, tokens: usize) -> Run {
    let [_, cpu] = one_and_two();
    run(&CpuBackend::<E>::new(Arc::new(cpu)), shape, batch, tokens, Keep::Everything)
}

/// |got - want| / |want| as vectors: what the fixtures bound.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(&a, &b)| square(a as f64 - b as f64)).sum();
    (difference / want.iter().map(|&x| square(x as f64)).sum::<f64>()).sqrt()
}

fn compare(what: &str, shape: &Shape, got: &Run, want: &Run, bound: f64) {
    for (name, got, want) in [("x", &got.x, &want.x), ("dx", &got.dx, &want.dx)] {
        let distance = distance(got, want);
        println!("{what}: {name} {distance:.2e}");
        assert!(distance < bound, "{what}: {name} is off by {distance:e}");
    }
    let biases: Vec<usize> = stack::parameters(shape).1.iter().map(|block| block.qkv.bias).collect();
    let mut most = 0.0f64;
    for (place, (got, want)) in got.gradients.iter().zip(&want.gradients).enumerate() {
        let (mut got, mut want) = (&got[..], &want[..]);
        if biases.contains(&place) {
            // The bias of keys cancels in the softmax: its gradient is zero but for rounding.
            let noise = size(&exact(&got[shape.width..2 * shape.width]), 0.0);
            assert!(noise < 2.0 * bound, "{what}: gradient {noise:e} of the bias of keys");
            (got, want) = (&got[..shape.width], &want[..shape.width]);
        }
        let distance = distance(got, want);
        most = most.max(distance);
        assert!(distance < bound, "{what}: gradient of parameter {place} is off by {distance:e}");
    }
    println!("{what}: gradients {most:.2e}");
}

#[test]
fn forward_and_every_gradient_are_those_of_the_processor() {
    each_gpu_and_plain!(gpu => {
        for (activation, causal) in [(Activation::GeluTanh, false), (Activation::GeluExact, true)] {
            let shape = shape(activation, causal);
            assert_eq!(lacking(&shape), None);
            let (batch, tokens) = (3, 9);
            let got = run(gpu, shape, batch, tokens, Keep::Everything);
            // Some tens of roundings of half of 2^-8 each.
            compare("f32", &shape, &got, &on_the_processor::<f32>(shape, batch, tokens), 2e-2);
            compare("bf16", &shape, &got, &on_the_processor::<Bf16>(shape, batch, tokens), 2e-2);
        }
    });
}

#[test]
fn recomputing_blocks_changes_nothing() {
    each_gpu!(gpu => {
        let run = |keep| run(gpu, shape(Activation::GeluTanh, false), 1, 70, keep);
        let (kept, anew) = (run(Keep::Everything), run(Keep::Inputs));
        assert!(kept == anew);
        assert!(kept.x == run(Keep::Nothing).x);
    });
}
