// What products leave to be done where their own epilogue cannot; see cuda.rs.
#include "prelude.cuh"

// One block a row: y += bias.
template <typename T> DEVICE void add_bias(T *y, const T *bias, unsigned width) {
    T *row = y + (size_t)blockIdx.x * width;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x)
        row[c] = rounded<T>(widen(row[c]) + widen(bias[c]));
}
KERNEL gemm_add_bias(float *__restrict__ y, const float *__restrict__ bias, unsigned width) {
    add_bias(y, bias, width);
}
EXPORT(gemm_add_bias)
KERNEL gemm_add_bias_bf16(Bf16 *__restrict__ y, const Bf16 *__restrict__ bias, unsigned width) {
    add_bias(y, bias, width);
}
EXPORT(gemm_add_bias_bf16)

// Sums over `part` rows of x, 32 columns a block of 32 x 8 threads: partial [parts, width].
KERNEL gemm_column_partial(float *__restrict__ partial, const Bf16 *__restrict__ x, unsigned rows, unsigned part,
                           unsigned width) {
    constexpr unsigned GROUPS = 8;
    __shared__ float sums[GROUPS][WARP];
    const unsigned lane = threadIdx.x % WARP, group = threadIdx.x / WARP, column = blockIdx.x * WARP + lane;
    const unsigned first = blockIdx.y * part, last = first + part < rows ? first + part : rows;
    float sum = 0.0f;
    if (column < width)
        for (unsigned row = first + group; row < last; row += GROUPS)
            sum += widen(x[(size_t)row * width + column]);
    sums[group][lane] = sum;
    __syncthreads();
    if (group == 0 && column < width) {
        float all = 0.0f;
        for (unsigned i = 0; i < GROUPS; i++)
            all += sums[i][lane];
        partial[(size_t)blockIdx.y * width + column] = all;
    }
}
EXPORT(gemm_column_partial)

// One thread a column: total += the sums of all parts, in order.
KERNEL gemm_column_total(float *__restrict__ total, const float *__restrict__ partial, unsigned parts,
                         unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    float sum = total[column];
    for (unsigned i = 0; i < parts; i++)
        sum += partial[(size_t)i * width + column];
    total[column] = sum;
}
EXPORT(gemm_column_total)
