// AdamW over many tensors in one launch; see adamw.rs.
#include "prelude.cuh"

// As the launcher lays it out.
struct Piece {
    // Parameters, or null where somebody else takes the step.
    float *p, *m, *v, *g;
    // The bf16 copy that products read, where there is one.
    Bf16 *copy;
    unsigned n;
    // 1 - lr * decay.
    float shrink;
};

// One block a piece. Gradients are left zero, for the next step to add to; where there are no parameters, they become
// what these lose besides their decay.
KERNEL adamw_update(const Piece *__restrict__ pieces, float gradient, float keep_m, float add_m, float keep_v,
                    float add_v, float step, float root, float eps) {
    const Piece piece = pieces[blockIdx.x];
    for (unsigned i = threadIdx.x; i < piece.n; i += blockDim.x) {
        const float g = piece.g[i] * gradient;
        const float m = fmaf(piece.m[i], keep_m, g * add_m), v = fmaf(piece.v[i], keep_v, g * g * add_v);
        const float taken = m * step / fmaf(sqrtf(v), root, eps);
        piece.m[i] = m;
        piece.v[i] = v;
        if (!piece.p) {
            piece.g[i] = taken;
            continue;
        }
        const float p = piece.p[i] * piece.shrink - taken;
        piece.g[i] = 0.0f;
        piece.p[i] = p;
        if (piece.copy)
            piece.copy[i] = rounded<Bf16>(p);
    }
}
EXPORT(adamw_update)
