//! Every kernel against its reference in double precision: forward and every gradient, on every instruction
//! set that this processor has, in f32 and bf16; and one thread against two, bit by bit.

mod kernels {
    mod attention;
    pub mod bound;
    mod contrastive;
    mod gemm;
    mod layer_norm;
    mod optimizer;
    pub mod stack;
    mod tokens;
    mod transformer;
}
