// Sums of products over the pixels of a batch, many at once: see rows.h.

#include <omp.h>
#include <string.h>

#include "rows.h"

// results[i] [n][channels] = start[i] + shifts[i] + sum of rows[t] x matrices[t] over the terms first[i] <= t < first[i + 1];
// start[i] may be null
void products(float *const *results, const float *const *start, const float *shifts, const long *first, const float *const *rows,
              const float *const *matrices, const long *kinds, long count, long n, long channels) {
    long chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static)
    for (long unit = 0; unit < chunks * count; unit++) {
        long i = unit % count, t = first[i], from = unit / count * CHUNK, to = from + CHUNK < n ? from + CHUNK : n;
        products_of(results[i] + from * channels, start[i], shifts + i * channels, rows + t, matrices + t, kinds + t, first[i + 1] - t, from, to,
                    channels);
    }
}

// results[i] = left[i]' x right[i] [channels][channels] (FULL), its diagonal, or the sum of the rows of right[i] [channels]
void grams(float *const *results, const float *const *left, const float *const *right, const long *kinds, long count, long n,
           long channels) {
    for (long i = 0; i < count; i++) memset(results[i], 0, (kinds[i] == FULL ? channels : 1) * channels * sizeof(float));
#pragma omp parallel
    for (long from = 0; from < n; from += CHUNK)
        for (long i = omp_get_thread_num(); i < count; i += omp_get_num_threads())
            add_gram(results[i], left[i] ? left[i] + from * channels : NULL, right[i] + from * channels, kinds[i],
                     n - from < CHUNK ? n - from : CHUNK, channels);
}
