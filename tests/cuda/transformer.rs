//! The stack of blocks on a machine against that of the processor, in f32 and in bf16.

use flip::kernel::activation::Activation;
use flip::kernel::cuda::copies::Copies;
use flip::kernel::cuda::room::Room;
use flip::kernel::cuda::{Machine, ViewMut};
use flip::kernel::element::{Bf16, Element};
use flip::kernel::transformer::cuda::{lacking, Activations, Stack};
use flip::kernel::transformer::{self as on_cpu, Keep, Layout, Part, Shape};

use crate::bound::*;
use crate::{down, each_machine, each_machine_and_plain};

fn shape(activation: Activation, causal: bool) -> Shape {
    Shape { width: 64, depth: 2, heads: 2, hidden: 128, activation, causal, norm_eps: 1e-6 }
}

/// Parameters of a size that keeps the stream near one.
fn parameters(shape: &Shape) -> Vec<f32> {
    let layout = Layout::new(shape);
    let mut flat = numbers(1, layout.len());
    for entry in layout.entries() {
        let part = &mut flat[entry.range.clone()];
        match entry.part {
            Part::Norm1Scale | Part::Norm2Scale => part.iter_mut().for_each(|x| *x = 1.0 + 0.3 * *x),
            _ if entry.shape[0] == 1 => part.iter_mut().for_each(|x| *x = Bf16::from_f32(*x * 0.3).to_f32()),
            _ => part.iter_mut().for_each(|x| *x = Bf16::from_f32(*x * 0.15).to_f32()),
        }
    }
    flat
}

#[derive(PartialEq)]
struct Run {
    x: Vec<f32>,
    dx: Vec<f32>,
    gradients: Vec<f32>,
}

fn on_the_processor<E: Element>(shape: Shape, batch: usize, tokens: usize) -> Run {
    let [_, cpu] = one_and_two();
    let (layout, flat) = (Layout::new(&shape), parameters(&shape));
    let packed = on_cpu::pack::<E>(&cpu, &shape, &flat);
    let stack = on_cpu::Stack::of(shape, &flat, &packed);
    let mut activations = on_cpu::Activations::<E>::new(&shape, batch, tokens, Keep::Everything);
    activations.x.copy_from_slice(&numbers(2, batch * tokens * shape.width));
    let mut gradients = vec![0.0; layout.len()];
    stack.forward(&cpu, &mut activations);
    let x = activations.x.clone();
    activations.dx().copy_from_slice(&numbers(3, x.len()));
    stack.backward(&cpu, &mut activations, &mut layout.split(&mut gradients));
    Run { x, dx: activations.dx().to_vec(), gradients }
}

fn on_a_machine<M: Machine>(machine: &M, shape: Shape, batch: usize, tokens: usize, keep: Keep) -> Run {
    assert_eq!(lacking(&shape), None);
    let layout = Layout::new(&shape);
    let mut copies = Copies::new(machine, &Stack::reads(&shape)).unwrap();
    let flat = machine.upload(&parameters(&shape)).unwrap();
    for (i, entry) in layout.entries().iter().enumerate() {
        let master = machine.view(&flat).part(entry.range.start, entry.range.len());
        copies.load(machine, i, master).unwrap();
    }
    let bytes = Activations::bytes(&shape, batch, tokens, keep);
    // What is left over from another use must not matter.
    let mut memory = machine.upload(&vec![0xffu8; bytes]).unwrap();
    let mut gradients = machine.zeros::<f32>(layout.len()).unwrap();
    let n = batch * tokens * shape.width;
    let mut room = Room::new(machine.view_mut(&mut memory));
    let mut activations = Activations::take(&mut room, &shape, batch, tokens, keep);
    let stack = Stack { shape, first: 0 };
    machine.write(activations.x.again(), &numbers(2, n)).unwrap();
    stack.forward(machine, &copies, &mut activations).unwrap();
    let x = machine.read(activations.x.read()).unwrap();
    if keep == Keep::Nothing {
        return Run { x, dx: Vec::new(), gradients: Vec::new() };
    }
    machine.write(activations.dx.again(), &numbers(3, n)).unwrap();
    let all = machine.view_mut(&mut gradients);
    let mut views: Vec<ViewMut<f32>> = layout
        .entries()
        .iter()
        // SAFETY: entries do not overlap.
        .map(|entry| unsafe { ViewMut::new(all.address() + 4 * entry.range.start as u64, entry.range.len()) })
        .collect();
    stack.backward(machine, &copies, &mut activations, &mut views).unwrap();
    let dx = machine.read(activations.dx.read()).unwrap();
    drop(views);
    Run { x, dx, gradients: down(machine, &gradients) }
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
    let mut most = 0.0f64;
    for entry in Layout::new(shape).entries() {
        let (mut got, mut want) = (&got.gradients[entry.range.clone()], &want.gradients[entry.range.clone()]);
        if entry.part == Part::QkvBias {
            // The bias of keys cancels in the softmax: its gradient is zero but for rounding.
            let noise = size(&exact(&got[shape.width..2 * shape.width]), 0.0);
            assert!(noise < 2.0 * bound, "{what}: gradient {noise:e} of the bias of keys");
            (got, want) = (&got[..shape.width], &want[..shape.width]);
        }
        let distance = distance(got, want);
        most = most.max(distance);
        assert!(
            distance < bound,
            "{what}: gradient of {:?} of block {} is off by {distance:e}",
            entry.part,
            entry.block
        );
    }
    println!("{what}: gradients {most:.2e}");
}

#[test]
fn forward_and_every_gradient_are_those_of_the_processor() {
    each_machine_and_plain!(machine => {
        for (activation, causal) in [(Activation::GeluTanh, false), (Activation::GeluExact, true)] {
            let shape = shape(activation, causal);
            let (batch, tokens) = (3, 9);
            let got = on_a_machine(machine, shape, batch, tokens, Keep::Everything);
            // Some tens of roundings of half of 2^-8 each.
            compare("f32", &shape, &got, &on_the_processor::<f32>(shape, batch, tokens), 2e-2);
            compare("bf16", &shape, &got, &on_the_processor::<Bf16>(shape, batch, tokens), 2e-2);
        }
    });
}

#[test]
fn recomputing_blocks_changes_nothing() {
    each_machine!(machine => {
        let shape = shape(Activation::GeluTanh, false);
        let run = |keep| on_a_machine(machine, shape, 1, 70, keep);
        let (kept, anew) = (run(Keep::Everything), run(Keep::Inputs));
        assert!(kept == anew);
        assert!(kept.x == run(Keep::Nothing).x);
    });
}
