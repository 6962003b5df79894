use flip::kernel::contrastive::{loss, loss_and_gradients, reference};
use flip::kernel::unit_norm::{self, Length};

use super::bound::*;

fn unit(seed: u32, n: usize, width: usize) -> Vec<f32> {
    let mut x = numbers(seed, n * width);
    for row in x.chunks_mut(width) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    x
}

#[test]
fn every_size_and_instruction_set() {
    for cpu in processors() {
        for (n, width, scale) in
            [(1, 8, 14.0), (2, 7, 100.0), (7, 9, 1.0), (63, 24, 14.3), (197, 63, 100.0), (600, 16, 30.0)]
                .into_iter()
                .take(sized(6, 3))
        {
            let (images, texts) = (unit(1, n, width), unit(2, n, width));
            let (mut dimages, mut dtexts) = (vec![f32::NAN; images.len()], vec![f32::NAN; texts.len()]);
            let got = loss_and_gradients(&cpu, &mut dimages, &mut dtexts, &images, &texts, scale, width);
            let (value, di, dt, ds) =
                reference::loss_and_gradients(&exact(&images), &exact(&texts), scale as f64, width);
            let what = format!("{:?} {n} pairs of {width}, scale {scale}", cpu.isa());
            // Cosines carry an error of eps, logits `scale` times that.
            close::<f32>(&format!("{what}: loss"), &[got.loss], &[value], width, scale as f64);
            close::<f32>(&format!("{what}: dscale"), &[got.dscale], &[ds], width, scale as f64);
            let steep = scale as f64 * scale as f64 / n as f64;
            close::<f32>(
                &format!("{what}: dimages"),
                &exact(&dimages),
                &di,
                width,
                steep.max(size(&di, 0.0)),
            );
            close::<f32>(&format!("{what}: dtexts"), &exact(&dtexts), &dt, width, steep.max(size(&dt, 0.0)));
            assert_eq!(loss(&cpu, &images, &texts, scale, width), got.loss, "{what}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic without unsafe code")]
fn reference_matches_finite_differences() {
    let (n, width, scale) = (4, 3, 5.0);
    let (images, texts) = (exact(&unit(1, n, width)), exact(&unit(2, n, width)));
    let (_, dimages, dtexts, dscale) = reference::loss_and_gradients(&images, &texts, scale, width);
    let value = |i: &[f64], t: &[f64], s: f64| reference::loss_and_gradients(i, t, s, width).0;
    let h = 1e-5;
    assert!(
        ((value(&images, &texts, scale + h) - value(&images, &texts, scale - h)) / (2.0 * h) - dscale).abs()
            < 1e-8
    );
    for i in 0..n * width {
        let moved = |x: &[f64], by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            x
        };
        let numeric = (value(&moved(&images, h), &texts, scale) - value(&moved(&images, -h), &texts, scale))
            / (2.0 * h);
        assert!((numeric - dimages[i]).abs() < 1e-8);
        let numeric = (value(&images, &moved(&texts, h), scale) - value(&images, &moved(&texts, -h), scale))
            / (2.0 * h);
        assert!((numeric - dtexts[i]).abs() < 1e-8);
    }
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let (n, width) = (sized(300, 20), 24);
    let (images, texts) = (unit(1, n, width), unit(2, n, width));
    let [one, two] = one_and_two().map(|cpu| {
        let (mut dimages, mut dtexts) = (images.clone(), texts.clone());
        let loss = loss_and_gradients(&cpu, &mut dimages, &mut dtexts, &images, &texts, 50.0, width);
        (loss, dimages, dtexts)
    });
    assert_eq!(one, two);
}

#[test]
fn unit_norm_matches_finite_differences() {
    for cpu in processors() {
        for length in [Length::Plus(1e-8), Length::Plus(0.5), Length::AtLeast(1e-12), Length::AtLeast(10.0)] {
            let (rows, width) = (3, 5);
            let (x, dz) = (numbers(1, rows * width), numbers(2, rows * width));
            let (mut z, mut norms, mut dx) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; x.len()]);
            unit_norm::forward(&cpu, &mut z, &mut norms, &x, length);
            unit_norm::backward(&cpu, &mut dx, &dz, &z, &norms, length);
            let forward = |x: &[f64]| -> Vec<f64> {
                x.chunks(width)
                    .flat_map(|row| {
                        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let divisor = match length {
                            Length::Plus(eps) => norm + eps as f64,
                            Length::AtLeast(eps) => norm.max(eps as f64),
                        };
                        row.iter().map(move |x| x / divisor).collect::<Vec<_>>()
                    })
                    .collect()
            };
            let value = |x: &[f64]| -> f64 { forward(x).iter().zip(&dz).map(|(z, &d)| z * d as f64).sum() };
            close::<f32>("z", &exact(&z), &forward(&exact(&x)), width, 1.0);
            for i in 0..x.len() {
                let (mut up, mut down) = (exact(&x), exact(&x));
                up[i] += 1e-6;
                down[i] -= 1e-6;
                let numeric = (value(&up) - value(&down)) / 2e-6;
                close::<f32>(
                    &format!("{length:?} dx"),
                    &[dx[i] as f64],
                    &[numeric],
                    width,
                    size(&[numeric], 1.0),
                );
            }
        }
        let (mut z, mut norms, mut dx) = ([1.0f32; 4], [1.0f32; 1], [0.0f32; 4]);
        unit_norm::forward(&cpu, &mut z, &mut norms, &[0.0; 4], Length::Plus(1e-8));
        unit_norm::backward(&cpu, &mut dx, &[1e-9; 4], &z, &norms, Length::Plus(1e-8));
        assert!(z == [0.0; 4] && dx.iter().all(|x| x.is_finite()), "a zero vector stays zero");
    }
}
