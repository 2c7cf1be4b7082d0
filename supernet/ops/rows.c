// Sums of products over the pixels of a batch, many at once: see rows.h, and half.h for rows in bfloat16, which are so if `half`.

#include <omp.h>
#include <string.h>

#include "half.h"

// results[i] [n][channels] = start[i] + shifts[i] + sum of rows[t] x matrices[t] over the terms first[i] <= t < first[i + 1];
// start[i] may be null
void products(float *const *results, const float *const *start, const float *shifts, const long *first, const void *const *rows,
              const float *const *matrices, const long *kinds, long count, long n, long channels, long half) {
    Terms terms = terms_of(rows, matrices, kinds, first[count], channels, half);
    long chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static)
    for (long unit = 0; unit < chunks * count; unit++) {
        long i = unit % count, from = unit / count * CHUNK, to = from + CHUNK < n ? from + CHUNK : n;
        sum_of(results[i] + from * channels, start[i], shifts + i * channels, &terms, first[i], first[i + 1], from, to);
    }
    release(&terms);
}

// results[i] = left[i]' x right[i] [channels][channels] (FULL), its diagonal, or the sum of the rows of right[i] [channels]
void grams(float *const *results, const void *const *left, const void *const *right, const long *kinds, long count, long n,
           long channels, long half) {
    for (long i = 0; i < count; i++) memset(results[i], 0, (kinds[i] == FULL ? channels : 1) * channels * sizeof(float));
    long row = channels * (half ? sizeof(bf16) : sizeof(float));
#pragma omp parallel
    {
        Scratch scratch = scratch_of(channels, half);
        for (long from = 0; from < n; from += CHUNK)
            for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
                add_any_gram(results[i], left[i] ? (const char *)left[i] + from * row : NULL, (const char *)right[i] + from * row, kinds[i],
                             n - from < CHUNK ? n - from : CHUNK, channels, half, &scratch);
        free(scratch.left);
    }
}

// whether rows in bfloat16 are multiplied as such
int multiplies_halves(void) { return tiles(); }
