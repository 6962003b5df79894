// From the tokens of a sequence to one vector; see pool.rs.
#include "prelude.cuh"

// One thread a column of one sequence: out [batch, width] = the mean of x [batch, tokens, width], or where `at` is
// given, its row at[b].
KERNEL pool_forward(Bf16 *__restrict__ out, const Bf16 *__restrict__ x, const unsigned *__restrict__ at, unsigned tokens,
                    unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, sequence = blockIdx.y;
    if (column >= width)
        return;
    const Bf16 *from = x + (size_t)sequence * tokens * width + column;
    float value = 0.0f;
    if (at) {
        value = widen(from[(size_t)at[sequence] * width]);
    } else {
        for (unsigned t = 0; t < tokens; t++)
            value += widen(from[(size_t)t * width]);
        value /= tokens;
    }
    out[(size_t)sequence * width + column] = rounded<Bf16>(value);
}
EXPORT(pool_forward)

// dx = its gradient for the gradient dout [batch, width].
KERNEL pool_backward(Bf16 *__restrict__ dx, const float *__restrict__ dout, const unsigned *__restrict__ at,
                     unsigned tokens, unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, sequence = blockIdx.y;
    if (column >= width)
        return;
    const float whole = dout[(size_t)sequence * width + column], share = at ? whole : whole / tokens;
    Bf16 *to = dx + (size_t)sequence * tokens * width + column;
    for (unsigned t = 0; t < tokens; t++)
        to[(size_t)t * width] = rounded<Bf16>(!at || t == at[sequence] ? share : 0.0f);
}
EXPORT(pool_backward)

// One thread a column of one sequence: out [batch, width] = the mean of the rows of x [batch, prefix + kept, width] behind the
// prefix.
KERNEL pool_patches_forward(float *__restrict__ out, const float *__restrict__ x, unsigned kept, unsigned prefix,
                            unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, sequence = blockIdx.y;
    if (column >= width)
        return;
    const float *from = x + ((size_t)sequence * (prefix + kept) + prefix) * width + column;
    float value = 0.0f;
    for (unsigned t = 0; t < kept; t++)
        value += from[(size_t)t * width];
    out[(size_t)sequence * width + column] = value / kept;
}
EXPORT(pool_patches_forward)

// dx = its gradient for the gradient dout [batch, width].
KERNEL pool_patches_backward(float *__restrict__ dx, const float *__restrict__ dout, unsigned kept, unsigned prefix,
                             unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, sequence = blockIdx.y;
    if (column >= width)
        return;
    const float share = dout[(size_t)sequence * width + column] / kept;
    float *to = dx + (size_t)sequence * (prefix + kept) * width + column;
    for (unsigned t = 0; t < prefix + kept; t++)
        to[(size_t)t * width] = t < prefix ? 0.0f : share;
}
EXPORT(pool_patches_backward)

// One warp a row: z = x / length, norms = |x|; the length is |x| + eps or, with `at_least`, max(|x|, eps).
KERNEL unit_norm_forward(float *__restrict__ z, float *__restrict__ norms, const float *__restrict__ x, unsigned rows,
                         unsigned width, float eps, unsigned at_least) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows)
        return;
    const float *from = x + (size_t)row * width;
    // In double precision: the square of a small float would vanish.
    double squares = 0.0;
    for (unsigned i = lane; i < width; i += WARP)
        squares += (double)from[i] * from[i];
    const float norm = (float)sqrt(warp_sum(squares));
    const float length = at_least ? fmaxf(norm, eps) : norm + eps;
    if (lane == 0)
        norms[row] = norm;
    for (unsigned i = lane; i < width; i += WARP)
        z[(size_t)row * width + i] = from[i] / length;
}
EXPORT(unit_norm_forward)

// One warp a row: dx = (dz - z (z . dz) length / |x|) / length, the second term only where the length depends on x.
KERNEL unit_norm_backward(float *__restrict__ dx, const float *__restrict__ dz, const float *__restrict__ z,
                          const float *__restrict__ norms, unsigned rows, unsigned width, float eps,
                          unsigned at_least) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows)
        return;
    const size_t at = (size_t)row * width;
    const float norm = norms[row], length = at_least ? fmaxf(norm, eps) : norm + eps;
    const bool depends = at_least ? norm > eps : norm > 0.0f;
    double dot = 0.0;
    for (unsigned i = lane; i < width; i += WARP)
        dot += (double)z[at + i] * dz[at + i];
    const float along = (float)warp_sum(dot) * (depends ? length / norm : 0.0f);
    for (unsigned i = lane; i < width; i += WARP)
        dx[at + i] = (dz[at + i] - z[at + i] * along) / length;
}
EXPORT(unit_norm_backward)
