// Tokens on their way into a transformer, and their gradients on the way back; see mod.rs.
#include "prelude.cuh"

// One block a token of x [batch * (prefix + kept), width]: a row of the patch embedding with bias and position, or
// for the first of a sequence with a prefix, the class token, with its position where it has one.
KERNEL tokens_from_patches(float *__restrict__ x, const float *__restrict__ embedded, const float *__restrict__ bias,
                           const float *__restrict__ positions, const unsigned *__restrict__ ids,
                           const float *__restrict__ class_token, const float *__restrict__ class_position,
                           unsigned kept, unsigned prefix, unsigned width) {
    const unsigned tokens = prefix + kept, sequence = blockIdx.x / tokens, token = blockIdx.x % tokens;
    float *to = x + (size_t)blockIdx.x * width;
    if (token < prefix) {
        for (unsigned c = threadIdx.x; c < width; c += blockDim.x)
            to[c] = class_token[c] + (class_position ? class_position[c] : 0.0f);
        return;
    }
    const unsigned row = sequence * kept + token - prefix;
    const float *from = embedded + (size_t)row * width;
    const float *position = positions + (size_t)ids[row] * width;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x)
        to[c] = from[c] + position[c] + (bias ? bias[c] : 0.0f);
}
EXPORT(tokens_from_patches)

// One block a row: out [batch * kept, width] = the rows of dx that came from patches, rounded.
KERNEL tokens_patch_rows(Bf16 *__restrict__ out, const float *__restrict__ dx, unsigned kept, unsigned prefix,
                         unsigned width) {
    const unsigned sequence = blockIdx.x / kept, token = prefix + blockIdx.x % kept;
    const float *from = dx + ((size_t)sequence * (prefix + kept) + token) * width;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x)
        out[(size_t)blockIdx.x * width + c] = rounded<Bf16>(from[c]);
}
EXPORT(tokens_patch_rows)

// One block a row: x = table[id] + positions[place].
KERNEL tokens_gather(float *__restrict__ x, const Bf16 *__restrict__ table, const unsigned *__restrict__ ids,
                     const float *__restrict__ positions, const unsigned *__restrict__ places, unsigned width) {
    const Bf16 *from = table + (size_t)ids[blockIdx.x] * width;
    const float *position = positions + (size_t)places[blockIdx.x] * width;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x)
        x[(size_t)blockIdx.x * width + c] = widen(from[c]) + position[c];
}
EXPORT(tokens_gather)

// One block some columns of a row of the table that is named: its rows, which order[starts[i] .. starts[i + 1]] lists,
// are added one after the other.
KERNEL tokens_scatter_add(float *__restrict__ table, const unsigned *__restrict__ named,
                          const unsigned *__restrict__ starts, const unsigned *__restrict__ order,
                          const float *__restrict__ rows, unsigned width) {
    float *to = table + (size_t)named[blockIdx.x] * width;
    const unsigned first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
    const unsigned c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= width)
        return;
    float sum = to[c];
    for (unsigned i = first; i < last; i++)
        sum += rows[(size_t)order[i] * width + c];
    to[c] = sum;
}
EXPORT(tokens_scatter_add)
