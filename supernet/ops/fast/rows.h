// Sums of small matrix products over rows of pixels [n][channels], in float32.
//
// A term is some rows and a matrix [channels][channels], or a diagonal [channels]. Registers hold what is added up: a
// block of rows (products) or a tile of the result (grams). No sum depends on which thread computes it.

#pragma once

#include "vectors.h"

constexpr long CHUNK = 256;  // rows of a unit of parallel work (products), that are added up before they join the whole (grams)

enum { FULL, DIAGONAL, SUM };

// A sum of terms: start (or nothing) + shift (or nothing) + the sum of the terms' rows x matrices.
struct Sum {
    const float *start, *shift, *const *rows, *const *matrices;
    const long *kinds;
    long terms, channels;
};

// R rows from `row` on, W vectors of their channels from `c` on; result is the place of that row
template <int V, int W, int R> INLINE void block(float *result, const Sum &all, long row, long c) {
    const long channels = all.channels;
    vec<V> sum[R][W];
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) {
            sum[r][w] = all.shift ? load<V>(all.shift + c + w * V) : vec<V>{};
            if (all.start) sum[r][w] += load<V>(all.start + (row + r) * channels + c + w * V);
        }
    for (long t = 0; t < all.terms; t++) {
        const float *from = all.rows[t] + row * channels, *matrix = all.matrices[t] + c;
        if (all.kinds[t] == DIAGONAL) {
            for (int r = 0; r < R; r++)
                for (int w = 0; w < W; w++) sum[r][w] += load<V>(from + r * channels + c + w * V) * load<V>(matrix + w * V);
            continue;
        }
        for (long k = 0; k < channels; k++)
            for (int r = 0; r < R; r++)
                for (int w = 0; w < W; w++) sum[r][w] += from[r * channels + k] * load<V>(matrix + k * channels + w * V);
    }
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) store<V>(result + r * channels + c + w * V, sum[r][w]);
}

// the rows from `row` to `to`, in blocks of R rows, and what is left in smaller ones
template <int V, int W, int R> void blocks(float *result, const Sum &all, long row, long to, long c) {
    for (; row + R <= to; row += R, result += R * all.channels) block<V, W, R>(result, all, row, c);
    if constexpr (R > 1) blocks<V, W, R / 2>(result, all, row, to, c);
}

constexpr int ROWS = REGISTERS > 16 ? 8 : 6;  // of a block: two vectors of each, those of the matrix and one number fit

// result = the sum, for the rows `from` to `to`; result is the place of the first
static void products_of(float *result, const Sum &all, long from, long to) {
    each_pair(all.channels, [&](auto V, auto W, long c) { blocks<V.value, W.value, ROWS>(result, all, from, to, c); });
}

// a tile of the result: H channels of `left` by W vectors of `right`, over `count` rows
template <int V, int W, int H>
INLINE void tile(float *result, const float *left, const float *right, long count, long channels) {
    vec<V> sum[H][W] = {};
    for (long r = 0; r < count; r++, left += channels, right += channels)
        for (int h = 0; h < H; h++)
            for (int w = 0; w < W; w++) sum[h][w] += left[h] * load<V>(right + w * V);
    for (int h = 0; h < H; h++)
        for (int w = 0; w < W; w++) {
            float *place = result + h * channels + w * V;
            store<V>(place, load<V>(place) + sum[h][w]);
        }
}

// all channels of `left` from h on, in tiles of H channels, and what is left in smaller ones
template <int V, int W, int H>
void tiles_of(float *result, const float *left, const float *right, long count, long channels, long h) {
    for (; h + H <= channels; h += H) tile<V, W, H>(result + h * channels, left + h, right, count, channels);
    if constexpr (H > 1) tiles_of<V, W, H / 2>(result, left, right, count, channels, h);
}

// result += left' x right (FULL), its diagonal, or the sum of the rows of right
static void add_gram(float *result, const float *left, const float *right, long kind, long n, long channels) {
    for (long from = 0; from < n; from += CHUNK) {
        long count = n - from < CHUNK ? n - from : CHUNK;
        const float *a = kind == SUM ? right : left + from * channels, *b = right + from * channels;
        if (kind == FULL)
            each_pair(channels, [&](auto V, auto W, long c) {
                constexpr int H = (REGISTERS > 16 ? 16 : 8) / W.value;
                tiles_of<V.value, W.value, H>(result + c, a, b + c, count, channels, 0);
            });
        else
            each_vector(channels, [&](auto V, long c) {
                vec<V.value> sum = {};
                for (long r = c; r < c + count * channels; r += channels)
                    sum += kind == DIAGONAL ? load<V.value>(a + r) * load<V.value>(b + r) : load<V.value>(b + r);
                store<V.value>(result + c, load<V.value>(result + c) + sum);
            });
    }
}

// The images are divided into at most so many groups. One thread adds up those of a group, and then the sums of the groups
// are added up in their order: so the result does not depend on the number of threads.
constexpr long GROUPS = 32;

static inline long groups_of(long images) { return images < GROUPS ? images : GROUPS; }

struct Range {
    long from, to;
};

static inline Range group(long g, long images) {
    long groups = groups_of(images);
    return {g * images / groups, (g + 1) * images / groups};
}

// result = factor times the sum of the groups' parts
static void add_groups(float *result, const float *parts, long size, long groups, float factor) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < size; i++) {
        float sum = 0.0f;
        for (long g = 0; g < groups; g++) sum += parts[g * size + i];
        result[i] = sum * factor;
    }
}
