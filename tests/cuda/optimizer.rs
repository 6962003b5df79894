use flip::kernel::adamw::cuda::{pieces, steps, Moments};
use flip::kernel::adamw::AdamW;
use flip::kernel::cuda::Machine;
use flip::kernel::global_norm::cuda::{sum_of_squares, Pieces};

use crate::bound::*;
use crate::{down, each_machine};

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
fn steps_follow_the_formula_over_many_tensors_and_updates() {
    // One shorter than a block, one of several pieces.
    let lengths = [1, 197, 40_000];
    each_machine!(machine => {
        let zeros = |n: &usize| machine.zeros::<f32>(*n).unwrap();
        let (mut m, mut v): (Vec<_>, Vec<_>) = (lengths.iter().map(zeros).collect(), lengths.iter().map(zeros).collect());
        let mut wanted: Vec<[Vec<f64>; 2]> = lengths.iter().map(|&n| [vec![0.0; n], vec![0.0; n]]).collect();
        for t in 1..=4 {
            let rule = AdamW { lr: 1e-3 * t as f64, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t, gradient: 0.5 };
            let gradients: Vec<Vec<f32>> = lengths.iter().map(|&n| numbers(t as u32 + n as u32, n)).collect();
            let mut g: Vec<_> = gradients.iter().map(|g| machine.upload(g).unwrap()).collect();
            let tensors: Vec<Moments> = (m.iter_mut().zip(&mut v).zip(&mut g))
                .map(|((m, v), g)| Moments { m: machine.view_mut(m), v: machine.view_mut(v), g: machine.view_mut(g) })
                .collect();
            let table = machine.upload(&pieces(&tensors)).unwrap();
            // SAFETY: the tensors are alive.
            unsafe { steps(machine, machine.view(&table), &rule) }.unwrap();
            for (i, [m, v]) in wanted.iter_mut().enumerate() {
                let mut taken = vec![0.0; m.len()];
                for (j, taken) in taken.iter_mut().enumerate() {
                    rule.reference(taken, &mut m[j], &mut v[j], gradients[i][j] as f64);
                    // A parameter of zero decays by nothing: what is left is the step.
                    *taken = -*taken;
                }
                close::<f32>("steps", &exact(&down(machine, &g[i])), &taken, 4, rule.lr);
            }
        }
        for (i, [of_m, of_v]) in wanted.iter().enumerate() {
            close::<f32>("first moments", &exact(&down(machine, &m[i])), of_m, 4, 1.0);
            close::<f32>("second moments", &exact(&down(machine, &v[i])), of_v, 4, 1.0);
        }
    });
}

#[test]
fn steps_are_those_of_the_processor() {
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
            let table = machine.upload(&pieces(&[moments])).unwrap();
            // SAFETY: the tensors are alive.
            unsafe { steps(machine, machine.view(&table), &rule) }.unwrap();
            close::<f32>("steps", &exact(&down(machine, &g)), &exact(&want), 4, 1e-3);
            close::<f32>("first moments", &exact(&down(machine, &m)), &exact(&same_m), 4, 1.0);
            close::<f32>("second moments", &exact(&down(machine, &v)), &exact(&same_v), 4, 1.0);
        }
    });
}
