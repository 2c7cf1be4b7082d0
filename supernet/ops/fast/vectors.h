// Vectors of floats for the processor that the compiler makes code for, and memory for them.
//
// Two numbers describe the processor: how many vector registers it has, and how many floats are in one. Every kernel
// is written for any width V, and keeps as many sums as there are registers for. Channels are covered by vectors of
// the whole WIDTH first, then by narrower ones, so that any number of channels is allowed.

#pragma once

#include <cstdlib>
#include <cstring>
#include <type_traits>

#ifdef _OPENMP
#include <omp.h>
#else  // one thread
static inline int omp_get_max_threads() { return 1; }
static inline int omp_get_num_threads() { return 1; }
static inline int omp_get_thread_num() { return 0; }
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined __AVX512F__
constexpr int REGISTERS = 32, WIDTH = 16;
#elif defined __AVX__
constexpr int REGISTERS = 16, WIDTH = 8;
#elif defined __aarch64__  // NEON
constexpr int REGISTERS = 32, WIDTH = 4;
#else  // SSE2
constexpr int REGISTERS = 16, WIDTH = 4;
#endif

template <int V> struct Vector {
    typedef float floats __attribute__((vector_size(4 * V)));
    typedef int mask __attribute__((vector_size(4 * V)));
};
template <int V> using vec = typename Vector<V>::floats;
template <int V> using mask = typename Vector<V>::mask;  // of each float, all bits or none; or its bits

template <int V> INLINE vec<V> load(const float *from) {
    vec<V> result;
    memcpy(&result, from, sizeof result);
    return result;
}

template <int V> INLINE void store(float *to, vec<V> value) { memcpy(to, &value, sizeof value); }

template <int V> INLINE mask<V> bits(vec<V> value) { return (mask<V>)value; }

template <int N> using Number = std::integral_constant<int, N>;  // a number that is known to the compiler

// Calls kernel(V, c) for vectors of V channels from c on, which cover those from `begin` to `channels`.
template <int V = WIDTH, typename Kernel> INLINE void each_vector(long channels, Kernel kernel, long begin = 0) {
    long c = begin;
    for (; c + V <= channels; c += V) kernel(Number<V>(), c);
    if constexpr (V > 1) each_vector<(V > 4 ? V / 2 : 1)>(channels, kernel, c);
}

// Calls kernel(V, W, c) for W vectors of V channels each, side by side: two where they fit, then one.
template <typename Kernel> INLINE void each_pair(long channels, Kernel kernel) {
    long c = 0;
    for (; c + 2 * WIDTH <= channels; c += 2 * WIDTH) kernel(Number<WIDTH>(), Number<2>(), c);
    each_vector(channels, [&](auto V, long one) { kernel(V, Number<1>(), one); }, c);
}

enum { DONE, NO_MEMORY };  // what a kernel answers

// Floats that begin at a line of the cache, so that no row of a tile is in two. Null if there is no memory left.
class Floats {
    float *data;

public:
    explicit Floats(long size, bool zeros = false)
        : data((float *)std::aligned_alloc(64, ((size > 0 ? size : 1) * sizeof(float) + 63) / 64 * 64)) {
        if (data && zeros) memset(data, 0, size * sizeof(float));
    }
    Floats(const Floats &) = delete;
    ~Floats() { std::free(data); }
    operator float *() const { return data; }
};

// a number of floats in whole lines of the cache, so that what follows begins at one
static inline long in_lines(long size) { return (size + 15) / 16 * 16; }
