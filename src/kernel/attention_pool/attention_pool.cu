// Attention of one learned query over the tokens of each sequence; see mod.rs.
#include "prelude.cuh"

// Columns of a head that a lane has: heads are at most 128 wide.
constexpr unsigned COLUMNS = 4;

// One warp a head of a sequence, kv [pairs / heads * tokens, 2 * heads * head]: out = p v and lse, over the tokens in order.
KERNEL attention_pool_forward(Bf16 *__restrict__ out, float *__restrict__ lse, const float *__restrict__ query,
                              const Bf16 *__restrict__ kv, unsigned pairs, unsigned tokens, unsigned heads,
                              unsigned head, float scale) {
    const unsigned pair_at = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (pair_at >= pairs)
        return;
    const unsigned width = heads * head, at = pair_at % heads * head;
    const Bf16 *from = kv + (size_t)(pair_at / heads) * tokens * 2 * width + at;
    float q[COLUMNS], sums[COLUMNS];
    for (unsigned i = 0; i < COLUMNS; i++) {
        const unsigned column = lane + WARP * i;
        q[i] = column < head ? scale * query[at + column] : 0.0f;
        sums[i] = 0.0f;
    }
    float most = 0.0f, total = 0.0f;
    for (unsigned t = 0; t < tokens; t++, from += 2 * width) {
        float score = 0.0f;
        for (unsigned i = 0; i < COLUMNS; i++)
            if (lane + WARP * i < head)
                score += q[i] * widen(from[lane + WARP * i]);
        score = warp_sum(score);
        const float next = t == 0 ? score : fmaxf(most, score), keep = t == 0 ? 0.0f : expf(most - next);
        const float share = expf(score - next);
        total = total * keep + share;
        for (unsigned i = 0; i < COLUMNS; i++)
            if (lane + WARP * i < head)
                sums[i] = sums[i] * keep + share * widen(from[width + lane + WARP * i]);
        most = next;
    }
    for (unsigned i = 0; i < COLUMNS; i++)
        if (lane + WARP * i < head)
            out[(size_t)pair_at * head + lane + WARP * i] = rounded<Bf16>(sums[i] / total);
    if (lane == 0)
        lse[pair_at] = most + logf(total);
}
EXPORT(attention_pool_forward)

// One warp a head of a sequence: dkv, and the part dqueries [batch, width] of the query's gradient, for the gradient dout of
// the output.
KERNEL attention_pool_backward(Bf16 *__restrict__ dkv, float *__restrict__ dqueries, const Bf16 *__restrict__ dout,
                               const float *__restrict__ query, const Bf16 *__restrict__ kv,
                               const float *__restrict__ lse, unsigned pairs, unsigned tokens, unsigned heads,
                               unsigned head, float scale) {
    const unsigned pair_at = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (pair_at >= pairs)
        return;
    const unsigned width = heads * head, at = pair_at % heads * head;
    const size_t first = (size_t)(pair_at / heads) * tokens * 2 * width + at;
    const float sum = lse[pair_at];
    float q[COLUMNS], d[COLUMNS], dq[COLUMNS];
    for (unsigned i = 0; i < COLUMNS; i++) {
        const unsigned column = lane + WARP * i;
        q[i] = column < head ? scale * query[at + column] : 0.0f;
        d[i] = column < head ? widen(dout[(size_t)pair_at * head + column]) : 0.0f;
        dq[i] = 0.0f;
    }
    // The mean of the gradients of the shares, then what lies above it.
    float mean = 0.0f;
    for (unsigned pass = 0; pass < 2; pass++) {
        const Bf16 *from = kv + first;
        Bf16 *to = dkv + first;
        for (unsigned t = 0; t < tokens; t++, from += 2 * width, to += 2 * width) {
            float score = 0.0f, dshare = 0.0f;
            for (unsigned i = 0; i < COLUMNS; i++)
                if (lane + WARP * i < head) {
                    score += q[i] * widen(from[lane + WARP * i]);
                    dshare += d[i] * widen(from[width + lane + WARP * i]);
                }
            const float share = expf(warp_sum(score) - sum);
            dshare = warp_sum(dshare);
            if (pass == 0) {
                mean += share * dshare;
                continue;
            }
            const float dscore = share * (dshare - mean);
            for (unsigned i = 0; i < COLUMNS; i++)
                if (lane + WARP * i < head) {
                    dq[i] += scale * dscore * widen(from[lane + WARP * i]);
                    to[lane + WARP * i] = rounded<Bf16>(dscore * q[i]);
                    to[width + lane + WARP * i] = rounded<Bf16>(share * d[i]);
                }
        }
    }
    for (unsigned i = 0; i < COLUMNS; i++)
        if (lane + WARP * i < head)
            dqueries[(size_t)pair_at * head + lane + WARP * i] = dq[i];
}
EXPORT(attention_pool_backward)

// One thread a column: dquery += the rows of dqueries [batch, width], in order.
KERNEL attention_pool_sum(float *__restrict__ dquery, const float *__restrict__ dqueries, unsigned batch, unsigned width) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    float sum = 0.0f;
    for (unsigned b = 0; b < batch; b++)
        sum += dqueries[(size_t)b * width + column];
    dquery[column] += sum;
}
EXPORT(attention_pool_sum)
