// The sum of the squares of many tensors; see global_norm.rs.
#include "prelude.cuh"

// One block a piece: partial[i] = the sum of the squares of the numbers that piece i = {address, count} names.
KERNEL global_norm_partial(double *__restrict__ partial, const unsigned long long *__restrict__ pieces) {
    __shared__ double room[WARP];
    const float *x = (const float *)pieces[2 * blockIdx.x];
    const unsigned n = (unsigned)pieces[2 * blockIdx.x + 1];
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum = fmaf(x[i], x[i], sum);
    const double total = block_sum((double)sum, room);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = total;
}
EXPORT(global_norm_partial)

// One block: total = the sum of `n` numbers.
KERNEL global_norm_total(double *__restrict__ total, const double *__restrict__ partial, unsigned n) {
    __shared__ double room[WARP];
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        sum += partial[i];
    sum = block_sum(sum, room);
    if (threadIdx.x == 0)
        *total = sum;
}
EXPORT(global_norm_total)
