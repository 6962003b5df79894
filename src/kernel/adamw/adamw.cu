// The moments of AdamW over many tensors in one launch; see cuda.rs.
#include "prelude.cuh"

// As the launcher lays it out.
struct Piece {
    float *m, *v, *g;
    size_t n;
};

// One block a piece. Gradients become what parameters lose besides their decay.
KERNEL adamw_steps(const Piece *__restrict__ pieces, float gradient, float keep_m, float add_m, float keep_v,
                   float add_v, float step, float root, float eps) {
    const Piece piece = pieces[blockIdx.x];
    for (unsigned i = threadIdx.x; i < (unsigned)piece.n; i += blockDim.x) {
        const float g = piece.g[i] * gradient;
        const float m = fmaf(piece.m[i], keep_m, g * add_m), v = fmaf(piece.v[i], keep_v, g * g * add_v);
        piece.m[i] = m;
        piece.v[i] = v;
        piece.g[i] = m * step / fmaf(sqrtf(v), root, eps);
    }
}
EXPORT(adamw_steps)
