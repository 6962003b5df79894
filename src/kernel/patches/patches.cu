// Patches on their way into the patch embedding; see patches.rs.
#include "prelude.cuh"

// Values of a thread: one word of bytes.
constexpr unsigned TOGETHER = 4;

DEVICE float channel(unsigned i, float a, float b, float c) { return i == 0 ? a : i == 1 ? b : c; }

// out[i] = bytes[i] * factor + offset of channel i % 3.
KERNEL patches_from_bytes(Bf16 *__restrict__ out, const unsigned char *__restrict__ bytes, unsigned n, float factor0,
                          float factor1, float factor2, float offset0, float offset1, float offset2) {
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * TOGETHER;
    if (first >= n)
        return;
    float x[TOGETHER];
    const unsigned there = n - first < TOGETHER ? n - first : TOGETHER;
    const unsigned word = there == TOGETHER ? *(const unsigned *)(bytes + first) : 0;
    for (unsigned i = 0; i < there; i++) {
        const unsigned byte = there == TOGETHER ? word >> 8 * i & 0xff : bytes[first + i];
        const unsigned c = (first + i) % 3;
        x[i] = fmaf((float)byte, channel(c, factor0, factor1, factor2), channel(c, offset0, offset1, offset2));
    }
    if (there == TOGETHER)
        *(uint2 *)(out + first) = uint2{pair(x[0], x[1]).bits, pair(x[2], x[3]).bits};
    else
        for (unsigned i = 0; i < there; i++)
            out[first + i] = rounded<Bf16>(x[i]);
}
EXPORT(patches_from_bytes)

// out = floats, rounded.
KERNEL patches_from_floats(Bf16 *__restrict__ out, const float *__restrict__ floats, unsigned n) {
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * TOGETHER;
    if (first >= n)
        return;
    if (n - first >= TOGETHER) {
        const float4 x = *(const float4 *)(floats + first);
        *(uint2 *)(out + first) = uint2{pair(x.x, x.y).bits, pair(x.z, x.w).bits};
    } else {
        for (unsigned i = first; i < n; i++)
            out[i] = rounded<Bf16>(floats[i]);
    }
}
EXPORT(patches_from_floats)
