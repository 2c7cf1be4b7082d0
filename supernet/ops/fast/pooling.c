// The 3x3 max and average poolings of one image, forward and backward. Images are
// [images][height][width][channels] in float32; results are in bfloat16 if `half`.
//
// Both poolings read a window while it is in the cache. No indices are stored: backward finds the maxima again, and
// adds up the gradients of both poolings in one image. A vector holds channels.
//
// The images are divided into the groups of rows.h. Each group is computed by one thread, and the results of the
// groups are added up in their order. So the result does not depend on the number of threads.
//
// As in torch, the padding of one pixel takes no part. Of equal maxima, the first in the order of rows counts; of
// several NaN, the last.

#include <stdlib.h>
#include <string.h>

#include "half.h"

typedef struct {
    long images, height, width, channels, stride;
    long high, wide, in_size, out_size;  // of a result: its height and width; floats of an image, of a result
} Job;

static Job job_of(const long *shape) {
    Job job = {shape[0], shape[1], shape[2], shape[3], shape[4]};
    job.high = (job.height - 1) / job.stride + 1;
    job.wide = (job.width - 1) / job.stride + 1;
    job.in_size = job.height * job.width * job.channels;
    job.out_size = job.high * job.wide * job.channels;
    return job;
}

typedef struct {
    long top, bottom, left, right;  // of the window of a result, inside the image; the ends are beyond it
    float share;                    // of each of its pixels in the mean
} Window;

static inline Window window_of(const Job *job, long h, long w) {
    long y = h * job->stride, x = w * job->stride;
    Window window = {y ? y - 1 : 0, y + 2 < job->height ? y + 2 : job->height, x ? x - 1 : 0, x + 2 < job->width ? x + 2 : job->width};
    window.share = 1.0f / ((window.bottom - window.top) * (window.right - window.left));
    return window;
}

#define FOR_EACH_PIXEL(window)                                                                                                 \
    for (long i = (window).top; i < (window).bottom; i++)                                                                      \
        for (long j = (window).left; j < (window).right; j++)

#define KERNELS(V)                                                                                                             \
    typedef float v##V __attribute__((vector_size(4 * V), aligned(4), may_alias));                                             \
    typedef int mask##V __attribute__((vector_size(4 * V), aligned(4), may_alias));                                            \
                                                                                                                               \
    static inline mask##V larger##V(v##V a, v##V b) { return (a > b) | (a != a); } /* a NaN is larger than all */              \
                                                                                                                               \
    static inline mask##V chosen##V(mask##V which, mask##V a, mask##V b) { return (which & a) | (~which & b); }                \
                                                                                                                               \
    /* the maxima and the means of an image; each may be null */                                                               \
    static void pool##V(float *maxima, float *means, const float *image, const Job *job) {                                     \
        for (long h = 0; h < job->high; h++)                                                                                   \
            for (long w = 0; w < job->wide; w++) {                                                                             \
                Window window = window_of(job, h, w);                                                                          \
                for (long c = 0; c < job->channels; c += V) {                                                                  \
                    long place = (h * job->wide + w) * job->channels + c;                                                      \
                    v##V max = (v##V){0} - __builtin_inff(), sum = {0};                                                        \
                    FOR_EACH_PIXEL(window) {                                                                                   \
                        v##V one = *(const v##V *)(image + (i * job->width + j) * job->channels + c);                          \
                        max = (v##V)chosen##V(larger##V(one, max), (mask##V)one, (mask##V)max);                                \
                        sum += one;                                                                                            \
                    }                                                                                                          \
                    if (maxima) *(v##V *)(maxima + place) = max;                                                               \
                    if (means) *(v##V *)(means + place) = sum * window.share;                                                  \
                }                                                                                                              \
            }                                                                                                                  \
    }                                                                                                                          \
                                                                                                                               \
    /* result += the gradient of an image, those of its maxima and means given; each may be null */                            \
    static void pool_back##V(float *result, const float *of_maxima, const float *of_means, const float *image,                 \
                             const Job *job) {                                                                                 \
        for (long h = 0; h < job->high; h++)                                                                                   \
            for (long w = 0; w < job->wide; w++) {                                                                             \
                Window window = window_of(job, h, w);                                                                          \
                for (long c = 0; c < job->channels; c += V) {                                                                  \
                    long place = (h * job->wide + w) * job->channels + c;                                                      \
                    mask##V at = (mask##V){0} + (int)(window.top * job->width + window.left), of_max = {0};                    \
                    v##V of_mean = {0}, max = (v##V){0} - __builtin_inff();                                                    \
                    if (of_means) of_mean = *(const v##V *)(of_means + place) * window.share;                                  \
                    if (of_maxima) {                                                                                           \
                        of_max = *(const mask##V *)(of_maxima + place);                                                        \
                        FOR_EACH_PIXEL(window) {                                                                               \
                            v##V one = *(const v##V *)(image + (i * job->width + j) * job->channels + c);                      \
                            mask##V is = larger##V(one, max);                                                                  \
                            max = (v##V)chosen##V(is, (mask##V)one, (mask##V)max);                                             \
                            at = chosen##V(is, (mask##V){0} + (int)(i * job->width + j), at);                                  \
                        }                                                                                                      \
                    }                                                                                                          \
                    FOR_EACH_PIXEL(window) {                                                                                   \
                        long pixel = i * job->width + j;                                                                       \
                        *(v##V *)(result + pixel * job->channels + c) += of_mean + (v##V)((at == (int)pixel) & of_max);        \
                    }                                                                                                          \
                }                                                                                                              \
            }                                                                                                                  \
    }

KERNELS(16)
KERNELS(4)

#define CALL(name, ...) (job.channels % 16 ? name##4(__VA_ARGS__) : name##16(__VA_ARGS__))

// maxima and means [images][out height][out width][channels], each of which may be null; over the pixels of those that are not, one
// after the other, the means of squares and of themselves, squares and first [channels] each, which may be null together
void pool(void *maxima, void *means, float *squares, float *first, const float *x, const long *shape, long half) {
    Job job = job_of(shape);
    long channels = job.channels, pixels = job.high * job.wide, size = (!!maxima + !!means) * channels;
    float *parts = calloc(2 * GROUPS * size, sizeof(float)), *sums = parts + GROUPS * size;
#pragma omp parallel for schedule(static)
    for (long g = 0; g < GROUPS; g++) {
        long from, to;
        group(g, job.images, &from, &to);
        long image = job.out_size * (half ? sizeof(bf16) : sizeof(float));
        float *wide = half ? lines(2 * job.out_size) : NULL;
        Scratch scratch = scratch_of(channels, half);
        for (long b = from; b < to; b++) {
            void *places[] = {maxima ? (char *)maxima + b * image : NULL, means ? (char *)means + b * image : NULL};
            float *each[] = {half && maxima ? wide : places[0], half && means ? wide + job.out_size : places[1]};
            CALL(pool, each[0], each[1], x + b * job.in_size, &job);
            for (long k = 0, at = g * size; k < 2; k++) {
                if (!places[k]) continue;
                if (half) halve(places[k], each[k], job.out_size);
                if (!squares) continue;
                add_any_gram(parts + at, places[k], places[k], DIAGONAL, pixels, channels, half, &scratch);
                add_any_gram(sums + at, NULL, places[k], SUM, pixels, channels, half, &scratch);
                at += channels;
            }
        }
        free(wide);
        free(scratch.left);
    }
    if (squares) {
        add_groups(squares, parts, size, 1.0f / (job.images * pixels));
        add_groups(first, sums, size, 1.0f / (job.images * pixels));
    }
    free(parts);
}

// The gradient of x. Those of the maxima, if `with_maxima`, and then of the means, if `with_means`, are not given but computed on
// the way, an image at a time: shifts[k] + sum of rows[t] x matrices[t] over the terms start[k] <= t < start[k + 1], as products in
// rows.c, of rows in bfloat16 if `half`.
void pool_backward(float *of_x, const float *x, long with_maxima, long with_means, const float *shifts, const long *start,
                   const void *const *rows, const float *const *matrices, const long *kinds, const long *shape, long half) {
    Job job = job_of(shape);
    long pixels = job.high * job.wide, count = with_maxima + with_means;
    Terms terms = terms_of(rows, matrices, kinds, start[count], job.channels, half);
#pragma omp parallel for schedule(static)
    for (long g = 0; g < GROUPS; g++) {
        long from, to;
        group(g, job.images, &from, &to);
        float *gradient = lines(count * job.out_size);
        for (long b = from; b < to; b++) {
            for (long k = 0; k < count; k++)
                sum_of(gradient + k * job.out_size, NULL, shifts + k * job.channels, &terms, start[k], start[k + 1], b * pixels,
                       (b + 1) * pixels);
            float *place = of_x + b * job.in_size;
            memset(place, 0, job.in_size * sizeof(float));
            CALL(pool_back, place, with_maxima ? gradient : NULL, with_means ? gradient + with_maxima * job.out_size : NULL,
                 x + b * job.in_size, &job);
        }
        free(gradient);
    }
    release(&terms);
}
