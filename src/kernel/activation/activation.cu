// The non-linearity of the MLP and its slope; see activation.rs. For products whose epilogue has another one or none.
#include "prelude.cuh"

enum Kind { GELU_TANH, GELU_EXACT, QUICK_GELU };

struct Curve {
    float value, slope;
};

// x sigmoid(z) for a z of slope dz.
DEVICE Curve gated(float x, float z, float dz) {
    const float s = 1.0f / (1.0f + __expf(-z));
    return Curve{x * s, fmaf(x, s * (1.0f - s) * dz, s)};
}

DEVICE Curve curve(unsigned kind, float at) {
    constexpr float ROOT = 0.79788456f, CUBIC = 0.044715f, QUICK = 1.702f, FAR = 1000.0f;
    // Further out the curve is a line; its parts would overflow.
    const float x = fminf(fmaxf(at, -FAR), FAR);
    Curve near;
    if (kind == GELU_TANH) {
        // (1 + tanh u) / 2 = sigmoid(2u).
        const float z = x * fmaf(x * x, 2.0f * ROOT * CUBIC, 2.0f * ROOT);
        near = gated(x, z, fmaf(x * x, 6.0f * ROOT * CUBIC, 2.0f * ROOT));
    } else if (kind == QUICK_GELU) {
        near = gated(x, QUICK * x, QUICK);
    } else {
        // Phi through the complement, which keeps its digits in the tail; 1 / sqrt(2), 1 / sqrt(2 pi).
        const float phi = 0.5f * erfcf(-0.70710678f * x);
        near = Curve{x * phi, fmaf(0.39894228f * x, __expf(-0.5f * x * x), phi)};
    }
    return Curve{at > FAR ? at : near.value, near.slope};
}

// One thread two numbers: y = f(x).
KERNEL activation_forward(Bf16x2 *__restrict__ y, const Bf16x2 *__restrict__ x, unsigned kind, unsigned pairs) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pairs)
        y[i] = pair(curve(kind, lower(x[i])).value, curve(kind, upper(x[i])).value);
}
EXPORT(activation_forward)

// dx = dy f'(x).
KERNEL activation_backward(Bf16x2 *__restrict__ dx, const Bf16x2 *__restrict__ dy, const Bf16x2 *__restrict__ x,
                           unsigned kind, unsigned pairs) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pairs)
        dx[i] = pair(lower(dy[i]) * curve(kind, lower(x[i])).slope, upper(dy[i]) * curve(kind, upper(x[i])).slope);
}
EXPORT(activation_backward)

// x = f(x).
KERNEL activation_replace(Bf16x2 *x, unsigned kind, unsigned pairs) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pairs)
        x[i] = pair(curve(kind, lower(x[i])).value, curve(kind, upper(x[i])).value);
}
EXPORT(activation_replace)

// gradient *= f'(x); x = f(x).
KERNEL activation_through(Bf16x2 *__restrict__ gradient, Bf16x2 *__restrict__ x, unsigned kind, unsigned pairs) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= pairs)
        return;
    const Curve first = curve(kind, lower(x[i])), second = curve(kind, upper(x[i]));
    gradient[i] = pair(lower(gradient[i]) * first.slope, upper(gradient[i]) * second.slope);
    x[i] = pair(first.value, second.value);
}
EXPORT(activation_through)
