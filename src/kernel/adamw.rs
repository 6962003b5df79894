//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as optax's `adamw` computes it:
//! m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr (m' / (sqrt(v') + eps) + decay p) with
//! m' = m / (1 - b1^t), v' = v / (1 - b2^t).

pub mod cuda;

use super::element::Element;
use super::gemm::Packed;
use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// One update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate; zero for parameters that are not decayed.
    pub decay: f64,
    /// Number of this update, from 1.
    pub t: u64,
    /// Factor on every gradient: 1, or what clipping leaves of it.
    pub gradient: f64,
}

/// Neighbouring parameters with their moments and gradients, all of one length.
#[derive(Debug)]
pub struct Values<'a> {
    pub p: &'a mut [f32],
    pub m: &'a mut [f32],
    pub v: &'a mut [f32],
    pub g: &'a mut [f32],
}

/// A parameter of an update, rows of `columns`, and the copy that products read of it.
#[derive(Debug)]
pub struct Tensor<'a, E> {
    pub values: Values<'a>,
    pub copy: Option<&'a mut Packed<E>>,
    pub columns: usize,
    /// The decay of the rule is applied.
    pub decays: bool,
}

/// Values of a piece of an update: four times 64 KiB, in the second-level cache of any processor.
const PIECE: usize = 16 << 10;

/// The update's constants in f32.
#[derive(Clone, Copy)]
struct Constants {
    gradient: f32,
    keep_m: f32,
    add_m: f32,
    keep_v: f32,
    add_v: f32,
    /// lr / (1 - b1^t).
    step: f32,
    /// 1 / sqrt(1 - b2^t).
    root: f32,
    eps: f32,
    /// lr * decay: the share of itself that a parameter loses.
    decay: f32,
}

impl AdamW {
    fn constants(&self) -> Constants {
        let t = self.t.min(i32::MAX as u64) as i32;
        Constants {
            gradient: self.gradient as f32,
            keep_m: self.beta1 as f32,
            add_m: (1.0 - self.beta1) as f32,
            keep_v: self.beta2 as f32,
            add_v: (1.0 - self.beta2) as f32,
            step: (self.lr / (1.0 - self.beta1.powi(t))) as f32,
            root: (1.0 / (1.0 - self.beta2.powi(t)).sqrt()) as f32,
            eps: self.eps as f32,
            decay: (self.lr * self.decay) as f32,
        }
    }

    /// Updates parameters and their moments, and leaves gradients of zero. The calling thread does it alone: values are
    /// shared out in pieces of a size that stays in its cache.
    pub fn update(&self, cpu: &Cpu, of: Values) {
        let Values { p, m, v, g } = of;
        assert!(p.len() == g.len() && m.len() == g.len() && v.len() == g.len(), "one gradient a parameter");
        let c = self.constants();
        dispatch!(cpu.isa, l => update(l, p, m, v, g, c));
    }

    /// Updates all parameters on all threads, piece by piece. While a piece is in the cache its gradient is made zero, and the copy
    /// that products read of it is written.
    pub fn update_all<E: Element>(&self, cpu: &Cpu, parameters: Vec<Tensor<E>>) {
        let (mut copies, mut tensors) = (Vec::with_capacity(parameters.len()), Vec::new());
        for Tensor { values, copy, columns, decays } in parameters {
            copies.push(copy.map(|copy| copy.rows(cpu)));
            tensors.push((values, columns, decays));
        }
        let mut pieces = Vec::new();
        for ((Values { p, m, v, g }, columns, decays), copy) in tensors.into_iter().zip(&copies) {
            let step = match copy {
                // Whole rows, as many as products take together.
                Some(_) => (PIECE / columns / E::GROUP).max(1) * E::GROUP * columns,
                None => PIECE,
            };
            let rule = AdamW { decay: if decays { self.decay } else { 0.0 }, ..*self };
            let values =
                p.chunks_mut(step).zip(m.chunks_mut(step)).zip(v.chunks_mut(step)).zip(g.chunks_mut(step));
            pieces.extend(values.enumerate().map(|(i, (((p, m), v), g))| {
                (rule, Values { p, m, v, g }, copy.as_ref().map(|copy| (copy, i * step / columns)))
            }));
        }
        cpu.threads().each(pieces, |_, (rule, Values { p, m, v, g }, copy)| {
            rule.update(cpu, Values { p: &mut *p, m, v, g });
            if let Some((copy, first)) = copy {
                // SAFETY: pieces are apart from each other, and each is taken once.
                unsafe { copy.pack(cpu, first, p) };
            }
        });
    }

    /// The reference: one parameter in double precision.
    pub fn reference(&self, p: &mut f64, m: &mut f64, v: &mut f64, g: f64) {
        let g = g * self.gradient;
        *m = self.beta1 * *m + (1.0 - self.beta1) * g;
        *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
        let m = *m / (1.0 - self.beta1.powi(self.t as i32));
        let v = *v / (1.0 - self.beta2.powi(self.t as i32));
        *p -= self.lr * (m / (v.sqrt() + self.eps) + self.decay * *p);
    }
}

#[inline(always)]
fn update<L: Lanes>(l: L, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &mut [f32], c: Constants) {
    for i in (0..g.len()).step_by(L::N) {
        let grad = l.mul(l.load(&g[i..]), l.splat(c.gradient));
        let new_m = l.fma(l.load(&m[i..]), l.splat(c.keep_m), l.mul(grad, l.splat(c.add_m)));
        let new_v = l.fma(l.load(&v[i..]), l.splat(c.keep_v), l.mul(l.mul(grad, grad), l.splat(c.add_v)));
        l.store(new_m, &mut m[i..]);
        l.store(new_v, &mut v[i..]);
        l.store(l.zero(), &mut g[i..]);
        let divisor = l.fma(l.sqrt(new_v), l.splat(c.root), l.splat(c.eps));
        let step = l.div(l.mul(new_m, l.splat(c.step)), divisor);
        let before = l.load(&p[i..]);
        // Rounded after each operation, as dfdx's own update does.
        let loss = l.add(step, l.mul(l.splat(c.decay), before));
        l.store(l.sub(before, loss), &mut p[i..]);
    }
}
