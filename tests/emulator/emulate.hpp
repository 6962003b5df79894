// Runs the CUDA kernels of src/kernel on the processor, for tests of their logic: each thread of a block is a fiber,
// blocks come one after the other. A fiber runs until it waits at a barrier, so the order between barriers is one of
// those a GPU may take, always the same. Dynamic shared memory begins as NaN, and threads that wait for each other for
// ever end the process with a message. What this cannot show: most races inside a warp, misaligned access, what the
// hardware rounds.
#pragma once

// The C library's check of longjmp knows one stack alone.
#undef _FORTIFY_SOURCE

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __restrict__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one at a time, so what a block shares may be static.
#define __shared__ static
#define __syncthreads() emulate::wait(emulate::AT_BLOCK)
#define __syncwarp(...) emulate::wait(emulate::AT_WARP)
#define threadIdx (emulate::here().thread)
#define blockIdx (emulate::state().block)
#define blockDim (emulate::state().block_size)
#define gridDim (emulate::state().grid)
#define DYNAMIC_SHARED(name) unsigned char *name = emulate::state().shared.data()

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace emulate {

enum Waiting { AT_NOTHING, AT_WARP, AT_BLOCK, ENDED };
constexpr unsigned LANES = 32;
constexpr size_t STACK = 256 << 10;

struct Fiber {
    jmp_buf context;
    bool begun;
    dim3 thread;
    Waiting waiting;
};

struct State {
    dim3 grid, block, block_size;
    std::vector<unsigned char> shared;
    std::vector<Fiber> fibers;
    std::vector<std::vector<char>> stacks;
    unsigned running;
    jmp_buf scheduler;
    // What the lanes of each warp show each other.
    uint64_t shown[32][LANES];
    unsigned left[32][LANES][4], right[32][LANES][2];
    void (*body)(void *);
    void *arguments;
    std::mutex one_at_a_time;
};

inline State &state() {
    static State only;
    return only;
}
inline Fiber &here() { return state().fibers[state().running]; }
inline unsigned lane() { return state().running % LANES; }
inline unsigned warp() { return state().running / LANES; }

// A fiber is begun by setcontext, which asks the kernel about signals, and goes on by longjmp, which does not. It outlives
// its block: the next one finds it at the end of `enter`.
__attribute__((noinline)) inline void leave() {
    if (_setjmp(here().context) == 0)
        _longjmp(state().scheduler, 1);
}

inline void wait(Waiting at) {
    here().waiting = at;
    leave();
}

inline void enter() {
    for (;;) {
        state().body(state().arguments);
        wait(ENDED);
    }
}

// Runs the fiber `running` until it waits.
__attribute__((noinline)) inline void resume() {
    if (_setjmp(state().scheduler) != 0)
        return;
    if (here().begun)
        _longjmp(here().context, 1);
    here().begun = true;
    ucontext_t first;
    getcontext(&first);
    first.uc_stack.ss_sp = state().stacks[state().running].data();
    first.uc_stack.ss_size = STACK;
    first.uc_link = nullptr;
    makecontext(&first, enter, 0);
    setcontext(&first);
}

// Lets go of threads first..last that all wait at `at`; those that ended count as there.
inline bool release(unsigned first, unsigned last, Waiting at) {
    bool any = false;
    for (unsigned i = first; i < last; i++) {
        if (state().fibers[i].waiting != at && state().fibers[i].waiting != ENDED)
            return false;
        any |= state().fibers[i].waiting == at;
    }
    for (unsigned i = first; i < last; i++)
        if (state().fibers[i].waiting == at)
            state().fibers[i].waiting = AT_NOTHING;
    return any;
}

inline void run_block(unsigned threads) {
    State &s = state();
    memset(s.shared.data(), 0xff, s.shared.size());
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = s.fibers[i];
        fiber.thread = dim3{i, 0, 0};
        fiber.waiting = AT_NOTHING;
    }
    // Each warp goes as far as it can before the next begins, in alternate blocks from the first or from the last: where a
    // barrier is missing, some warp reads what another has not written yet, or has overwritten.
    const unsigned warps = (threads + LANES - 1) / LANES;
    const bool backwards = (s.block.x + s.block.y) % 2 == 1;
    do {
        for (unsigned w = 0; w < warps; w++) {
            const unsigned first = (backwards ? warps - 1 - w : w) * LANES;
            const unsigned last = first + LANES < threads ? first + LANES : threads;
            do
                for (s.running = first; s.running < last; s.running++)
                    if (here().waiting == AT_NOTHING)
                        resume();
            while (release(first, last, AT_WARP));
        }
    } while (release(0, threads, AT_BLOCK));
    for (unsigned i = 0; i < threads; i++)
        if (s.fibers[i].waiting != ENDED) {
            fprintf(stderr, "the threads of a block wait for each other for ever\n");
            abort();
        }
}

template <typename... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
    template <size_t... I> void with(std::index_sequence<I...>) { kernel(*static_cast<A *>(arguments[I])...); }
    static void body(void *self) { static_cast<Call *>(self)->with(std::index_sequence_for<A...>{}); }
};

// The counterpart of cuLaunchKernel.
template <typename... A>
void launch(void (*kernel)(A...), const unsigned *grid, unsigned threads, unsigned shared_bytes, void **arguments) {
    State &s = state();
    std::lock_guard<std::mutex> guard(s.one_at_a_time);
    Call<A...> call{kernel, arguments};
    s.body = Call<A...>::body;
    s.arguments = &call;
    s.grid = dim3{grid[0], grid[1], grid[2]};
    s.block_size = dim3{threads, 1, 1};
    s.shared.resize(shared_bytes);
    if (s.fibers.size() < threads)
        s.fibers.resize(threads);
    while (s.stacks.size() < threads)
        s.stacks.emplace_back(STACK);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                s.block = dim3{x, y, z};
                run_block(threads);
            }
}

template <typename T> T shuffle_xor(T x, unsigned distance) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a lane shows one number");
    memcpy(&state().shown[warp()][lane()], &x, sizeof x);
    wait(AT_WARP);
    memcpy(&x, &state().shown[warp()][lane() ^ distance], sizeof x);
    wait(AT_WARP);
    return x;
}

inline float from_bits(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline unsigned to_bits(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline unsigned bf16(float x) {
    const unsigned bits = to_bits(x);
    if (std::isnan(x))
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The product of a warp, in the layout that prelude.cuh names.
inline void multiply(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    memcpy(state().left[warp()][lane()], a, sizeof a);
    memcpy(state().right[warp()][lane()], b, sizeof b);
    wait(AT_WARP);
    const auto half = [](unsigned two, unsigned which) {
        return from_bits(which ? two & 0xffff0000u : two << 16);
    };
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane() / 4 + 8 * (i / 2), column = 2 * (lane() % 4) + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            const unsigned *left = state().left[warp()][4 * (row % 8) + k % 8 / 2];
            const unsigned *right = state().right[warp()][4 * column + k % 8 / 2];
            sums[i] += half(left[row / 8 + 2 * (k / 8)], k % 2) * half(right[k / 8], k % 2);
        }
    }
    wait(AT_WARP);
}

} // namespace emulate

template <typename T> T __shfl_xor_sync(unsigned, T x, unsigned distance) { return emulate::shuffle_xor(x, distance); }
inline float __uint_as_float(unsigned bits) { return emulate::from_bits(bits); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::erf;
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

#define EXPORT(kernel)                                                                                                 \
    extern "C" void kernel##_launch(const unsigned *grid, unsigned threads, unsigned shared_bytes, void **arguments) { \
        emulate::launch(kernel, grid, threads, shared_bytes, arguments);                                               \
    }
