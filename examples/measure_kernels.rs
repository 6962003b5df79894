//! Times the kernels of one training step: milliseconds, rate, and the rate as a share of a bare product's.
//!
//! ```text
//! cargo run --release --example measure_kernels -- [--threads 2] [--model b16] [--tokens 99] [--batch 16] [name]
//! ```
//!
//! A name selects kernels that contain it. Each is run first on the same data on one thread with portable code:
//! a kernel whose result differs is not timed. `FLIP_ISA` selects an instruction set.

use std::sync::Arc;
use std::time::Instant;

use flip::kernel::activation::Activation;
use flip::kernel::adamw::{AdamW, Values};
use flip::kernel::arena::Arena;
use flip::kernel::attention;
use flip::kernel::backend::cpu::{CpuBackend, NEEDS};
use flip::kernel::backend::Memory;
use flip::kernel::contrastive::loss_and_gradients;
use flip::kernel::element::{Bf16, Element};
use flip::kernel::gemm::epilogue::{Activate, ActivateBackward, Add, Grid, Write};
use flip::kernel::gemm::{product, weight_gradient, Left, Packed, Right};
use flip::kernel::isa::Isa;
use flip::kernel::layer_norm;
use flip::kernel::transformer::{Activations, Gradients, Keep, Shape, Stack};
use flip::kernel::view::ViewMut;
use flip::kernel::Cpu;

#[path = "../tests/kernels/stack.rs"]
#[allow(dead_code)]
mod stack;

/// What a kernel is bound by.
#[derive(Clone, Copy)]
enum Work {
    Operations(f64),
    Bytes(f64),
}

struct Measure {
    cpu: Arc<Cpu>,
    plain: Arc<Cpu>,
    only: String,
    /// Best rate of a bare product in the precision being measured, operations a second.
    ceiling: f64,
}

impl Measure {
    /// Runs `f` on both processors from the same start, compares what it leaves in `state`, then times it.
    fn kernel<S: Clone>(
        &mut self,
        name: &str,
        work: Work,
        state: &S,
        f: impl Fn(&Cpu, &mut S),
        result: impl Fn(&S) -> Vec<f32>,
        tolerance: f32,
    ) {
        if !name.contains(&self.only) {
            return;
        }
        let (mut got, mut want) = (state.clone(), state.clone());
        f(&self.cpu, &mut got);
        f(&self.plain, &mut want);
        let (got, want) = (result(&got), result(&want));
        let size = want.iter().fold(1e-30f32, |a, x| a.max(x.abs()));
        let off = got.iter().zip(&want).fold(0.0f32, |a, (x, y)| a.max((x - y).abs())) / size;
        if off.is_nan() || off > tolerance {
            println!("{name:34} WRONG: off by {off:.1e} of the largest value; tolerance {tolerance:.1e}");
            return;
        }
        let mut state = state.clone();
        let mut seconds = Vec::new();
        let start = Instant::now();
        while seconds.len() < 5 || (start.elapsed().as_secs_f64() < 0.4 && seconds.len() < 200) {
            let start = Instant::now();
            f(&self.cpu, &mut state);
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let (best, median) = (seconds[0], seconds[seconds.len() / 2]);
        let rate = match work {
            Work::Operations(n) => {
                let share = n / best / self.ceiling;
                format!("{:7.0} GFLOP/s  {:4.0} % of a bare product", n / best / 1e9, 100.0 * share)
            }
            Work::Bytes(n) => format!("{:7.1} GB/s", n / best / 1e9),
        };
        println!("{name:34} {:9.3} ms (median {:9.3}) {rate}", best * 1e3, median * 1e3);
    }
}

fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn stored<E: Element>(x: &[f32]) -> Vec<E> {
    x.iter().map(|&x| E::from_f32(x)).collect()
}

fn back<E: Element>(x: &[E]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// A linear layer [rows, k] -> [rows, n] in all directions.
fn linear<E: Element>(m: &mut Measure, name: &str, (rows, k, n): (usize, usize, usize)) {
    let work = Work::Operations(2.0 * rows as f64 * k as f64 * n as f64);
    let tolerance = 8.0 * E::EPSILON;
    let weight: Vec<f32> = numbers(2, k * n).iter().map(|x| x / (k as f32).sqrt()).collect();
    let pack = |cpu: &Cpu| {
        let mut packed = Packed::<E>::zeroed(cpu, k, n);
        packed.pack(cpu, &weight);
        packed
    };
    let weights = [(m.cpu.isa(), pack(&m.cpu)), (m.plain.isa(), pack(&m.plain))];
    let of = |cpu: &Cpu| if cpu.isa() == weights[0].0 { &weights[0].1 } else { &weights[1].1 };
    let (x, dy, bias) =
        (stored::<E>(&numbers(1, rows * k)), stored::<E>(&numbers(3, rows * n)), numbers(4, n));
    let wide = (stored::<E>(&numbers(5, rows * n)), stored::<E>(&numbers(6, rows * n)));
    let forward = (rows, k, n);

    let f = |cpu: &Cpu, y: &mut Vec<E>| {
        let to = Write { to: Grid::new(y, n), bias: Some(&bias) };
        product(cpu, &to, Left::whole(&x, k), Right::Packed(of(cpu)), forward);
    };
    m.kernel(&format!("{name} forward, bias"), work, &wide.0, f, |y| back(y), tolerance);
    let f = |cpu: &Cpu, (x_, y): &mut (Vec<E>, Vec<E>)| {
        let (before, after) = (Grid::new(x_, n), Grid::new(y, n));
        let to = Activate { before, after, bias: &bias, activation: Activation::GeluTanh };
        product(cpu, &to, Left::whole(&x, k), Right::Packed(of(cpu)), forward);
    };
    m.kernel(&format!("{name} forward, GELU"), work, &wide, f, |y| back(&y.1), tolerance);
    let f = |cpu: &Cpu, y: &mut Vec<f32>| {
        let to = Add { to: Grid::new(y, n), bias: Some(&bias) };
        product(cpu, &to, Left::whole(&x, k), Right::Packed(of(cpu)), forward);
    };
    m.kernel(&format!("{name} forward, residual"), work, &vec![0.0; rows * n], f, |y| y.clone(), tolerance);
    let f = |cpu: &Cpu, dx: &mut Vec<E>| {
        let to = Write { to: Grid::new(dx, k), bias: None };
        product(cpu, &to, Left::whole(&dy, n), Right::PackedTransposed(of(cpu)), (rows, n, k));
    };
    m.kernel(&format!("{name} dx"), work, &x, f, |y| back(y), tolerance);
    let f = |cpu: &Cpu, (before, gradient): &mut (Vec<E>, Vec<E>)| {
        let (before, gradient) = (Grid::new(before, k), Grid::new(gradient, k));
        let to = ActivateBackward { before, gradient, activation: Activation::GeluTanh };
        product(cpu, &to, Left::whole(&dy, n), Right::PackedTransposed(of(cpu)), (rows, n, k));
    };
    m.kernel(&format!("{name} dx, GELU'"), work, &(x.clone(), x.clone()), f, |y| back(&y.1), tolerance);
    let f = |cpu: &Cpu, (dw, db): &mut (Vec<f32>, Vec<f32>)| {
        let x = Left::Columns { data: &x, stride: k };
        weight_gradient(cpu, dw, Some(db), x, (&dy, n), (rows, k, n));
    };
    m.kernel(&format!("{name} dw"), work, &(vec![0.0; k * n], vec![0.0; n]), f, |y| y.0.clone(), tolerance);
}

fn around_products<E: Element>(m: &mut Measure, shape: Shape, batch: usize, tokens: usize) {
    let (rows, width, size) = (batch * tokens, shape.width, size_of::<E>() as f64);
    let values = (rows * width) as f64;
    let tolerance = 8.0 * E::EPSILON;
    let (x, dy) = (numbers(1, rows * width), stored::<E>(&numbers(2, rows * width)));
    let (scale, shift) = (numbers(3, width), numbers(4, width));

    let f = |cpu: &Cpu, (y, normal, rstd): &mut (Vec<E>, Vec<E>, Vec<f32>)| {
        layer_norm::forward(cpu, y, normal, rstd, &x, &scale, &shift, 1e-6)
    };
    let start = (dy.clone(), dy.clone(), vec![0.0; rows]);
    let work = Work::Bytes(values * (4.0 + 2.0 * size));
    m.kernel("layer_norm forward", work, &start, f, |s| back(&s.0), tolerance);
    let f = |cpu: &Cpu, (dx, rounded, ds): &mut (Vec<f32>, Vec<E>, Vec<f32>)| {
        let saved = layer_norm::Saved { normal: &dy, rstd: &shift_rows(rows) };
        let (dscale, dshift) = ds.split_at_mut(width);
        layer_norm::backward(cpu, dx, Some(rounded), dscale, dshift, &dy, saved, &scale)
    };
    let start = (x.clone(), dy.clone(), vec![0.0; 2 * width]);
    let work = Work::Bytes(values * (8.0 + 3.0 * size));
    m.kernel("layer_norm backward", work, &start, f, |s| s.0.clone(), tolerance);

    let of = shape.attention(batch, tokens);
    let qkv = stored::<E>(&numbers(5, 3 * rows * width));
    let operations = 4.0 * values * tokens as f64;
    let f = |cpu: &Cpu, (out, lse): &mut (Vec<E>, Vec<f32>)| attention::forward(cpu, out, lse, &qkv, of);
    let start = (dy.clone(), vec![0.0; of.saved()]);
    m.kernel("attention forward", Work::Operations(operations), &start, f, |s| back(&s.0), tolerance);
    let mut saved = start;
    attention::forward(&m.cpu, &mut saved.0, &mut saved.1, &qkv, of);
    let f = |cpu: &Cpu, (dqkv, out): &mut (Vec<E>, Vec<E>)| {
        attention::backward(cpu, dqkv, out, &dy, &qkv, &saved.1, of)
    };
    let start = (qkv.clone(), saved.0.clone());
    m.kernel("attention backward", Work::Operations(3.0 * operations), &start, f, |s| back(&s.0), tolerance);
}

fn shift_rows(rows: usize) -> Vec<f32> {
    vec![1.0; rows]
}

fn whole_stack<E: Element>(m: &mut Measure, shape: Shape, batch: usize, tokens: usize) {
    let rows = batch * tokens;
    let shape = Shape { depth: 2, ..shape };
    let products = 2 * rows * shape.width * (4 * shape.width + 2 * shape.hidden);
    let forward = shape.depth as f64 * (products + 4 * rows * tokens * shape.width) as f64;
    let values: Vec<Vec<f32>> = stack::parameters(&shape)
        .0
        .iter()
        .enumerate()
        .map(|(place, size)| {
            let factor = 1.0 / (size.rows as f32).sqrt();
            numbers(1 + place as u32, size.rows * size.columns).iter().map(|x| x * factor).collect()
        })
        .collect();
    let backends = [&m.cpu, &m.plain].map(|cpu| CpuBackend::<E>::new(cpu.clone()));
    let held = backends.each_ref().map(|backend| stack::Held::new(backend, &shape, &values));
    let isa = m.cpu.isa();
    let x = numbers(2, rows * shape.width);
    let bytes = Activations::<E>::bytes(NEEDS, &shape, batch, tokens, Keep::Everything);
    let memory =
        std::cell::RefCell::new(backends.each_ref().map(|backend| backend.zeros::<u8>(bytes).unwrap()));
    let run = |cpu: &Cpu, gradients: &mut Vec<Vec<f32>>| {
        let (which, memory) = (usize::from(cpu.isa() != isa), &mut *memory.borrow_mut());
        let (backend, held) = (&backends[which], &held[which]);
        let (weights, stack) = (held.weights(backend), Stack { shape: &shape, blocks: &held.blocks });
        let mut arena = Arena::new(backend.view_mut(&mut memory[which]));
        let mut a = Activations::<E>::take(&mut arena, NEEDS, &shape, batch, tokens, Keep::Everything);
        backend.write(a.x.reborrow(), &x).unwrap();
        stack.forward(&weights, &mut a).unwrap();
        backend.write(a.backward().dx, &x).unwrap();
        // SAFETY: the gradients are borrowed, by nobody else.
        let view = |g: &mut Vec<f32>| Some(unsafe { ViewMut::new(g.as_mut_ptr(), g.len()) });
        let views = gradients.iter_mut().map(view).collect();
        stack.backward(&weights, &mut a, &mut Gradients(views)).unwrap();
    };
    let start: Vec<Vec<f32>> = values.iter().map(|values| vec![0.0; values.len()]).collect();
    let tolerance = 64.0 * E::EPSILON;
    m.kernel(
        "two blocks, forward and backward",
        Work::Operations(3.0 * forward),
        &start,
        run,
        |s| s.concat(),
        tolerance,
    );
}

fn update_and_loss(m: &mut Measure, width: usize) {
    let n = 4 << 20;
    let update = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t: 3, gradient: 1.0 };
    type Four = [Vec<f32>; 4];
    let f = |cpu: &Cpu, [p, m, v, g]: &mut Four| update.update(cpu, Values { p, m, v, g });
    let start = [numbers(2, n), vec![0.0; n], vec![0.0; n], numbers(1, n)];
    m.kernel("adamw, 4 Mi, one thread", Work::Bytes(32.0 * n as f64), &start, f, |s| s[0].clone(), 1e-6);
    for pairs in [16, 128, 4096] {
        let unit = |seed| {
            let mut x = numbers(seed, pairs * width);
            for row in x.chunks_mut(width) {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
            x
        };
        let (images, texts) = (unit(3), unit(4));
        let f = |cpu: &Cpu, (a, b): &mut (Vec<f32>, Vec<f32>)| {
            loss_and_gradients(cpu, a, b, &images, &texts, 14.3, width);
        };
        let operations = 12.0 * (pairs * pairs * width) as f64;
        let start = (images.clone(), texts.clone());
        m.kernel(
            &format!("contrastive, {pairs} pairs"),
            Work::Operations(operations),
            &start,
            f,
            |s| s.0.clone(),
            1e-4,
        );
    }
}

fn ceiling<E: Element>(cpu: &Cpu, (rows, k, n): (usize, usize, usize)) -> f64 {
    let mut packed = Packed::<E>::zeroed(cpu, k, n);
    packed.pack(cpu, &numbers(1, k * n));
    let (x, mut y) = (stored::<E>(&numbers(2, rows * k)), vec![E::default(); rows * n]);
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        let to = Write { to: Grid::new(&mut y, n), bias: None };
        product(cpu, &to, Left::whole(&x, k), Right::Packed(&packed), (rows, k, n));
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (rows * k * n) as f64 / best
}

fn all<E: Element>(m: &mut Measure, name: &str, shape: Shape, batch: usize, tokens: usize) {
    let (rows, width, hidden) = (batch * tokens, shape.width, shape.hidden);
    m.ceiling = ceiling::<E>(&m.cpu, (rows, width, hidden));
    println!(
        "\n{name}: a bare product of {rows} x {width} x {hidden} reaches {:.0} GFLOP/s",
        m.ceiling / 1e9
    );
    for (name, k, n) in
        [("qkv", width, 3 * width), ("out", width, width), ("up", width, hidden), ("down", hidden, width)]
    {
        linear::<E>(m, name, (rows, k, n));
    }
    around_products::<E>(m, shape, batch, tokens);
    whole_stack::<E>(m, shape, batch, tokens);
}

fn main() -> Result<(), String> {
    let (mut threads, mut tokens, mut batch, mut model, mut only) =
        (2, 99, 16, "b16".to_string(), String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("expected a number, got `{text}`"));
        match argument.as_str() {
            "--threads" => threads = number(value()?)?,
            "--tokens" => tokens = number(value()?)?,
            "--batch" => batch = number(value()?)?,
            "--model" => model = value()?,
            name => only = name.to_string(),
        }
    }
    let (width, heads) = match model.as_str() {
        "tiny" => (192, 3),
        "s16" => (384, 6),
        "b16" => (768, 12),
        "l16" => (1024, 16),
        "h14" => (1280, 16),
        other => return Err(format!("--model: expected tiny, s16, b16, l16 or h14, got `{other}`")),
    };
    let shape = Shape {
        width,
        depth: 12,
        heads,
        hidden: 4 * width,
        activation: Activation::GeluTanh,
        causal: false,
        norm_eps: 1e-6,
    };
    let cpu = Arc::new(Cpu::new(Isa::detect()?, threads)?);
    println!("{} on {threads} threads; best of several runs", cpu.isa().name());
    let mut m = Measure { cpu, plain: Arc::new(Cpu::new(Isa::Portable, threads)?), only, ceiling: f64::NAN };
    all::<Bf16>(&mut m, "bf16", shape, batch, tokens);
    all::<f32>(&mut m, "f32", shape, batch, tokens);
    update_and_loss(&mut m, 512);
    Ok(())
}
