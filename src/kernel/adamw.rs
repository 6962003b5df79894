//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as optax's `adamw` computes it:
//! m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr (m' / (sqrt(v') + eps) + decay p) with
//! m' = m / (1 - b1^t), v' = v / (1 - b2^t).

pub mod cuda;

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
