use flip::kernel::adamw::cuda::{self, pieces, Tensor};
use flip::kernel::adamw::{AdamW, Values};
use flip::kernel::backend::Memory;
use flip::kernel::cuda::Gpu;
use flip::kernel::element::Bf16;
use flip::kernel::global_norm::cuda::{sum_of_squares, Pieces};

use crate::bound::*;
use crate::{down, each_gpu};

#[test]
fn sum_of_squares_is_that() {
    let lengths = [1, 63, 70_000];
    each_gpu!(gpu => {
        let tensors: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(n as u32, n)).collect();
        let there: Vec<_> = tensors.iter().map(|x| gpu.upload(x).unwrap()).collect();
        let pieces = Pieces::new(there.iter().map(|x| gpu.view(x)));
        let table = gpu.upload(pieces.words()).unwrap();
        let mut partial = gpu.zeros::<f64>(pieces.words().len() / 2).unwrap();
        let mut total = gpu.zeros::<f64>(1).unwrap();
        let (to, scratch) = (gpu.view_mut(&mut total), gpu.view_mut(&mut partial));
        // SAFETY: the tensors are alive.
        unsafe { sum_of_squares(gpu, to, scratch, gpu.view(&table)) }.unwrap();
        let want: f64 = tensors.iter().flat_map(|x| exact(x)).map(|x| x * x).sum();
        close::<f32>("sum", &down(gpu, &total), &[want], 64, want);
    });
}

/// Values of a parameter and what an update of it reads and writes.
struct Updated<G: Gpu> {
    p: G::Buffer<f32>,
    m: G::Buffer<f32>,
    v: G::Buffer<f32>,
    half: G::Buffer<Bf16>,
}

impl<G: Gpu> Updated<G> {
    fn new(gpu: &G, p: &[f32]) -> Self {
        let zeros = || gpu.zeros::<f32>(p.len()).unwrap();
        let half = gpu.zeros::<Bf16>(p.len()).unwrap();
        Updated { p: gpu.upload(p).unwrap(), m: zeros(), v: zeros(), half }
    }
}

/// One launch; every second tensor decays and has a rounded copy.
fn update<G: Gpu>(gpu: &G, all: &mut [Updated<G>], gradients: &mut [G::Buffer<f32>], rule: &AdamW) {
    let tensors = all.iter_mut().zip(gradients).enumerate().map(|(i, (of, g))| Tensor {
        p: gpu.view_mut(&mut of.p),
        m: gpu.view_mut(&mut of.m),
        v: gpu.view_mut(&mut of.v),
        g: gpu.view_mut(g),
        copy: (i % 2 == 0).then(|| gpu.view_mut(&mut of.half)),
        decays: i % 2 == 0,
    });
    let table = gpu.upload(&pieces(&tensors.collect::<Vec<_>>())).unwrap();
    // SAFETY: the tensors are alive.
    unsafe { cuda::update(gpu, gpu.view(&table), rule) }.unwrap();
}

#[test]
fn updates_follow_the_formula_over_many_tensors() {
    // One shorter than a block, one of several pieces.
    let lengths = [1, 197, 40_000];
    each_gpu!(gpu => {
        let start: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(7, n)).collect();
        let mut all: Vec<_> = start.iter().map(|p| Updated::new(gpu, p)).collect();
        let zeros = |p: &Vec<f32>| [exact(p), vec![0.0; p.len()], vec![0.0; p.len()]];
        let mut wanted: Vec<[Vec<f64>; 3]> = start.iter().map(zeros).collect();
        for t in 1..=4 {
            let rule = AdamW { lr: 1e-3 * t as f64, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t, gradient: 0.5 };
            let gradients: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(t as u32 + n as u32, n)).collect();
            let mut g: Vec<_> = gradients.iter().map(|g| gpu.upload(g).unwrap()).collect();
            update(gpu, &mut all, &mut g, &rule);
            for (i, [p, m, v]) in wanted.iter_mut().enumerate() {
                let rule = AdamW { decay: if i % 2 == 0 { rule.decay } else { 0.0 }, ..rule };
                for j in 0..p.len() {
                    rule.reference(&mut p[j], &mut m[j], &mut v[j], gradients[i][j] as f64);
                }
                assert!(down(gpu, &g[i]).iter().all(|&g| g == 0.0), "gradients of zero are left");
            }
        }
        for (i, (of, [p, m, v])) in all.iter().zip(&wanted).enumerate() {
            let now = down(gpu, &of.p);
            close::<f32>("parameters", &exact(&now), p, 12, 1.0);
            close::<f32>("first moments", &exact(&down(gpu, &of.m)), m, 4, 1.0);
            close::<f32>("second moments", &exact(&down(gpu, &of.v)), v, 4, 1.0);
            if i % 2 == 0 {
                assert_eq!(down(gpu, &of.half), stored::<Bf16>(&now));
            }
        }
    });
}

#[test]
fn updates_are_those_of_the_processor() {
    let n = 20_000;
    let [cpu, _] = one_and_two();
    each_gpu!(gpu => {
        let (mut p, mut m, mut v) = (numbers(5, n), vec![0.0f32; n], vec![0.0f32; n]);
        let mut all = [Updated::new(gpu, &p)];
        for t in 1..=3 {
            let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t, gradient: 0.5 };
            let mut same = numbers(t as u32, n);
            let mut g = [gpu.upload(&same).unwrap()];
            rule.update(&cpu, Values { p: &mut p, m: &mut m, v: &mut v, g: &mut same });
            update(gpu, &mut all, &mut g, &rule);
            close::<f32>("parameters", &exact(&down(gpu, &all[0].p)), &exact(&p), 4, 1.0);
            close::<f32>("first moments", &exact(&down(gpu, &all[0].m)), &exact(&m), 4, 1.0);
            close::<f32>("second moments", &exact(&down(gpu, &all[0].v)), &exact(&v), 4, 1.0);
        }
    });
}
