use flip::kernel::activation::Activation;
use flip::kernel::cuda::Machine;
use flip::kernel::element::Bf16;
use flip::kernel::pool::cuda::Pool;
use flip::kernel::tokens::cuda::{Added, Scatter, ScatterViews, Sequences};
use flip::kernel::unit_norm::Length;
use flip::kernel::{activation, patches, pool, tokens, unit_norm, Cpu};

use crate::bound::*;
use crate::{down, each_machine};

/// The kernels of the processor, which have references of their own.
fn processor() -> Cpu {
    processors().remove(0)
}

#[test]
fn bytes_are_normalised() {
    let (mean, deviation) = ([0.48, 0.45, 0.40], [0.26, 0.25, 0.27]);
    each_machine!(machine => {
        for n in [3, 3 * 197, 3 * 4096] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 37) as u8).collect();
            let mut want = vec![0.0f32; n];
            patches::from_bytes(&processor(), &mut want, &bytes, mean, deviation);
            let (from, mut to) = (machine.upload(&bytes).unwrap(), machine.zeros::<Bf16>(n).unwrap());
            patches::cuda::from_bytes(machine, machine.view_mut(&mut to), machine.view(&from), mean, deviation).unwrap();
            close::<Bf16>("bytes", &exact(&down(machine, &to)), &exact(&want), 1, 1.0);

            let from = machine.upload(&want).unwrap();
            patches::cuda::from_floats(machine, machine.view_mut(&mut to), machine.view(&from)).unwrap();
            assert_eq!(down(machine, &to), stored::<Bf16>(&want));
        }
    });
}

#[test]
fn patches_become_tokens_and_back() {
    each_machine!(machine => {
        for (kept, prefix) in [(1, 0), (1, 1), (4, 1), (9, 0)] {
            let of = Sequences { batch: 3, kept, prefix, width: 140 };
            let (rows, tokens, places) = (3 * kept, prefix + kept, 9);
            let ids: Vec<u32> = (0..rows).map(|i| ((i * 5 + 2) % places) as u32).collect();
            let embedded = numbers(1, rows * of.width);
            let (bias, positions) = (numbers(2, of.width), numbers(3, places * of.width));
            let (class, class_position) = (numbers(4, of.width), numbers(5, of.width));
            for with_bias in [false, true] {
                let mut x = machine.zeros::<f32>(3 * tokens * of.width).unwrap();
                let (on, added) = (machine.upload(&embedded).unwrap(), machine.upload(&bias).unwrap());
                let (at, named) = (machine.upload(&positions).unwrap(), machine.upload(&ids).unwrap());
                let (class_token, its_place) = (machine.upload(&class).unwrap(), machine.upload(&class_position).unwrap());
                let added = Added {
                    bias: with_bias.then(|| machine.view(&added)),
                    positions: machine.view(&at),
                    class_token: machine.view(&class_token),
                    class_position: with_bias.then(|| machine.view(&its_place)),
                };
                let (to, named) = (machine.view_mut(&mut x), machine.view(&named));
                tokens::cuda::from_patches(machine, to, machine.view(&on), added, named, of).unwrap();
                let got = down(machine, &x);
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
                let mut back = machine.zeros::<Bf16>(rows * of.width).unwrap();
                tokens::cuda::patch_rows(machine, machine.view_mut(&mut back), machine.view(&x), of).unwrap();
                let mut want = vec![Bf16::default(); rows * of.width];
                tokens::patch_rows(&processor(), &mut want, &got, kept, prefix, of.width);
                assert_eq!(down(machine, &back), want);
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
    each_machine!(machine => {
        let (from, at) = (machine.upload(&table).unwrap(), machine.upload(&positions).unwrap());
        let (ids, places) = (machine.upload(&ids).unwrap(), machine.upload(&places).unwrap());
        let mut to = machine.zeros::<f32>(x.len()).unwrap();
        let table = (machine.view(&from), machine.view(&ids));
        let positions = (machine.view(&at), machine.view(&places));
        tokens::cuda::gather(machine, machine.view_mut(&mut to), table, positions, width).unwrap();
        assert_eq!(down(machine, &to), x);

        let up = |values: &[u32]| machine.upload(values).unwrap();
        let (named, starts, order) = (up(&scatter.named), up(&scatter.starts), up(&scatter.order));
        let views = ScatterViews {
            named: machine.view(&named),
            starts: machine.view(&starts),
            order: machine.view(&order),
        };
        let (mut sums, rows) = (machine.upload(&vec![1.0f32; gradient.len()]).unwrap(), machine.upload(&dx).unwrap());
        tokens::cuda::scatter_add(machine, machine.view_mut(&mut sums), views, machine.view(&rows), width).unwrap();
        assert_eq!(down(machine, &sums), gradient);
    });
}

#[test]
fn sequences_are_pooled() {
    each_machine!(machine => {
        for (batch, tokens, width) in [(1, 1, 1), (3, 7, 9), (2, 63, 170)] {
            let (x, dout) = (stored::<Bf16>(&numbers(1, batch * tokens * width)), numbers(2, batch * width));
            let at: Vec<u32> = (0..batch).map(|b| (b * 2 % tokens) as u32).collect();
            let places = machine.upload(&at).unwrap();
            for (pool, same) in [(Pool::Mean, pool::Pool::Mean), (Pool::At(machine.view(&places)), pool::Pool::At(&at))] {
                let (on, of) = (machine.upload(&x).unwrap(), machine.upload(&dout).unwrap());
                let mut out = machine.zeros::<Bf16>(dout.len()).unwrap();
                let mut dx = machine.zeros::<Bf16>(x.len()).unwrap();
                pool::cuda::forward(machine, machine.view_mut(&mut out), machine.view(&on), pool, tokens, width).unwrap();
                pool::cuda::backward(machine, machine.view_mut(&mut dx), machine.view(&of), pool, tokens, width).unwrap();
                let (mut want, mut dwant) = (vec![0.0f32; dout.len()], vec![0.0f32; x.len()]);
                pool::forward(&processor(), &mut want, &x, same, tokens, width);
                pool::backward(&processor(), &mut dwant, &dout, same, tokens, width);
                close::<Bf16>("out", &exact(&down(machine, &out)), &exact(&want), 1, 1.0);
                close::<Bf16>("dx", &exact(&down(machine, &dx)), &exact(&dwant), 1, 1.0);
            }
        }
    });
}

#[test]
fn vectors_get_unit_length() {
    each_machine!(machine => {
        for length in [Length::Plus(1e-8), Length::AtLeast(1e-12), Length::AtLeast(1e30)] {
            for (rows, width) in [(1, 1), (9, 63), (5, 512)] {
                let (mut x, dz) = (numbers(1, rows * width), numbers(2, rows * width));
                // A row of zeros, and one whose squares vanish.
                x[..width].fill(0.0);
                x[(rows - 1) * width..].iter_mut().for_each(|x| *x *= 1e-25);
                let (from, of) = (machine.upload(&x).unwrap(), machine.upload(&dz).unwrap());
                let (mut z, mut dx) = (machine.zeros::<f32>(x.len()).unwrap(), machine.zeros::<f32>(x.len()).unwrap());
                let mut norms = machine.zeros::<f32>(rows).unwrap();
                let (to, saved) = (machine.view_mut(&mut z), machine.view_mut(&mut norms));
                unit_norm::cuda::forward(machine, to, saved, machine.view(&from), length).unwrap();
                let (to, z_view) = (machine.view_mut(&mut dx), machine.view(&z));
                let saved = machine.view(&norms);
                unit_norm::cuda::backward(machine, to, machine.view(&of), z_view, saved, length).unwrap();
                let (mut want, mut dwant, mut same) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; rows]);
                unit_norm::forward(&processor(), &mut want, &mut same, &x, length);
                unit_norm::backward(&processor(), &mut dwant, &dz, &want, &same, length);
                close::<f32>("z", &exact(&down(machine, &z)), &exact(&want), 1, size(&exact(&want), 1e-30));
                close::<f32>("dx", &exact(&down(machine, &dx)), &exact(&dwant), 1, size(&exact(&dwant), 1e-30));
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
    each_machine!(machine => {
        for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu] {
            let (on, of) = (machine.upload(&x).unwrap(), machine.upload(&dy).unwrap());
            let (mut y, mut dx) = (machine.zeros::<Bf16>(x.len()).unwrap(), machine.zeros::<Bf16>(x.len()).unwrap());
            activation::cuda::forward(machine, machine.view_mut(&mut y), machine.view(&on), activation).unwrap();
            let (to, of) = (machine.view_mut(&mut dx), machine.view(&of));
            activation::cuda::backward(machine, to, of, machine.view(&on), activation).unwrap();
            let (y, dx) = (exact(&down(machine, &y)), exact(&down(machine, &dx)));
            for (i, &at) in exact(&x).iter().enumerate() {
                let (value, slope) = activation.value_and_slope(at);
                close::<Bf16>(&format!("{activation:?} at {at}"), &y[i..i + 1], &[value], 1, value.abs().max(1e-2));
                let want = exact(&dy)[i] * slope;
                close::<Bf16>(&format!("{activation:?}' at {at}"), &dx[i..i + 1], &[want], 1, want.abs().max(1e-2));
            }
        }
    });
}
