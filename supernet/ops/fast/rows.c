// Sums of products over the pixels of a batch, many at once: see rows.h. Rows are in bfloat16 if `half`: see half.h.

#include <omp.h>
#include <string.h>

#include "half.h"

// results[i] [n][channels] = start[i] + shifts[i] + sum of rows[t] x matrices[t] over the terms first[i] <= t < first[i + 1];
// start[i] may be null; the results are in bfloat16 if `half_results`
void products(void *const *results, const float *const *start, const float *shifts, const long *first, const void *const *rows,
              const float *const *matrices, const long *kinds, long count, long n, long channels, long half,
              long half_results) {
    Terms terms = terms_of(rows, matrices, kinds, first[count], channels, half);
    long chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel
    {
        float *wide = half_results ? lines(CHUNK * channels) : NULL;
#pragma omp for schedule(static)
        for (long unit = 0; unit < chunks * count; unit++) {
            long i = unit % count, from = unit / count * CHUNK, to = from + CHUNK < n ? from + CHUNK : n;
            float *place = half_results ? wide : (float *)results[i] + from * channels;
            sum_of(place, start[i], shifts + i * channels, &terms, first[i], first[i + 1], from, to);
            if (half_results) halve((bf16 *)results[i] + from * channels, wide, (to - from) * channels);
        }
        free(wide);
    }
    release(&terms);
}

// results[i] = factor times left[i]' x right[i] [channels][channels] (FULL), its diagonal, or the sum of the rows of right[i] [channels]
void grams(float *const *results, const void *const *left, const void *const *right, const long *kinds, long count, float factor,
           long n, long channels, long half) {
    for (long i = 0; i < count; i++) memset(results[i], 0, (kinds[i] == FULL ? channels : 1) * channels * sizeof(float));
    long row = channels * (half ? sizeof(bf16) : sizeof(float));
#pragma omp parallel
    {
        Scratch scratch = scratch_of(channels, half);
        for (long from = 0; from < n; from += CHUNK)
            for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
                add_any_gram(results[i], left[i] ? (const char *)left[i] + from * row : NULL, (const char *)right[i] + from * row,
                             kinds[i], n - from < CHUNK ? n - from : CHUNK, channels, half, &scratch);
        for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
            for (long c = 0; c < (kinds[i] == FULL ? channels : 1) * channels; c++) results[i][c] *= factor;
        free(scratch.left);
    }
}

// whether rows in bfloat16 are multiplied as such
int multiplies_halves(void) { return tiles(); }
