// LayerNorm over the width of a token; see mod.rs. Widths are even: numbers are taken two at a time.
#include "prelude.cuh"

DEVICE void store(Bf16x2 *to, float a, float b) { *to = pair(a, b); }
DEVICE void store(float2 *to, float a, float b) { *to = float2{a, b}; }

// One warp a row: y = normal * scale + shift, normal = (x - mean) * rstd, the variance in a second pass.
template <typename Y>
DEVICE void forward(Y *y, Bf16x2 *__restrict__ normal, float *__restrict__ rstd, const float2 *x,
                    const float2 *__restrict__ scale, const float2 *__restrict__ shift, unsigned rows, unsigned width,
                    float eps) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows)
        return;
    const unsigned pairs = width / 2;
    const size_t at = (size_t)row * pairs;
    float sum = 0.0f;
    for (unsigned i = lane; i < pairs; i += WARP)
        sum += x[at + i].x + x[at + i].y;
    const float mean = warp_sum(sum) / width;
    float squares = 0.0f;
    for (unsigned i = lane; i < pairs; i += WARP) {
        const float a = x[at + i].x - mean, b = x[at + i].y - mean;
        squares += a * a + b * b;
    }
    const float factor = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    if (lane == 0)
        rstd[row] = factor;
    for (unsigned i = lane; i < pairs; i += WARP) {
        const float a = (x[at + i].x - mean) * factor, b = (x[at + i].y - mean) * factor;
        normal[at + i] = pair(a, b);
        store(y + at + i, fmaf(a, scale[i].x, shift[i].x), fmaf(b, scale[i].y, shift[i].y));
    }
}
KERNEL layer_norm_forward(Bf16x2 *__restrict__ y, Bf16x2 *__restrict__ normal, float *__restrict__ rstd,
                          const float2 *__restrict__ x, const float2 *__restrict__ scale,
                          const float2 *__restrict__ shift, unsigned rows, unsigned width, float eps) {
    forward(y, normal, rstd, x, scale, shift, rows, width, eps);
}
EXPORT(layer_norm_forward)
// In place: a lane reads what it writes before it does.
KERNEL layer_norm_in_place(float2 *x, Bf16x2 *__restrict__ normal, float *__restrict__ rstd,
                           const float2 *__restrict__ scale, const float2 *__restrict__ shift, unsigned rows,
                           unsigned width, float eps) {
    forward(x, normal, rstd, x, scale, shift, rows, width, eps);
}
EXPORT(layer_norm_in_place)

// y = normal * scale + shift, as the forward pass had it but for the rounding of `normal`; one block a row.
KERNEL layer_norm_again(Bf16x2 *__restrict__ y, const Bf16x2 *__restrict__ normal, const float2 *__restrict__ scale,
                        const float2 *__restrict__ shift, unsigned width) {
    const unsigned pairs = width / 2;
    const size_t at = (size_t)blockIdx.x * pairs;
    for (unsigned i = threadIdx.x; i < pairs; i += blockDim.x) {
        const Bf16x2 x = normal[at + i];
        y[at + i] = pair(fmaf(lower(x), scale[i].x, shift[i].x), fmaf(upper(x), scale[i].y, shift[i].y));
    }
}
EXPORT(layer_norm_again)

// One warp a row: dx += rstd (g - mean(g) - normal mean(g normal)), g = dy scale; `copy`, where there is one, = dx
// rounded.
KERNEL layer_norm_backward(float2 *__restrict__ dx, Bf16x2 *__restrict__ copy, const Bf16x2 *__restrict__ dy,
                           const Bf16x2 *__restrict__ normal, const float *__restrict__ rstd,
                           const float2 *__restrict__ scale, unsigned rows, unsigned width) {
    const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows)
        return;
    const unsigned pairs = width / 2;
    const size_t at = (size_t)row * pairs;
    float sum = 0.0f, dot = 0.0f;
    for (unsigned i = lane; i < pairs; i += WARP) {
        const float a = lower(dy[at + i]) * scale[i].x, b = upper(dy[at + i]) * scale[i].y;
        sum += a + b;
        dot += a * lower(normal[at + i]) + b * upper(normal[at + i]);
    }
    sum = warp_sum(sum) / width;
    dot = warp_sum(dot) / width;
    const float factor = rstd[row];
    for (unsigned i = lane; i < pairs; i += WARP) {
        const float a = lower(dy[at + i]) * scale[i].x - sum - lower(normal[at + i]) * dot;
        const float b = upper(dy[at + i]) * scale[i].y - sum - upper(normal[at + i]) * dot;
        const float2 before = dx[at + i], after = float2{fmaf(a, factor, before.x), fmaf(b, factor, before.y)};
        dx[at + i] = after;
        if (copy)
            copy[at + i] = pair(after.x, after.y);
    }
}
EXPORT(layer_norm_backward)

// Sums over `part` rows of dy normal and of dy, 32 columns a block of 32 x 8 threads: partial [parts, 2, width].
KERNEL layer_norm_partial(float *__restrict__ partial, const Bf16 *__restrict__ dy, const Bf16 *__restrict__ normal,
                          unsigned rows, unsigned part, unsigned width) {
    constexpr unsigned GROUPS = 8;
    __shared__ float sums[2][GROUPS][WARP];
    const unsigned lane = threadIdx.x % WARP, group = threadIdx.x / WARP, column = blockIdx.x * WARP + lane;
    const unsigned first = blockIdx.y * part, last = first + part < rows ? first + part : rows;
    float of_scale = 0.0f, of_shift = 0.0f;
    if (column < width)
        for (unsigned row = first + group; row < last; row += GROUPS) {
            const float d = widen(dy[(size_t)row * width + column]);
            of_scale = fmaf(d, widen(normal[(size_t)row * width + column]), of_scale);
            of_shift += d;
        }
    sums[0][group][lane] = of_scale;
    sums[1][group][lane] = of_shift;
    __syncthreads();
    if (group < 2 && column < width) {
        float sum = 0.0f;
        for (unsigned i = 0; i < GROUPS; i++)
            sum += sums[group][i][lane];
        partial[((size_t)blockIdx.y * 2 + group) * width + column] = sum;
    }
}
EXPORT(layer_norm_partial)

// One thread a column: dscale, dshift += the sums over all parts, in order.
KERNEL layer_norm_total(float *__restrict__ dscale, float *__restrict__ dshift, const float *__restrict__ partial,
                        unsigned parts, unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    float of_scale = dscale[column], of_shift = dshift[column];
    for (unsigned i = 0; i < parts; i++) {
        of_scale += partial[(size_t)i * 2 * width + column];
        of_shift += partial[((size_t)i * 2 + 1) * width + column];
    }
    dscale[column] = of_scale;
    dshift[column] = of_shift;
}
EXPORT(layer_norm_total)
