// Multi-head self-attention over short sequences on tensor cores; see mod.rs and cuda.rs. H is the width of a head, D the
// next multiple of 16, which tensor cores take; what is between them is zeros.
//
// A block of four warps takes 64 rows of one head, a warp 16 of them, and meets the other side in chunks of 64 tokens
// in shared memory. Scores, probabilities and their gradients stay in registers: the layout of a product's sums is that
// of the left side of the next product. Nothing is added by two blocks to one place, so sums have one order.
#include "prelude.cuh"

constexpr unsigned WARPS = 4, ROWS = 16, CHUNK = WARPS * ROWS;
// Rows in shared memory are 16 bytes longer than they need to be: lanes of a warp then read from different banks.
constexpr unsigned GAP = 8;

template <unsigned H> constexpr unsigned PADDED = (H + 15) / 16 * 16;

// What a kernel knows of its head.
struct Head {
    unsigned tokens, width, batch, head;
    // Elements from the beginning of qkv and of out.
    size_t qkv, out;
    // Elements from a token to the next.
    unsigned stride;
    // Where its statistics begin.
    size_t saved;
};

template <unsigned H> DEVICE Head head_of(unsigned tokens, unsigned heads) {
    Head of;
    of.tokens = tokens;
    of.width = heads * H;
    of.batch = blockIdx.x / heads;
    of.head = blockIdx.x % heads;
    of.stride = 3 * of.width;
    of.qkv = (size_t)of.batch * tokens * of.stride + of.head * H;
    of.out = (size_t)of.batch * tokens * of.width + of.head * H;
    of.saved = (size_t)blockIdx.x * tokens;
    return of;
}

DEVICE unsigned two(const Bf16 *at) { return *(const unsigned *)at; }

// Eight numbers of a row, of which some may lie beyond the head.
template <unsigned H> DEVICE uint4 eight_of(const Bf16 *row, unsigned column) {
    if constexpr (H == PADDED<H>) {
        return *(const uint4 *)(row + column);
    } else if constexpr (H % 8 == 0) {
        return column < H ? *(const uint4 *)(row + column) : uint4{0, 0, 0, 0};
    } else {
        unsigned words[4];
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            words[j] = column + 2 * j < H ? two(row + column + 2 * j) : 0;
        return uint4{words[0], words[1], words[2], words[3]};
    }
}

// Rows base .. base + 64 of a head to shared memory, [64][D + GAP]; zeros beyond the last token.
template <unsigned H>
DEVICE void rows_to_shared(Bf16 *to, const Bf16 *from, unsigned stride, unsigned base, unsigned tokens) {
    constexpr unsigned D = PADDED<H>;
    for (unsigned i = threadIdx.x; i < CHUNK * D / 8; i += WARPS * WARP) {
        const unsigned row = i / (D / 8), column = i % (D / 8) * 8;
        uint4 eight = uint4{0, 0, 0, 0};
        if (base + row < tokens)
            eight = eight_of<H>(from + (size_t)(base + row) * stride, column);
        *(uint4 *)(to + row * (D + GAP) + column) = eight;
    }
}

// The same, transposed: [D][64 + GAP].
template <unsigned H>
DEVICE void columns_to_shared(Bf16 *to, const Bf16 *from, unsigned stride, unsigned base, unsigned tokens) {
    constexpr unsigned D = PADDED<H>;
    for (unsigned i = threadIdx.x; i < CHUNK * D / 8; i += WARPS * WARP) {
        const unsigned row = i % CHUNK, column = i / CHUNK * 8;
        uint4 eight = uint4{0, 0, 0, 0};
        if (base + row < tokens)
            eight = eight_of<H>(from + (size_t)(base + row) * stride, column);
        const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
        for (unsigned j = 0; j < 8; j++)
            to[(column + j) * (CHUNK + GAP) + row].bits = (unsigned short)(words[j / 2] >> 16 * (j % 2));
    }
}

// The left side of a product from shared memory: rows first .. first + 16, columns k .. k + 16.
template <unsigned STRIDE> DEVICE void left_from(unsigned (&a)[4], const Bf16 *shared, unsigned first, unsigned k) {
    const unsigned lane = threadIdx.x % WARP;
    const Bf16 *at = shared + (first + lane / 4) * STRIDE + k + 2 * (lane % 4);
    a[0] = two(at);
    a[1] = two(at + 8 * STRIDE);
    a[2] = two(at + 8);
    a[3] = two(at + 8 * STRIDE + 8);
}

// The right side, of which shared memory holds the transpose: its columns first .. first + 8, rows k .. k + 16.
template <unsigned STRIDE> DEVICE void right_from(unsigned (&b)[2], const Bf16 *shared, unsigned first, unsigned k) {
    const unsigned lane = threadIdx.x % WARP;
    const Bf16 *at = shared + (first + lane / 4) * STRIDE + k + 2 * (lane % 4);
    b[0] = two(at);
    b[1] = two(at + 8);
}

// Rows first .. first + 16 of a head, as left sides in registers; zeros beyond the last token.
template <unsigned H>
DEVICE void left_rows(unsigned (&a)[PADDED<H> / 16][4], const Bf16 *from, unsigned stride, unsigned first,
                      unsigned tokens) {
    constexpr unsigned D = PADDED<H>;
    const unsigned lane = threadIdx.x % WARP, row = first + lane / 4;
    const Bf16 *at = from + (size_t)row * stride + 2 * (lane % 4);
#pragma unroll
    for (unsigned k = 0; k < D / 16; k++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const bool there = row + 8 * half < tokens;
            const Bf16 *of = at + (size_t)8 * half * stride + 16 * k;
            const unsigned column = 16 * k + 2 * (lane % 4);
            a[k][half] = there && (H == D || column < H) ? two(of) : 0;
            a[k][half + 2] = there && (H == D || column + 8 < H) ? two(of + 8) : 0;
        }
}

// Writes sums of rows first .. first + 16, each times its factor.
template <unsigned H>
DEVICE void write_rows(Bf16 *to, unsigned stride, unsigned first, unsigned tokens,
                       const float (&sums)[PADDED<H> / 8][4], const float (&factor)[2]) {
    constexpr unsigned D = PADDED<H>;
    const unsigned lane = threadIdx.x % WARP, row = first + lane / 4;
#pragma unroll
    for (unsigned half = 0; half < 2; half++)
        if (row + 8 * half < tokens) {
            Bf16 *at = to + (size_t)(row + 8 * half) * stride + 2 * (lane % 4);
#pragma unroll
            for (unsigned d = 0; d < D / 8; d++)
                if (H == D || 8 * d + 2 * (lane % 4) < H)
                    *(Bf16x2 *)(at + 8 * d) = pair(sums[d][2 * half] * factor[half], sums[d][2 * half + 1] * factor[half]);
        }
}

// Over the four lanes that hold a row of sums.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, 1));
    return fmaxf(x, __shfl_xor_sync(EVERY_LANE, x, 2));
}
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(EVERY_LANE, x, 1);
    return x + __shfl_xor_sync(EVERY_LANE, x, 2);
}

// Sums of two tiles of eight columns as the left side of a product.
DEVICE void as_left(unsigned (&a)[4], const float (&tiles)[2][4]) {
    a[0] = pair(tiles[0][0], tiles[0][1]).bits;
    a[1] = pair(tiles[0][2], tiles[0][3]).bits;
    a[2] = pair(tiles[1][0], tiles[1][1]).bits;
    a[3] = pair(tiles[1][2], tiles[1][3]).bits;
}

// sums += left . right: the sixteen columns of both tiles of `left` times rows 16 m and on of `right`, of which shared
// memory holds the transpose, D rows of a chunk.
template <unsigned D>
DEVICE void add_product(float (&sums)[D / 8][4], const float (&left)[2][4], const Bf16 *right, unsigned m) {
    unsigned a[4];
    as_left(a, left);
#pragma unroll
    for (unsigned d = 0; d < D / 8; d++) {
        unsigned b[2];
        right_from<CHUNK + GAP>(b, right, 8 * d, 16 * m);
        multiply(sums[d], a, b);
    }
}

// Blocks: heads of all sequences, then chunks of queries. Scores are rescaled whenever a larger one comes.
template <unsigned H>
DEVICE void forward(Bf16 *out, float *lse, const Bf16 *qkv, unsigned tokens, unsigned heads, float scale,
                    unsigned causal) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned D = PADDED<H>;
    Bf16 *keys = (Bf16 *)shared, *values = keys + CHUNK * (D + GAP);
    const Head of = head_of<H>(tokens, heads);
    const Bf16 *q = qkv + of.qkv, *k = q + of.width, *v = k + of.width;
    const unsigned lane = threadIdx.x % WARP, first = blockIdx.y * CHUNK + threadIdx.x / WARP * ROWS;
    unsigned queries[D / 16][4];
    left_rows<H>(queries, q, of.stride, first, tokens);
    float sums[D / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    const unsigned end = causal ? min(tokens, (blockIdx.y + 1) * CHUNK) : tokens;
    for (unsigned base = 0; base < end; base += CHUNK) {
        __syncthreads();
        rows_to_shared<H>(keys, k, of.stride, base, tokens);
        columns_to_shared<H>(values, v, of.stride, base, tokens);
        __syncthreads();
        float s[CHUNK / 8][4] = {};
#pragma unroll
        for (unsigned n = 0; n < CHUNK / 8; n++)
#pragma unroll
            for (unsigned d = 0; d < D / 16; d++) {
                unsigned b[2];
                right_from<D + GAP>(b, keys, 8 * n, 16 * d);
                multiply(s[n], queries[d], b);
            }
        float most[2] = {largest[0], largest[1]};
#pragma unroll
        for (unsigned n = 0; n < CHUNK / 8; n++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const unsigned key = base + 8 * n + 2 * (lane % 4) + i % 2, query = first + lane / 4 + 8 * (i / 2);
                const bool seen = key < tokens && (!causal || key <= query);
                s[n][i] = seen ? s[n][i] * scale : -INFINITY;
                most[i / 2] = fmaxf(most[i / 2], s[n][i]);
            }
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            // Every row sees the first key of the first chunk, so the largest is a number from then on.
            most[half] = row_max(most[half]);
            const float factor = __expf(largest[half] - most[half]);
            largest[half] = most[half];
            sum[half] *= factor;
#pragma unroll
            for (unsigned d = 0; d < D / 8; d++) {
                sums[d][2 * half] *= factor;
                sums[d][2 * half + 1] *= factor;
            }
        }
#pragma unroll
        for (unsigned m = 0; m < CHUNK / 16; m++) {
            float p[2][4];
#pragma unroll
            for (unsigned n = 0; n < 2; n++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    p[n][i] = __expf(s[2 * m + n][i] - largest[i / 2]);
                    sum[i / 2] += p[n][i];
                }
            add_product<D>(sums, p, values, m);
        }
    }
    float factor[2];
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        sum[half] = row_sum(sum[half]);
        factor[half] = 1.0f / sum[half];
        const unsigned query = first + lane / 4 + 8 * half;
        if (lane % 4 == 0 && query < tokens)
            lse[of.saved + query] = largest[half] + __logf(sum[half]);
    }
    write_rows<H>(out + of.out, of.width, first, tokens, sums, factor);
}

// The gradient of queries. Blocks: heads of all sequences, then chunks of queries.
template <unsigned H>
DEVICE void backward_queries(Bf16 *dqkv, const Bf16 *dout, const Bf16 *qkv, const float *lse, const float *dots,
                             unsigned tokens, unsigned heads, float scale, unsigned causal) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned D = PADDED<H>;
    Bf16 *keys = (Bf16 *)shared, *values = keys + CHUNK * (D + GAP), *keys_across = values + CHUNK * (D + GAP);
    const Head of = head_of<H>(tokens, heads);
    const Bf16 *q = qkv + of.qkv, *k = q + of.width, *v = k + of.width;
    const unsigned lane = threadIdx.x % WARP, first = blockIdx.y * CHUNK + threadIdx.x / WARP * ROWS;
    unsigned queries[D / 16][4], of_out[D / 16][4];
    left_rows<H>(queries, q, of.stride, first, tokens);
    left_rows<H>(of_out, dout + of.out, of.width, first, tokens);
    float own_lse[2], own_dot[2], sums[D / 8][4] = {};
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned query = first + lane / 4 + 8 * half;
        own_lse[half] = query < tokens ? lse[of.saved + query] : 0.0f;
        own_dot[half] = query < tokens ? dots[of.saved + query] : 0.0f;
    }
    const unsigned end = causal ? min(tokens, (blockIdx.y + 1) * CHUNK) : tokens;
    for (unsigned base = 0; base < end; base += CHUNK) {
        __syncthreads();
        rows_to_shared<H>(keys, k, of.stride, base, tokens);
        rows_to_shared<H>(values, v, of.stride, base, tokens);
        columns_to_shared<H>(keys_across, k, of.stride, base, tokens);
        __syncthreads();
#pragma unroll 1
        for (unsigned m = 0; m < CHUNK / 16; m++) {
            float s[2][4] = {}, ds[2][4] = {};
#pragma unroll
            for (unsigned n = 0; n < 2; n++)
#pragma unroll
                for (unsigned d = 0; d < D / 16; d++) {
                    unsigned b[2];
                    right_from<D + GAP>(b, keys, 16 * m + 8 * n, 16 * d);
                    multiply(s[n], queries[d], b);
                    right_from<D + GAP>(b, values, 16 * m + 8 * n, 16 * d);
                    multiply(ds[n], of_out[d], b);
                }
#pragma unroll
            for (unsigned n = 0; n < 2; n++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    const unsigned key = base + 16 * m + 8 * n + 2 * (lane % 4) + i % 2;
                    const unsigned query = first + lane / 4 + 8 * (i / 2);
                    const bool seen = key < tokens && query < tokens && (!causal || key <= query);
                    const float p = seen ? __expf(fmaf(s[n][i], scale, -own_lse[i / 2])) : 0.0f;
                    ds[n][i] = scale * p * (ds[n][i] - own_dot[i / 2]);
                }
            add_product<D>(sums, ds, keys_across, m);
        }
    }
    const float one[2] = {1.0f, 1.0f};
    write_rows<H>(dqkv + of.qkv, of.stride, first, tokens, sums, one);
}

// The gradients of keys and values. Blocks: heads of all sequences, then chunks of keys; scores are transposed, so that a
// row is a key.
template <unsigned H>
DEVICE void backward_keys(Bf16 *dqkv, const Bf16 *dout, const Bf16 *qkv, const float *lse, const float *dots,
                          unsigned tokens, unsigned heads, float scale, unsigned causal) {
    DYNAMIC_SHARED(shared);
    constexpr unsigned D = PADDED<H>;
    constexpr unsigned ALONG = CHUNK * (D + GAP), ACROSS = D * (CHUNK + GAP);
    Bf16 *keys = (Bf16 *)shared, *values = keys + ALONG, *queries = values + ALONG, *of_out = queries + ALONG;
    Bf16 *queries_across = of_out + ALONG, *of_out_across = queries_across + ACROSS;
    const Head of = head_of<H>(tokens, heads);
    const Bf16 *q = qkv + of.qkv, *k = q + of.width, *v = k + of.width;
    const unsigned lane = threadIdx.x % WARP, own = threadIdx.x / WARP * ROWS, first = blockIdx.y * CHUNK + own;
    rows_to_shared<H>(keys, k, of.stride, blockIdx.y * CHUNK, tokens);
    rows_to_shared<H>(values, v, of.stride, blockIdx.y * CHUNK, tokens);
    float of_keys[D / 8][4] = {}, of_values[D / 8][4] = {};
    for (unsigned base = causal ? blockIdx.y * CHUNK : 0; base < tokens; base += CHUNK) {
        __syncthreads();
        rows_to_shared<H>(queries, q, of.stride, base, tokens);
        rows_to_shared<H>(of_out, dout + of.out, of.width, base, tokens);
        columns_to_shared<H>(queries_across, q, of.stride, base, tokens);
        columns_to_shared<H>(of_out_across, dout + of.out, of.width, base, tokens);
        __syncthreads();
#pragma unroll 1
        for (unsigned m = 0; m < CHUNK / 16; m++) {
            float p[2][4] = {}, ds[2][4] = {};
#pragma unroll
            for (unsigned d = 0; d < D / 16; d++) {
                unsigned a[4], b[2];
                left_from<D + GAP>(a, keys, own, 16 * d);
#pragma unroll
                for (unsigned n = 0; n < 2; n++) {
                    right_from<D + GAP>(b, queries, 16 * m + 8 * n, 16 * d);
                    multiply(p[n], a, b);
                }
                left_from<D + GAP>(a, values, own, 16 * d);
#pragma unroll
                for (unsigned n = 0; n < 2; n++) {
                    right_from<D + GAP>(b, of_out, 16 * m + 8 * n, 16 * d);
                    multiply(ds[n], a, b);
                }
            }
#pragma unroll
            for (unsigned n = 0; n < 2; n++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    const unsigned query = base + 16 * m + 8 * n + 2 * (lane % 4) + i % 2;
                    const unsigned key = first + lane / 4 + 8 * (i / 2);
                    const bool seen = key < tokens && query < tokens && (!causal || key <= query);
                    p[n][i] = seen ? __expf(fmaf(p[n][i], scale, -lse[of.saved + query])) : 0.0f;
                    ds[n][i] = seen ? scale * p[n][i] * (ds[n][i] - dots[of.saved + query]) : 0.0f;
                }
            add_product<D>(of_values, p, of_out_across, m);
            add_product<D>(of_keys, ds, queries_across, m);
        }
    }
    const float one[2] = {1.0f, 1.0f};
    write_rows<H>(dqkv + of.qkv + of.width, of.stride, first, tokens, of_keys, one);
    write_rows<H>(dqkv + of.qkv + 2 * of.width, of.stride, first, tokens, of_values, one);
}

// One warp a token of a head: dots [batch * heads * tokens] = dout . out, which is the sum over keys of p dp.
KERNEL attention_dots(float *__restrict__ dots, const Bf16 *__restrict__ dout, const Bf16 *__restrict__ out,
                      unsigned n, unsigned tokens, unsigned heads, unsigned head) {
    const unsigned i = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (i >= n)
        return;
    const unsigned token = i % tokens, h = i / tokens % heads, sequence = i / tokens / heads;
    const size_t at = (((size_t)sequence * tokens + token) * heads + h) * head;
    float sum = 0.0f;
    for (unsigned c = lane; c < head; c += WARP)
        sum = fmaf(widen(dout[at + c]), widen(out[at + c]), sum);
    sum = warp_sum(sum);
    if (lane == 0)
        dots[i] = sum;
}
EXPORT(attention_dots)

#define OF_HEAD(H)                                                                                                     \
    KERNEL __launch_bounds__(WARPS *WARP, 2)                                                                            \
        attention_forward_##H(Bf16 *__restrict__ out, float *__restrict__ lse, const Bf16 *__restrict__ qkv,           \
                              unsigned tokens, unsigned heads, float scale, unsigned causal) {                         \
        forward<H>(out, lse, qkv, tokens, heads, scale, causal);                                                       \
    }                                                                                                                  \
    EXPORT(attention_forward_##H)                                                                                      \
    KERNEL __launch_bounds__(WARPS *WARP, 2)                                                                            \
        attention_backward_queries_##H(Bf16 *__restrict__ dqkv, const Bf16 *__restrict__ dout,                         \
                                       const Bf16 *__restrict__ qkv, const float *__restrict__ lse,                    \
                                       const float *__restrict__ dots, unsigned tokens, unsigned heads, float scale,   \
                                       unsigned causal) {                                                              \
        backward_queries<H>(dqkv, dout, qkv, lse, dots, tokens, heads, scale, causal);                                 \
    }                                                                                                                  \
    EXPORT(attention_backward_queries_##H)                                                                             \
    KERNEL __launch_bounds__(WARPS *WARP, 2)                                                                            \
        attention_backward_keys_##H(Bf16 *__restrict__ dqkv, const Bf16 *__restrict__ dout,                            \
                                    const Bf16 *__restrict__ qkv, const float *__restrict__ lse,                       \
                                    const float *__restrict__ dots, unsigned tokens, unsigned heads, float scale,      \
                                    unsigned causal) {                                                                 \
        backward_keys<H>(dqkv, dout, qkv, lse, dots, tokens, heads, scale, causal);                                    \
    }                                                                                                                  \
    EXPORT(attention_backward_keys_##H)

OF_HEAD(12)
OF_HEAD(16)
OF_HEAD(32)
OF_HEAD(48)
OF_HEAD(64)
OF_HEAD(72)
OF_HEAD(80)
OF_HEAD(88)
OF_HEAD(96)
OF_HEAD(104)
OF_HEAD(112)
OF_HEAD(128)
