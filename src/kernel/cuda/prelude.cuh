// What every kernel stands on. No header of the toolkit is needed: the same sources are compiled by nvcc for GPUs and,
// with tests/emulator/emulate.hpp, by a C++ compiler for tests on the processor.
#pragma once

#ifdef __CUDACC__
#define EXPORT(kernel)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define DEVICE __device__ __forceinline__
#else
#include "emulate.hpp"
#define DEVICE inline
#endif

// Launched by name; EXPORT(name) after its body lets the emulator find it.
#define KERNEL extern "C" __global__ void

constexpr unsigned WARP = 32;
constexpr unsigned EVERY_LANE = 0xffffffffu;

// A brain float: the upper half of a float.
struct Bf16 {
    unsigned short bits;
};

// Two neighbours in memory, the first in the lower half.
struct alignas(4) Bf16x2 {
    unsigned bits;
};

DEVICE float widen(Bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
DEVICE float widen(float x) { return x; }
DEVICE float lower(Bf16x2 x) { return __uint_as_float(x.bits << 16); }
DEVICE float upper(Bf16x2 x) { return __uint_as_float(x.bits & 0xffff0000u); }

// To the nearest, ties to even.
DEVICE Bf16x2 pair(float first, float second) {
    Bf16x2 rounded;
#ifdef __CUDACC__
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(rounded.bits) : "f"(second), "f"(first));
#else
    rounded.bits = emulate::bf16(first) | (unsigned)emulate::bf16(second) << 16;
#endif
    return rounded;
}

template <typename T> DEVICE T rounded(float x);
template <> DEVICE float rounded<float>(float x) { return x; }
template <> DEVICE Bf16 rounded<Bf16>(float x) {
    Bf16 half;
    half.bits = (unsigned short)(pair(x, 0.0f).bits & 0xffffu);
    return half;
}

// Sums and maxima over the lanes of a warp, in one order; every lane gets the result.
template <typename T> DEVICE T warp_sum(T x) {
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(EVERY_LANE, x, distance);
    return x;
}
DEVICE float warp_max(float x) {
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, distance));
    return x;
}

// The sum over all threads of a block of a multiple of 32, in one order; every thread gets it. `room` is shared
// memory for 32 values and may be used again at once.
template <typename T> DEVICE T block_sum(T x, T *room) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0)
        room[warp] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? room[lane] : (T)0);
    __syncthreads();
    return x;
}

// The tensor core's product of one warp, sums += a b, of bf16 [16, 16] and [16, 8] with sums in float. With
// row = lane / 4 and pair = lane % 4, a lane holds
//   a[0] = A[row][2 pair ..], a[1] = A[row + 8][2 pair ..], a[2] = A[row][2 pair + 8 ..], a[3] = A[row + 8][2 pair + 8 ..],
//   b[0] = B[2 pair ..][row], b[1] = B[2 pair + 8 ..][row],
//   sums[0 and 1] = C[row][2 pair ..], sums[2 and 3] = C[row + 8][2 pair ..]     (`..`: and the next one).
DEVICE void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emulate::multiply(sums, a, b);
#endif
}
