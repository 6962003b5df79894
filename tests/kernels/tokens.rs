use flip::kernel::element::{Bf16, Element};
use flip::kernel::gemm::epilogue::Grid;
use flip::kernel::gemm::{product, Left, Right};
use flip::kernel::patches;
use flip::kernel::pool::{self, Pool};
use flip::kernel::tokens::{class_token, gather, patch_rows, scatter_add, PatchTokens};

use super::bound::*;

#[test]
fn bytes_are_normalised() {
    let (mean, deviation) = ([0.48, 0.45, 0.40], [0.26, 0.25, 0.27]);
    let n = 3 * 197;
    let bytes: Vec<u8> = (0..n).map(|i| (i * 37) as u8).collect();
    let want: Vec<f64> =
        (0..n).map(|i| (bytes[i] as f64 / 255.0 - mean[i % 3] as f64) / deviation[i % 3] as f64).collect();
    for cpu in processors() {
        let (mut f, mut b) = (vec![0.0f32; n], vec![Bf16::default(); n]);
        patches::from_bytes(&cpu, &mut f, &bytes, mean, deviation);
        patches::from_bytes(&cpu, &mut b, &bytes, mean, deviation);
        close::<f32>("f32", &exact(&f), &want, 1, 4.0);
        close::<Bf16>("bf16", &exact(&b), &want, 1, 1.0);
        patches::from_floats(&cpu, &mut b, &f);
        assert_eq!(b, stored::<Bf16>(&f));
    }
}

/// K = 1, some and all of the patches, with and without a class token.
#[test]
fn patches_become_tokens_and_back() {
    let (batch, of, input, width) = (3, 9, sized(12, 5), sized(40, 17));
    for cpu in processors() {
        for kept in [1, 4, 9] {
            for prefix in [0, 1] {
                let rows = batch * kept;
                let ids: Vec<u32> = (0..rows).map(|i| ((i * 5 + 2) % of) as u32).collect();
                let (x, weight) = (numbers(1, rows * input), numbers(2, input * width));
                let (bias, positions, class) = (numbers(3, width), numbers(4, of * width), numbers(5, width));
                let tokens = prefix + kept;
                let mut to = vec![f32::NAN; batch * tokens * width];
                if prefix == 1 {
                    class_token(&mut to, &class, None, tokens);
                }
                let grid = Grid::new(&mut to, width);
                let epilogue = PatchTokens {
                    to: grid,
                    bias: Some(&bias),
                    positions: &positions,
                    ids: &ids,
                    kept,
                    prefix,
                    width,
                };
                let right = Right::Rows { data: &weight, stride: width };
                product(&cpu, &epilogue, Left::whole(&x, input), right, (rows, input, width));
                let value = |b: usize, t: usize, c: usize| -> f64 {
                    if t < prefix {
                        return class[c] as f64;
                    }
                    let row = b * kept + t - prefix;
                    let dot: f64 =
                        (0..input).map(|p| x[row * input + p] as f64 * weight[p * width + c] as f64).sum();
                    dot + bias[c] as f64 + positions[ids[row] as usize * width + c] as f64
                };
                let want: Vec<f64> = (0..to.len())
                    .map(|i| value(i / (tokens * width), i / width % tokens, i % width))
                    .collect();
                close::<f32>("tokens", &exact(&to), &want, input, size(&want, 1.0));

                let mut back = vec![Bf16::default(); rows * width];
                patch_rows(&cpu, &mut back, &to, kept, prefix, width);
                let want: Vec<f32> =
                    to.chunks(tokens * width).flat_map(|s| s[prefix * width..].to_vec()).collect();
                assert_eq!(back, stored::<Bf16>(&want));
            }
        }
    }
}

#[test]
fn a_table_gets_the_sum_of_its_rows() {
    let (width, vocabulary) = (70, 5);
    let ids = [3u32, 0, 3, 3, 4];
    let places = [0u32, 1, 2, 0, 1];
    for cpu in processors() {
        let (table, positions) = (numbers(1, vocabulary * width), numbers(2, 3 * width));
        let mut x = vec![0.0; ids.len() * width];
        gather::<f32>(&cpu, &mut x, &table, &ids, &positions, &places, width);
        for (r, row) in x.chunks(width).enumerate() {
            for (c, &x) in row.iter().enumerate() {
                assert_eq!(x, table[ids[r] as usize * width + c] + positions[places[r] as usize * width + c]);
            }
        }
        let mut gradient = vec![1.0f32; table.len()];
        // Every second row of what came back.
        let dx = numbers(3, 2 * x.len());
        scatter_add(&cpu, &mut gradient, &ids, &dx, |r| 2 * r, width);
        let mut want = vec![1.0; table.len()];
        for (r, &id) in ids.iter().enumerate() {
            for c in 0..width {
                want[id as usize * width + c] += dx[2 * r * width + c] as f64;
            }
        }
        close::<f32>("table", &exact(&gradient), &want, 3, 2.0);
    }
}

fn pools<E: Element>(pool: Pool, of: impl Fn(usize) -> Vec<(usize, f64)>) {
    for cpu in processors() {
        for (batch, tokens, width) in [(1, 1, 1), (3, 7, 9), (2, sized(63, 11), sized(70, 17))] {
            let x = stored::<E>(&numbers(1, batch * tokens * width));
            let dout = numbers(2, batch * width);
            let (mut out, mut dx) = (vec![0.0f32; batch * width], vec![E::from_f32(9.0); x.len()]);
            pool::forward(&cpu, &mut out, &x, pool, tokens, width);
            pool::backward(&cpu, &mut dx, &dout, pool, tokens, width);
            let (mut want, mut dwant) = (vec![0.0; out.len()], vec![0.0; x.len()]);
            for b in 0..batch {
                for (t, weight) in of(tokens) {
                    for c in 0..width {
                        want[b * width + c] += weight * x[(b * tokens + t) * width + c].to_f32() as f64;
                        dwant[(b * tokens + t) * width + c] += weight * dout[b * width + c] as f64;
                    }
                }
            }
            close::<f32>("out", &exact(&out), &want, tokens, 1.0);
            close::<E>("dx", &exact(&dx), &dwant, 1, 1.0);
        }
    }
}

#[test]
fn sequences_are_pooled() {
    pools::<f32>(Pool::Mean, |t| (0..t).map(|i| (i, 1.0 / t as f64)).collect());
    pools::<Bf16>(Pool::Mean, |t| (0..t).map(|i| (i, 1.0 / t as f64)).collect());
    pools::<f32>(Pool::At(&[0, 0, 0]), |_| vec![(0, 1.0)]);
    pools::<Bf16>(Pool::At(&[0, 0, 0]), |_| vec![(0, 1.0)]);
}
