use flip::kernel::adamw::cuda::{pieces, step_pieces, update, Moments, Tensor};
use flip::kernel::adamw::AdamW;
use flip::kernel::cuda::Machine;
use flip::kernel::element::Bf16;
use flip::kernel::global_norm::cuda::{sum_of_squares, Pieces};

use crate::bound::*;
use crate::{down, each_machine};

#[test]
fn adamw_matches_its_formula_over_many_tensors_and_updates() {
    // One shorter than a block, one of several pieces.
    let lengths = [1, 197, 40_000];
    each_machine!(machine => {
        let start: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(n as u32, n)).collect();
        let up = |values: &Vec<f32>| machine.upload(values).unwrap();
        let zeros = |n: &usize| machine.zeros::<f32>(*n).unwrap();
        let mut p: Vec<_> = start.iter().map(up).collect();
        let (mut m, mut v): (Vec<_>, Vec<_>) = (lengths.iter().map(zeros).collect(), lengths.iter().map(zeros).collect());
        let mut copies: Vec<_> = lengths.iter().map(|&n| machine.zeros::<Bf16>(n).unwrap()).collect();
        let mut wanted: Vec<[Vec<f64>; 3]> =
            start.iter().map(|p| [exact(p), vec![0.0; p.len()], vec![0.0; p.len()]]).collect();
        for t in 1..=4 {
            let rule = AdamW { lr: 1e-3 * t as f64, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t, gradient: 0.5 };
            let gradients: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(t as u32 + n as u32, n)).collect();
            let mut g: Vec<_> = gradients.iter().map(up).collect();
            let tensors: Vec<Tensor> = p
                .iter_mut()
                .zip(&mut m)
                .zip(v.iter_mut().zip(&mut g))
                .zip(&mut copies)
                .enumerate()
                .map(|(i, (((p, m), (v, g)), copy))| Tensor {
                    p: machine.view_mut(p),
                    m: machine.view_mut(m),
                    v: machine.view_mut(v),
                    g: machine.view_mut(g),
                    copy: (i != 1).then(|| machine.view_mut(copy)),
                    decays: i != 0,
                })
                .collect();
            let table = machine.upload(&pieces(&tensors, &rule)).unwrap();
            // SAFETY: the tensors are alive.
            unsafe { update(machine, machine.view(&table), &rule) }.unwrap();
            for (i, [p, m, v]) in wanted.iter_mut().enumerate() {
                let rule = AdamW { decay: if i == 0 { 0.0 } else { rule.decay }, ..rule };
                for j in 0..p.len() {
                    rule.reference(&mut p[j], &mut m[j], &mut v[j], gradients[i][j] as f64);
                }
            }
            for g in &g {
                assert!(down(machine, g).iter().all(|&g| g == 0.0), "a used gradient is left zero");
            }
        }
        for (i, [want, of_m, of_v]) in wanted.iter().enumerate() {
            let got = down(machine, &p[i]);
            close::<f32>("parameters", &exact(&got), want, 4, 1.0);
            close::<f32>("first moments", &exact(&down(machine, &m[i])), of_m, 4, 1.0);
            close::<f32>("second moments", &exact(&down(machine, &v[i])), of_v, 4, 1.0);
            let copy = down(machine, &copies[i]);
            let want = if i == 1 { vec![Bf16::default(); got.len()] } else { stored::<Bf16>(&got) };
            assert_eq!(copy, want, "the copy that products read");
        }
    });
}

#[test]
fn sum_of_squares_is_that() {
    let lengths = [1, 63, 70_000];
    each_machine!(machine => {
        let tensors: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(n as u32, n)).collect();
        let there: Vec<_> = tensors.iter().map(|x| machine.upload(x).unwrap()).collect();
        let pieces = Pieces::new(there.iter().map(|x| machine.view(x)));
        let table = machine.upload(pieces.words()).unwrap();
        let mut partial = machine.zeros::<f64>(pieces.words().len() / 2).unwrap();
        let mut total = machine.zeros::<f64>(1).unwrap();
        let (to, scratch) = (machine.view_mut(&mut total), machine.view_mut(&mut partial));
        // SAFETY: the tensors are alive.
        unsafe { sum_of_squares(machine, to, scratch, machine.view(&table)) }.unwrap();
        let want: f64 = tensors.iter().flat_map(|x| exact(x)).map(|x| x * x).sum();
        close::<f32>("sum", &down(machine, &total), &[want], 64, want);
    });
}

#[test]
fn steps_of_parameters_that_lie_elsewhere_are_those_of_the_processor() {
    let n = 20_000;
    let [cpu, _] = one_and_two();
    each_machine!(machine => {
        let zeros = || machine.zeros::<f32>(n).unwrap();
        let (mut m, mut v) = (zeros(), zeros());
        let (mut same_m, mut same_v) = (vec![0.0f32; n], vec![0.0f32; n]);
        for t in 1..=3 {
            let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t, gradient: 0.5 };
            let mut want = numbers(t as u32, n);
            let mut g = machine.upload(&want).unwrap();
            rule.steps(&cpu, &mut same_m, &mut same_v, &mut want);
            let moments =
                Moments { m: machine.view_mut(&mut m), v: machine.view_mut(&mut v), g: machine.view_mut(&mut g) };
            let table = machine.upload(&step_pieces(&[moments])).unwrap();
            // SAFETY: the tensors are alive.
            unsafe { update(machine, machine.view(&table), &rule) }.unwrap();
            close::<f32>("steps", &exact(&down(machine, &g)), &exact(&want), 4, 1e-3);
            close::<f32>("first moments", &exact(&down(machine, &m)), &exact(&same_m), 4, 1.0);
            close::<f32>("second moments", &exact(&down(machine, &v)), &exact(&same_v), 4, 1.0);
        }
    });
}
