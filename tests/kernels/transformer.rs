use std::sync::Arc;

use flip::kernel::activation::Activation;
use flip::kernel::backend::cpu::CpuBackend;
use flip::kernel::backend::{Read, Size};
use flip::kernel::element::{Bf16, Element};
use flip::kernel::transformer::{reference, Block, Keep, Shape};
use flip::kernel::Cpu;

use super::bound::*;
use super::stack::{self, Run};

fn shape(causal: bool) -> Shape {
    let activation = if causal { Activation::GeluExact } else { Activation::GeluTanh };
    // An MLP of more than three times the width, and one of less: they lie in memory differently.
    let hidden = if causal { sized(40, 20) } else { sized(96, 40) };
    Shape { width: sized(24, 12), depth: 2, heads: 2, hidden, activation, causal, norm_eps: 1e-6 }
}

/// Parameters of a size that keeps the stream near one.
fn parameters<E: Element>(shape: &Shape) -> Vec<Vec<f32>> {
    let (sizes, blocks) = stack::parameters(shape);
    let value = |(place, &Size { rows, columns, read }): (usize, &Size)| {
        let scale = blocks.iter().any(|block| [block.norm1.scale, block.norm2.scale].contains(&place));
        let of = |x: f32| match read {
            Read::Weight => E::from_f32(x * 0.2).to_f32(),
            _ if scale => 1.0 + 0.3 * x,
            _ => 0.3 * x,
        };
        numbers(1 + place as u32, rows * columns).into_iter().map(of).collect()
    };
    sizes.iter().enumerate().map(value).collect()
}

fn run<E: Element>(cpu: Cpu, shape: Shape, batch: usize, tokens: usize, keep: Keep) -> Run {
    let n = batch * tokens * shape.width;
    let backend = CpuBackend::<E>::new(Arc::new(cpu));
    let values = parameters::<E>(&shape);
    stack::run(&backend, &shape, &values, (batch, tokens, keep), &numbers(2, n), &numbers(3, n))
}

/// |got - want| / |want| as vectors: what the fixtures bound.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(&a, &b)| square(a as f64 - b)).sum();
    (difference / want.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

/// Gradients of a block with their names.
fn named<T: Clone>(block: &Block<T>) -> [(&'static str, T); 12] {
    let Block { norm1, qkv, out, norm2, up, down } = block.clone();
    [
        ("norm1.scale", norm1.scale),
        ("norm1.shift", norm1.shift),
        ("qkv.weight", qkv.weight),
        ("qkv.bias", qkv.bias),
        ("out.weight", out.weight),
        ("out.bias", out.bias),
        ("norm2.scale", norm2.scale),
        ("norm2.shift", norm2.shift),
        ("up.weight", up.weight),
        ("up.bias", up.bias),
        ("down.weight", down.weight),
        ("down.bias", down.bias),
    ]
}

/// The values of a block's parameters among those of all.
fn of_block<T: Clone>(block: &Block<usize>, all: &[T]) -> Block<T> {
    let places = [
        [block.norm1.scale, block.norm1.shift],
        [block.norm2.scale, block.norm2.shift],
        [block.qkv.weight, block.qkv.bias],
        [block.out.weight, block.out.bias],
        [block.up.weight, block.up.bias],
        [block.down.weight, block.down.bias],
    ];
    let mut values = places.into_iter().flatten().map(|place| all[place].clone());
    Block::from_names(|_| values.next().unwrap())
}

fn blocks(shape: &Shape, values: &[Vec<f32>]) -> Vec<Block<Vec<f64>>> {
    let exact: Vec<Vec<f64>> = values.iter().map(|values| exact(values)).collect();
    stack::parameters(shape).1.iter().map(|block| of_block(block, &exact)).collect()
}

fn against_reference<E: Element>(cpu: Cpu, causal: bool, bound: f64) {
    let (shape, what) = (shape(causal), format!("{:?} {}", cpu.isa(), std::any::type_name::<E>()));
    let (batch, tokens) = (sized(3, 1), sized(9, 3));
    let got = run::<E>(cpu, shape, batch, tokens, Keep::Everything);
    let n = batch * tokens * shape.width;
    let given = blocks(&shape, &parameters::<E>(&shape));
    let (x, dout) = (exact(&numbers(2, n)), exact(&numbers(3, n)));
    let want = reference::forward_and_backward(&shape, &given, &x, &dout, batch);
    for (name, got, want) in [("x", &got.x, &want.out), ("dx", &got.dx, &want.dx)] {
        let distance = distance(got, want);
        assert!(distance < bound, "{what}: {name} is off by {distance:e}");
    }
    for (i, (places, want)) in stack::parameters(&shape).1.iter().zip(&want.gradients).enumerate() {
        for ((name, place), (_, want)) in named(places).into_iter().zip(named(want)) {
            let (mut got, mut want) = (&got.gradients[place][..], &want[..]);
            if name == "qkv.bias" {
                // The bias of keys cancels in the softmax: its gradient is zero but for rounding.
                let keys = shape.width..2 * shape.width;
                assert!(size(&want[keys.clone()], 0.0) < 1e-12);
                let noise = size(&exact(&got[keys]), 0.0);
                assert!(noise < 2.0 * bound, "{what}: gradient {noise:e} of the bias of keys");
                (got, want) = (&got[..shape.width], &want[..shape.width]);
            }
            let distance = distance(got, want);
            assert!(distance < bound, "{what}: gradient of {name} of block {i} is off by {distance:e}");
        }
    }
}

#[test]
fn forward_and_every_gradient_match_the_reference() {
    for causal in [false, true] {
        processors().into_iter().for_each(|cpu| against_reference::<f32>(cpu, causal, 2e-6));
        // Some tens of roundings of half of 2^-8 each.
        processors().into_iter().for_each(|cpu| against_reference::<Bf16>(cpu, causal, 2e-2));
    }
}

#[test]
fn recomputing_blocks_changes_nothing() {
    let run = |keep| {
        let each = processors().into_iter();
        each.map(|cpu| run::<Bf16>(cpu, shape(false), sized(2, 1), sized(7, 3), keep)).collect::<Vec<_>>()
    };
    let (kept, anew, nothing) = (run(Keep::Everything), run(Keep::Inputs), run(Keep::Nothing));
    assert!(kept == anew);
    assert!(kept.iter().zip(&nothing).all(|(kept, nothing)| kept.x == nothing.x));
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let [one, two] =
        one_and_two().map(|cpu| run::<Bf16>(cpu, shape(false), sized(5, 2), sized(17, 3), Keep::Everything));
    assert!(one == two);
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic without unsafe code")]
fn reference_matches_finite_differences() {
    let shape = Shape { width: 4, depth: 2, heads: 2, hidden: 8, ..shape(true) };
    let parameters = parameters::<f32>(&shape);
    let (x, dout) = (exact(&numbers(2, 24)), exact(&numbers(3, 24)));
    let found = reference::forward_and_backward(&shape, &blocks(&shape, &parameters), &x, &dout, 2);
    let value = |blocks: &[Block<Vec<f64>>], x: &[f64]| -> f64 {
        let out = reference::forward_and_backward(&shape, blocks, x, &dout, 2).out;
        out.iter().zip(&dout).map(|(a, b)| a * b).sum()
    };
    let h = 1e-5;
    let moved = |x: &[f64], i: usize, by: f64| {
        let mut x = x.to_vec();
        x[i] += by;
        x
    };
    let given = blocks(&shape, &parameters);
    for (i, dx) in found.dx.iter().enumerate() {
        let numeric = (value(&given, &moved(&x, i, h)) - value(&given, &moved(&x, i, -h))) / (2.0 * h);
        assert!((numeric - dx).abs() < 1e-7, "token value {i}");
    }
    let places = stack::parameters(&shape).1;
    let all: Vec<Vec<f64>> = parameters.iter().map(|values| exact(values)).collect();
    for (block, gradients) in places.iter().zip(&found.gradients) {
        for ((name, place), (_, gradient)) in named(block).into_iter().zip(named(gradients)) {
            for (i, gradient) in gradient.iter().enumerate() {
                let at = |by: f64| {
                    let mut all = all.clone();
                    all[place] = moved(&all[place], i, by);
                    let blocks: Vec<_> = places.iter().map(|block| of_block(block, &all)).collect();
                    value(&blocks, &x)
                };
                let numeric = (at(h) - at(-h)) / (2.0 * h);
                assert!((numeric - gradient).abs() < 1e-7, "{name}: parameter {i}");
            }
        }
    }
}
