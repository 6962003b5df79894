use flip::kernel::adamw::{AdamW, Values};
use flip::kernel::global_norm::sum_of_squares;

use super::bound::*;

#[test]
fn adamw_matches_its_formula_over_many_updates() {
    for cpu in processors() {
        for n in LENGTHS {
            let start = numbers(1, n);
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
            let (mut p64, mut m64, mut v64) = (exact(&start), vec![0.0; n], vec![0.0; n]);
            for t in 1..=12 {
                let update = AdamW {
                    lr: 1e-3 * t as f64,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    decay: 0.2,
                    t,
                    gradient: 0.5,
                };
                // From tiny to huge: the update must not depend on the size of gradients.
                let size = [1e-10f32, 1.0, 1e10][n % 3];
                let g: Vec<f32> = numbers(t as u32 + 1, n).iter().map(|x| x * size).collect();
                let mut used = g.clone();
                update.update(&cpu, Values { p: &mut p, m: &mut m, v: &mut v, g: &mut used });
                assert!(used.iter().all(|&g| g == 0.0), "gradients of zero are left");
                for i in 0..n {
                    update.reference(&mut p64[i], &mut m64[i], &mut v64[i], g[i] as f64);
                }
            }
            close::<f32>("parameters", &exact(&p), &p64, 12, 1.0);
        }
    }
}

#[test]
fn a_first_update_at_rate_zero_moves_moments_only() {
    for cpu in processors() {
        let update = AdamW { lr: 0.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.2, t: 1, gradient: 1.0 };
        let (mut p, mut g) = ([1.5f32, -3.0], [2.0f32, 0.0]);
        let (mut m, mut v) = ([0.0f32; 2], [0.0f32; 2]);
        update.update(&cpu, Values { p: &mut p, m: &mut m, v: &mut v, g: &mut g });
        assert_eq!((p, g), ([1.5, -3.0], [0.0, 0.0]));
        close::<f32>("m", &exact(&m), &[0.2, 0.0], 1, 0.2);
        close::<f32>("v", &exact(&v), &[0.2, 0.0], 1, 0.2);
    }
}

#[test]
fn sum_of_squares_is_that() {
    for cpu in processors() {
        for n in LENGTHS.into_iter().chain([sized(300_000, 3_000)]) {
            let x = numbers(1, n);
            let want: f64 = exact(&x).iter().map(|x| x * x).sum();
            close::<f32>("sum", &[sum_of_squares(&cpu, &x)], &[want], 64, want);
        }
    }
    let x = numbers(1, sized(300_000, 3_000));
    let [one, two] = one_and_two().map(|cpu| sum_of_squares(&cpu, &x));
    assert_eq!(one, two);
}
