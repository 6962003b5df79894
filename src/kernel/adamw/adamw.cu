// AdamW over many tensors in one launch; see cuda.rs.
#include "prelude.cuh"

// As the launcher lays it out. The copy is null where there is none.
struct Piece {
    float *p, *m, *v, *g;
    Bf16 *copy;
    size_t n, decays;
};

// One block a piece. Gradients of zero are left.
KERNEL adamw_update(const Piece *__restrict__ pieces, float gradient, float keep_m, float add_m, float keep_v,
                    float add_v, float step, float root, float eps, float decay) {
    const Piece piece = pieces[blockIdx.x];
    const float lost = piece.decays ? decay : 0.0f;
    for (unsigned i = threadIdx.x; i < (unsigned)piece.n; i += blockDim.x) {
        const float g = piece.g[i] * gradient;
        const float m = fmaf(piece.m[i], keep_m, g * add_m), v = fmaf(piece.v[i], keep_v, g * g * add_v);
        const float before = piece.p[i];
        const float p = before - (m * step / fmaf(sqrtf(v), root, eps) + lost * before);
        piece.p[i] = p;
        piece.m[i] = m;
        piece.v[i] = v;
        piece.g[i] = 0.0f;
        if (piece.copy)
            piece.copy[i] = rounded<Bf16>(p);
    }
}
EXPORT(adamw_update)
