use flip::kernel::activation::Activation;
use flip::kernel::backend::Memory;
use flip::kernel::backend::Pool;
use flip::kernel::element::Bf16;
use flip::kernel::tokens::cuda::{Scatter, ScatterViews};
use flip::kernel::tokens::{Added, Sequences};
use flip::kernel::unit_norm::Length;
use flip::kernel::{activation, patches, pool, tokens, unit_norm, Cpu};

use crate::bound::*;
use crate::{down, each_gpu};

/// The kernels of the processor, which have references of their own.
fn processor() -> Cpu {
    processors().remove(0)
}

#[test]
fn bytes_are_normalised() {
    let (mean, deviation) = ([0.48, 0.45, 0.40], [0.26, 0.25, 0.27]);
    each_gpu!(gpu => {
        for n in [3, 3 * 197, 3 * 4096] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 37) as u8).collect();
            let mut want = vec![0.0f32; n];
            patches::from_bytes(&processor(), &mut want, &bytes, mean, deviation);
            let (from, mut to) = (gpu.upload(&bytes).unwrap(), gpu.zeros::<Bf16>(n).unwrap());
            patches::cuda::from_bytes(gpu, gpu.view_mut(&mut to), gpu.view(&from), mean, deviation).unwrap();
            close::<Bf16>("bytes", &exact(&down(gpu, &to)), &exact(&want), 1, 1.0);

            let from = gpu.upload(&want).unwrap();
            patches::cuda::from_floats(gpu, gpu.view_mut(&mut to), gpu.view(&from)).unwrap();
            assert_eq!(down(gpu, &to), stored::<Bf16>(&want));
        }
    });
}

#[test]
fn patches_become_tokens_and_back() {
    each_gpu!(gpu => {
        for (kept, prefix) in [(1, 0), (1, 1), (4, 1), (9, 0)] {
            let of = Sequences { batch: 3, kept, prefix, width: 140 };
            let (rows, tokens, places) = (3 * kept, prefix + kept, 9);
            let ids: Vec<u32> = (0..rows).map(|i| ((i * 5 + 2) % places) as u32).collect();
            let embedded = numbers(1, rows * of.width);
            let (bias, positions) = (numbers(2, of.width), numbers(3, places * of.width));
            let (class, class_position) = (numbers(4, of.width), numbers(5, of.width));
            for with_bias in [false, true] {
                let mut x = gpu.zeros::<f32>(3 * tokens * of.width).unwrap();
                let (on, added) = (gpu.upload(&embedded).unwrap(), gpu.upload(&bias).unwrap());
                let (at, named) = (gpu.upload(&positions).unwrap(), gpu.upload(&ids).unwrap());
                let (class_token, its_place) = (gpu.upload(&class).unwrap(), gpu.upload(&class_position).unwrap());
                let added = Added {
                    bias: with_bias.then(|| gpu.view(&added)),
                    positions: gpu.view(&at),
                    class_token: gpu.view(&class_token),
                    class_position: with_bias.then(|| gpu.view(&its_place)),
                };
                let (to, named) = (gpu.view_mut(&mut x), gpu.view(&named));
                tokens::cuda::from_patches(gpu, to, gpu.view(&on), added, named, of).unwrap();
                let got = down(gpu, &x);
                for (i, &got) in got.iter().enumerate() {
                    let (b, t, c) = (i / (tokens * of.width), i / of.width % tokens, i % of.width);
                    let want = if t < prefix {
                        class[c] + if with_bias { class_position[c] } else { 0.0 }
                    } else {
                        let row = b * kept + t - prefix;
                        let bias = if with_bias { bias[c] } else { 0.0 };
                        embedded[row * of.width + c]
                            + positions[ids[row] as usize * of.width + c]
                            + bias
                    };
                    assert!((got - want).abs() <= 1e-6, "[{i}] is {got}, expected {want}");
                }
                let mut back = gpu.zeros::<Bf16>(rows * of.width).unwrap();
                tokens::cuda::patch_rows(gpu, gpu.view_mut(&mut back), gpu.view(&x), of).unwrap();
                let mut want = vec![Bf16::default(); rows * of.width];
                tokens::patch_rows(&processor(), &mut want, &got, kept, prefix, of.width);
                assert_eq!(down(gpu, &back), want);
            }
        }
    });
}

/// The sums of a table have the order they have on the processor: bit by bit the same.
#[test]
fn a_table_gives_rows_and_gets_their_sum() {
    let (width, vocabulary) = (170, 5);
    let ids = [3u32, 0, 3, 3, 4, 0];
    let places = [0u32, 1, 2, 0, 1, 2];
    let scatter = Scatter::new(&ids, |r| 2 * r);
    assert_eq!(scatter.named, [0, 3, 4]);
    assert_eq!(scatter.starts, [0, 2, 5, 6]);
    assert_eq!(scatter.order, [2, 10, 0, 4, 6, 8]);
    let (table, positions) = (stored::<Bf16>(&numbers(1, vocabulary * width)), numbers(2, 3 * width));
    let dx = numbers(3, 2 * ids.len() * width);
    let (mut x, mut gradient) = (vec![0.0; ids.len() * width], vec![1.0f32; table.len()]);
    let masters: Vec<f32> = table.iter().map(|x| x.to_f32()).collect();
    tokens::gather::<Bf16>(&processor(), &mut x, &masters, &ids, &positions, &places, width);
    tokens::scatter_add(&processor(), &mut gradient, &ids, &dx, |r| 2 * r, width);
    each_gpu!(gpu => {
        let (from, at) = (gpu.upload(&table).unwrap(), gpu.upload(&positions).unwrap());
        let (ids, places) = (gpu.upload(&ids).unwrap(), gpu.upload(&places).unwrap());
        let mut to = gpu.zeros::<f32>(x.len()).unwrap();
        let table = (gpu.view(&from), gpu.view(&ids));
        let positions = (gpu.view(&at), gpu.view(&places));
        tokens::cuda::gather(gpu, gpu.view_mut(&mut to), table, positions, width).unwrap();
        assert_eq!(down(gpu, &to), x);

        let up = |values: &[u32]| gpu.upload(values).unwrap();
        let (named, starts, order) = (up(&scatter.named), up(&scatter.starts), up(&scatter.order));
        let views = ScatterViews {
            named: gpu.view(&named),
            starts: gpu.view(&starts),
            order: gpu.view(&order),
        };
        let (mut sums, rows) = (gpu.upload(&vec![1.0f32; gradient.len()]).unwrap(), gpu.upload(&dx).unwrap());
        tokens::cuda::scatter_add(gpu, gpu.view_mut(&mut sums), views, gpu.view(&rows), width).unwrap();
        assert_eq!(down(gpu, &sums), gradient);
    });
}

#[test]
fn sequences_are_pooled() {
    each_gpu!(gpu => {
        for (batch, tokens, width) in [(1, 1, 1), (3, 7, 9), (2, 63, 170)] {
            let (x, dout) = (stored::<Bf16>(&numbers(1, batch * tokens * width)), numbers(2, batch * width));
            let at: Vec<u32> = (0..batch).map(|b| (b * 2 % tokens) as u32).collect();
            let places = gpu.upload(&at).unwrap();
            for (pool, same) in [(Pool::Mean, pool::Pool::Mean), (Pool::At(gpu.view(&places)), pool::Pool::At(&at))] {
                let (on, of) = (gpu.upload(&x).unwrap(), gpu.upload(&dout).unwrap());
                let mut out = gpu.zeros::<Bf16>(dout.len()).unwrap();
                let mut dx = gpu.zeros::<Bf16>(x.len()).unwrap();
                pool::cuda::forward(gpu, gpu.view_mut(&mut out), gpu.view(&on), pool, tokens, width).unwrap();
                pool::cuda::backward(gpu, gpu.view_mut(&mut dx), gpu.view(&of), pool, tokens, width).unwrap();
                let (mut want, mut dwant) = (vec![0.0f32; dout.len()], vec![0.0f32; x.len()]);
                pool::forward(&processor(), &mut want, &x, same, tokens, width);
                pool::backward(&processor(), &mut dwant, &dout, same, tokens, width);
                close::<Bf16>("out", &exact(&down(gpu, &out)), &exact(&want), 1, 1.0);
                close::<Bf16>("dx", &exact(&down(gpu, &dx)), &exact(&dwant), 1, 1.0);
            }
        }
    });
}

#[test]
fn vectors_get_unit_length() {
    each_gpu!(gpu => {
        for length in [Length::Plus(1e-8), Length::AtLeast(1e-12), Length::AtLeast(1e30)] {
            for (rows, width) in [(1, 1), (9, 63), (5, 512)] {
                let (mut x, dz) = (numbers(1, rows * width), numbers(2, rows * width));
                // A row of zeros, and one whose squares vanish.
                x[..width].fill(0.0);
                x[(rows - 1) * width..].iter_mut().for_each(|x| *x *= 1e-25);
                let (from, of) = (gpu.upload(&x).unwrap(), gpu.upload(&dz).unwrap());
                let (mut z, mut dx) = (gpu.zeros::<f32>(x.len()).unwrap(), gpu.zeros::<f32>(x.len()).unwrap());
                let mut norms = gpu.zeros::<f32>(rows).unwrap();
                let (to, saved) = (gpu.view_mut(&mut z), gpu.view_mut(&mut norms));
                unit_norm::cuda::forward(gpu, to, saved, gpu.view(&from), length).unwrap();
                let (to, z_view) = (gpu.view_mut(&mut dx), gpu.view(&z));
                let saved = gpu.view(&norms);
                unit_norm::cuda::backward(gpu, to, gpu.view(&of), z_view, saved, length).unwrap();
                let (mut want, mut dwant, mut same) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; rows]);
                unit_norm::forward(&processor(), &mut want, &mut same, &x, length);
                unit_norm::backward(&processor(), &mut dwant, &dz, &want, &same, length);
                close::<f32>("z", &exact(&down(gpu, &z)), &exact(&want), 1, size(&exact(&want), 1e-30));
                close::<f32>("dx", &exact(&down(gpu, &dx)), &exact(&dwant), 1, size(&exact(&dwant), 1e-30));
            }
        }
    });
}

#[test]
fn the_non_linearities_and_their_slopes() {
    let mut x: Vec<f32> = (-1200..1200).map(|i| i as f32 / 100.0).collect();
    x.extend([-1e30, -300.0, 300.0, 1e30]);
    let x = stored::<Bf16>(&x);
    let dy = stored::<Bf16>(&numbers(1, x.len()));
    each_gpu!(gpu => {
        for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu] {
            let (on, of) = (gpu.upload(&x).unwrap(), gpu.upload(&dy).unwrap());
            let (mut y, mut dx) = (gpu.zeros::<Bf16>(x.len()).unwrap(), gpu.zeros::<Bf16>(x.len()).unwrap());
            activation::cuda::forward(gpu, gpu.view_mut(&mut y), gpu.view(&on), activation).unwrap();
            let (to, of) = (gpu.view_mut(&mut dx), gpu.view(&of));
            activation::cuda::backward(gpu, to, of, gpu.view(&on), activation).unwrap();
            let (y, dx) = (exact(&down(gpu, &y)), exact(&down(gpu, &dx)));
            for (i, &at) in exact(&x).iter().enumerate() {
                let (value, slope) = activation.value_and_slope(at);
                close::<Bf16>(&format!("{activation:?} at {at}"), &y[i..i + 1], &[value], 1, value.abs().max(1e-2));
                let want = exact(&dy)[i] * slope;
                close::<Bf16>(&format!("{activation:?}' at {at}"), &dx[i..i + 1], &[want], 1, want.abs().max(1e-2));
            }
        }
    });
}
