// Sums of products over the pixels of a batch, many at once: see rows.h. Rows are in bfloat16 if `half`: see half.h.

#include "half.h"

extern "C" {

// results[i] [n][channels] = start[i] + shifts[i] + sum of rows[t] x matrices[t] over the terms first[i] <= t < first[i + 1];
// start[i] may be null; the results are in bfloat16 if `half_results`
int products(void *const *results, const float *const *start, const float *shifts, const long *first, const void *const *rows,
             const float *const *matrices, const long *kinds, long count, long n, long channels, long half, long half_results) {
    const Terms terms(rows, matrices, kinds, first[count], channels, half);
    const long chunks = (n + CHUNK - 1) / CHUNK, wide_size = half_results ? CHUNK * channels : 0;
    const long own = in_lines(wide_size) + Scratch::size(channels, half);
    const Floats memory(omp_get_max_threads() * own);
    if (!terms.packed || !memory) return NO_MEMORY;
#pragma omp parallel
    {
        float *wide = memory + omp_get_thread_num() * own;
        const Scratch scratch(wide + in_lines(wide_size), channels);
#pragma omp for schedule(static)
        for (long unit = 0; unit < chunks * count; unit++) {
            long i = unit % count, from = unit / count * CHUNK, to = from + CHUNK < n ? from + CHUNK : n;
            float *place = half_results ? wide : (float *)results[i] + from * channels;
            sum_of(place, start[i], shifts + i * channels, terms, first[i], first[i + 1], from, to, scratch);
            if (half_results) halve((bf16 *)results[i] + from * channels, wide, (to - from) * channels);
        }
    }
    return DONE;
}

// results[i] = factor times left[i]' x right[i] [channels][channels] (FULL), its diagonal, or the sum of the rows of right[i] [channels]
int grams(float *const *results, const void *const *left, const void *const *right, const long *kinds, long count, float factor,
          long n, long channels, long half) {
    const long row = channels * (half ? sizeof(bf16) : sizeof(float)), own = Scratch::size(channels, half);
    const Floats memory(omp_get_max_threads() * own);
    if (!memory) return NO_MEMORY;
    for (long i = 0; i < count; i++) memset(results[i], 0, (kinds[i] == FULL ? channels : 1) * channels * sizeof(float));
#pragma omp parallel
    {
        Scratch scratch(memory + omp_get_thread_num() * own, channels);
        for (long from = 0; from < n; from += CHUNK)
            for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
                add_any_gram(results[i], left[i] ? (const char *)left[i] + from * row : nullptr,
                             (const char *)right[i] + from * row, kinds[i], n - from < CHUNK ? n - from : CHUNK, channels, half,
                             scratch);
        for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
            for (long c = 0; c < (kinds[i] == FULL ? channels : 1) * channels; c++) results[i][c] *= factor;
    }
    return DONE;
}

// whether rows in bfloat16 are multiplied as such
int multiplies_halves(void) { return tiles(); }
}
