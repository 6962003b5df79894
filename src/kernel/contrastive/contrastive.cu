// The contrastive loss on tiles of cosines [rows, columns], which products make; see mod.rs.
#include "prelude.cuh"

// One block a row: adds its tile to a running (largest logit, sum of exponentials relative to it).
KERNEL contrastive_log_sum_exp(float *__restrict__ largest, double *__restrict__ sums,
                               const float *__restrict__ cosines, unsigned columns, float scale) {
    __shared__ double room[WARP];
    __shared__ float most[WARP];
    const float *row = cosines + (size_t)blockIdx.x * columns;
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float here = -INFINITY;
    for (unsigned j = threadIdx.x; j < columns; j += blockDim.x)
        here = fmaxf(here, row[j]);
    here = warp_max(here);
    if (lane == 0)
        most[warp] = here;
    __syncthreads();
    here = warp_max(lane < blockDim.x / WARP ? most[lane] : -INFINITY) * scale;
    const float before = largest[blockIdx.x], now = fmaxf(before, here);
    float sum = 0.0f;
    for (unsigned j = threadIdx.x; j < columns; j += blockDim.x)
        sum += __expf(fmaf(row[j], scale, -now));
    const double added = block_sum((double)sum, room);
    if (threadIdx.x == 0) {
        // Of nothing yet, the largest is minus infinity and the sum zero.
        sums[blockIdx.x] = sums[blockIdx.x] * (double)__expf(before - now) + added;
        largest[blockIdx.x] = now;
    }
}
EXPORT(contrastive_log_sum_exp)

// lse = largest + log of the sum.
KERNEL contrastive_finish(float *__restrict__ lse, const float *__restrict__ largest, const double *__restrict__ sums,
                          unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        lse[i] = (float)(largest[i] + log(sums[i]));
}
EXPORT(contrastive_finish)

// One block a row: cosines become their gradients, scale weight (p + q - 2 [partner]), with p and q the softmax over the
// row and the column; row i of the tile and column `first + i` are a pair, where there is such a column. dscale[i] +=
// what the row contributes to the gradient of the scale.
KERNEL contrastive_gradients(float *__restrict__ cosines, double *__restrict__ dscale, const float *__restrict__ row_lse,
                             const float *__restrict__ column_lse, unsigned columns, long long first, float scale,
                             float weight) {
    __shared__ double room[WARP];
    float *row = cosines + (size_t)blockIdx.x * columns;
    const float lse = row_lse[blockIdx.x];
    const long long partner = first + blockIdx.x;
    float sum = 0.0f;
    for (unsigned j = threadIdx.x; j < columns; j += blockDim.x) {
        const float x = row[j], p = __expf(fmaf(x, scale, -lse)), q = __expf(fmaf(x, scale, -column_lse[j]));
        const float g = (p + q - (j == partner ? 2.0f : 0.0f)) * weight;
        sum = fmaf(g, x, sum);
        row[j] = g * scale;
    }
    const double total = block_sum((double)sum, room);
    if (threadIdx.x == 0)
        dscale[blockIdx.x] += total;
}
EXPORT(contrastive_gradients)

// One warp a row: cosines[i] = the product of row i of both sides.
KERNEL contrastive_diagonal(double *__restrict__ cosines, const float *__restrict__ a, const float *__restrict__ b,
                            unsigned rows, unsigned width) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows)
        return;
    double sum = 0.0;
    for (unsigned i = lane; i < width; i += WARP)
        sum += (double)a[(size_t)row * width + i] * b[(size_t)row * width + i];
    sum = warp_sum(sum);
    if (lane == 0)
        cosines[row] = sum;
}
EXPORT(contrastive_diagonal)

// to += factor[0] * from: the gradients of the loss times the gradient that it has itself.
KERNEL contrastive_add_scaled(float *__restrict__ to, const float *__restrict__ from, const float *__restrict__ factor,
                              unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        to[i] = fmaf(factor[0], from[i], to[i]);
}
EXPORT(contrastive_add_scaled)
