// Sums of small matrix products over rows of pixels [n][channels], in float32.
//
// A term is some rows and a matrix [channels][channels], or a diagonal [channels]. Registers hold what is added up: a
// block of rows (products) or a tile of the result (grams). No sum depends on which thread computes it.
//
// The file includes itself once for each width V of the vectors, 16 and 4. Products and grams choose between them.

#ifndef V

#define ROWS 8     // of a block of products
#define CHUNK 256  // rows of a unit of parallel work (products), that are added up before they join the whole (grams)
#define NAME_(name, width) name##width
#define NAME__(name, width) NAME_(name, width)
#define NAME(name) NAME__(name, V)
#define INLINE static inline __attribute__((always_inline))

enum { FULL, DIAGONAL, SUM };

#define V 16
#include "rows.h"
#undef V
#define V 4
#include "rows.h"
#undef V

// result, of the rows `from` to `to`, = start (or nothing) + shift + the sum of the terms' rows x matrices
static void products_of(float *result, const float *start, const float *shift, const float *const *rows, const float *const *matrices,
                        const long *kinds, long terms, long from, long to, long channels) {
    (channels % 16 ? products4 : products16)(result, start, shift, rows, matrices, kinds, terms, from, to, channels);
}

// result += left' x right (FULL), its diagonal, or the sum of the rows of right
static void add_gram(float *result, const float *left, const float *right, long kind, long n, long channels) {
    (channels % 16 ? grams4 : grams16)(result, left, right, kind, n, channels);
}

// The images are divided into as many groups, each of which adds up its own before the sums of the groups are added up.
#define GROUPS 8

static void group(long g, long images, long *from, long *to) { *from = g * images / GROUPS, *to = (g + 1) * images / GROUPS; }

// result = factor times the sum of the groups' parts
static void add_groups(float *result, const float *parts, long size, float factor) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < size; i++) {
        float sum = 0.0f;
        for (long g = 0; g < GROUPS; g++) sum += parts[g * size + i];
        result[i] = sum * factor;
    }
}

#else

typedef float NAME(vector) __attribute__((vector_size(4 * V), aligned(4), may_alias));
#define vector NAME(vector)
#define AT(place) (*(vector *)(place))
#define FROM(place) (*(vector *)(place))

// `count` rows from `row` on, W vectors of their channels from `c` on; result is the place of that row
INLINE void NAME(block)(float *result, const float *start, const float *shift, const float *const *rows,
                        const float *const *matrices, const long *kinds, long terms, long row, long c, long channels, const int count,
                        const int W) {
    vector sum[ROWS][2];
    for (int r = 0; r < count; r++)
        for (int w = 0; w < W; w++) {
            sum[r][w] = FROM(shift + c + w * V);
            if (start) sum[r][w] += FROM(start + (row + r) * channels + c + w * V);
        }
    for (long t = 0; t < terms; t++) {
        const float *from = rows[t] + row * channels, *matrix = matrices[t] + c;
        if (kinds[t] == DIAGONAL) {
            for (int r = 0; r < count; r++)
                for (int w = 0; w < W; w++) sum[r][w] += FROM(from + r * channels + c + w * V) * FROM(matrix + w * V);
            continue;
        }
        for (long k = 0; k < channels; k++)
            for (int r = 0; r < count; r++)
                for (int w = 0; w < W; w++) sum[r][w] += from[r * channels + k] * FROM(matrix + k * channels + w * V);
    }
    for (int r = 0; r < count; r++)
        for (int w = 0; w < W; w++) AT(result + r * channels + c + w * V) = sum[r][w];
}

static void NAME(products)(float *result, const float *start, const float *shift, const float *const *rows,
                           const float *const *matrices, const long *kinds, long terms, long from, long to, long channels) {
    for (long c = 0; c < channels;) {
        int W = channels - c >= 2 * V ? 2 : 1;
        long row = from;
        for (; row + ROWS <= to; row += ROWS)
            if (W == 2)
                NAME(block)(result + (row - from) * channels, start, shift, rows, matrices, kinds, terms, row, c, channels, ROWS, 2);
            else
                NAME(block)(result + (row - from) * channels, start, shift, rows, matrices, kinds, terms, row, c, channels, ROWS, 1);
        for (; row < to; row++)
            if (W == 2)
                NAME(block)(result + (row - from) * channels, start, shift, rows, matrices, kinds, terms, row, c, channels, 1, 2);
            else
                NAME(block)(result + (row - from) * channels, start, shift, rows, matrices, kinds, terms, row, c, channels, 1, 1);
        c += W * V;
    }
}

// a tile of the result: H channels of `left` by W vectors of `right`, over `count` rows
INLINE void NAME(tile)(float *result, const float *left, const float *right, long count, long channels, const int H, const int W) {
    vector sum[16][2];
    for (int h = 0; h < H; h++)
        for (int w = 0; w < W; w++) sum[h][w] = (vector){0};
    for (long r = 0; r < count; r++, left += channels, right += channels)
        for (int h = 0; h < H; h++)
            for (int w = 0; w < W; w++) sum[h][w] += left[h] * FROM(right + w * V);
    for (int h = 0; h < H; h++)
        for (int w = 0; w < W; w++) AT(result + h * channels + w * V) += sum[h][w];
}

static void NAME(grams)(float *result, const float *left, const float *right, long kind, long n, long channels) {
    for (long from = 0; from < n; from += CHUNK) {
        long count = n - from < CHUNK ? n - from : CHUNK;
        const float *a = kind == SUM ? right : left + from * channels, *b = right + from * channels;
        if (kind != FULL) {
            for (long c = 0; c < channels; c += V) {
                vector sum = {0};
                for (long r = c; r < c + count * channels; r += channels)
                    if (kind == DIAGONAL)
                        sum += FROM(a + r) * FROM(b + r);
                    else
                        sum += FROM(b + r);
                AT(result + c) += sum;
            }
            continue;
        }
        for (long c = 0; c < channels;) {
            int W = channels - c >= 2 * V ? 2 : 1;
            long h = 0;
            if (W == 1)
                for (; h + 16 <= channels; h += 16) NAME(tile)(result + h * channels + c, a + h, b + c, count, channels, 16, 1);
            else
                for (; h + 8 <= channels; h += 8) NAME(tile)(result + h * channels + c, a + h, b + c, count, channels, 8, 2);
            for (; h < channels; h += 4)
                if (W == 1)
                    NAME(tile)(result + h * channels + c, a + h, b + c, count, channels, 4, 1);
                else
                    NAME(tile)(result + h * channels + c, a + h, b + c, count, channels, 4, 2);
            c += W * V;
        }
    }
}

#undef vector
#undef AT
#undef FROM
#endif
