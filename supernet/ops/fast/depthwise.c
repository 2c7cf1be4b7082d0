// Many depthwise convolutions of images after ReLU at once, forward and backward.
//
// Images are [images][height][width][channels] in float32. Results are in bfloat16 if `half`. Images that are
// read, and so their gradients, are in bfloat16 if `half_x`.
//
// An image is copied once into a frame of zeros, so that no loop below has to ask where the border is. It stays in
// the cache while all kernels that read it run. A vector holds channels. Registers hold a block of pixels (forward,
// gradient of the images) or all taps of a kernel (gradient of the weights).
//
// The images are divided into the groups of rows.h. Each group is computed by one thread, and the results of the
// groups are added up in their order. So the result does not depend on the number of threads.
//
// Kernel j of count has size[j] x size[j] taps, and dilation[j]. It reads the set j of images, or set 0 if `shared`,
// is padded by size / 2 * dilation, and moves by `stride`. The weights of a kernel are given as [channels][tap]. Here
// they are stored as [tap][channels], one kernel after the other.

#include <stdlib.h>
#include <string.h>

#include "half.h"

typedef struct {
    long count, shared, images, height, width, channels, stride, half_x;
    const long *size, *dilation;
    long border, row, framed_size;       // of a frame: zeros around the image, floats in a row, floats in all
    long high, wide, in_size, out_size;  // of a result: its height and width; floats of an image, of a result
} Job;

static long out(long length, long stride) { return (length - 1) / stride + 1; }

static const long *starts(const Job *job) {
    long *start = malloc((job->count + 1) * sizeof(long));
    start[0] = 0;
    for (long j = 0; j < job->count; j++) start[j + 1] = start[j] + job->size[j] * job->size[j] * job->channels;
    return start;
}

static float *zeros(long size) { return memset(lines(size), 0, size * sizeof(float)); }

static void frame(float *framed, const void *image, long height, long width, long channels, long border, int rectify, long half) {
    long row = (width + 2 * border) * channels;
    for (long h = 0; h < height; h++) {
        float *to = framed + (h + border) * row + border * channels;
        const float *from = half ? to : (const float *)image + h * width * channels;
        if (half) widen(to, (const bf16 *)image + h * width * channels, width * channels);
        if (rectify)
            for (long i = 0; i < width * channels; i++) to[i] = from[i] < 0.0f ? 0.0f : from[i];
        else if (!half)
            memcpy(to, from, width * channels * sizeof(float));
    }
}

#define BLOCK 8

#define KERNELS(V)                                                                                                             \
    typedef float v##V __attribute__((vector_size(4 * V), aligned(4), may_alias));                                             \
                                                                                                                               \
    /* result += sum over taps of kernel times the framed image, from which rows are `row` floats apart */                     \
    static void correlate##V(float *result, const float *framed, const float *kernel, long height, long width, long channels,  \
                             long size, long dilation, long step, long row, long flip, int add) {                              \
        for (long h = 0; h < height; h++)                                                                                      \
            for (long c = 0; c < channels; c += V)                                                                             \
                for (long w = 0; w < width; w += BLOCK) {                                                                      \
                    long block = width - w < BLOCK ? width - w : BLOCK;                                                        \
                    const float *corner = framed + h * step * row + w * step * channels + c;                                   \
                    float *place = result + (h * width + w) * channels + c;                                                    \
                    v##V sum[BLOCK];                                                                                           \
                    if (block == BLOCK) {                                                                                      \
                        for (int u = 0; u < BLOCK; u++) sum[u] = add ? *(const v##V *)(place + u * channels) : (v##V){0};      \
                        for (long i = 0; i < size; i++)                                                                        \
                            for (long j = 0; j < size; j++) {                                                                  \
                                long tap = i * size + j;                                                                       \
                                v##V weight = *(const v##V *)(kernel + (flip ? size * size - 1 - tap : tap) * channels + c);   \
                                const float *at = corner + i * dilation * row + j * dilation * channels;                       \
                                for (int u = 0; u < BLOCK; u++) sum[u] += weight * *(const v##V *)(at + u * step * channels);  \
                            }                                                                                                  \
                        for (int u = 0; u < BLOCK; u++) *(v##V *)(place + u * channels) = sum[u];                              \
                    } else                                                                                                     \
                        for (long u = 0; u < block; u++) {                                                                     \
                            v##V one = add ? *(const v##V *)(place + u * channels) : (v##V){0};                                \
                            for (long i = 0; i < size; i++)                                                                    \
                                for (long j = 0; j < size; j++) {                                                              \
                                    long tap = i * size + j;                                                                   \
                                    one += *(const v##V *)(kernel + (flip ? size * size - 1 - tap : tap) * channels + c) *     \
                                           *(const v##V *)(corner + i * dilation * row + (j * dilation + u * step) * channels);\
                                }                                                                                              \
                            *(v##V *)(place + u * channels) = one;                                                             \
                        }                                                                                                      \
                }                                                                                                              \
    }                                                                                                                          \
                                                                                                                               \
    /* framed += kernel times gradient, tap by tap: the gradient of the input of a strided convolution */                      \
    static void scatter##V(float *framed, const float *gradient, const float *kernel, long height, long width, long channels,  \
                           long size, long dilation, long step, long row) {                                                    \
        for (long h = 0; h < height; h++)                                                                                      \
            for (long w = 0; w < width; w++)                                                                                   \
                for (long c = 0; c < channels; c += V) {                                                                       \
                    v##V value = *(const v##V *)(gradient + (h * width + w) * channels + c);                                   \
                    float *corner = framed + h * step * row + w * step * channels + c;                                         \
                    for (long i = 0; i < size; i++)                                                                            \
                        for (long j = 0; j < size; j++)                                                                        \
                            *(v##V *)(corner + i * dilation * row + j * dilation * channels) +=                                \
                                value * *(const v##V *)(kernel + (i * size + j) * channels + c);                               \
                }                                                                                                              \
    }                                                                                                                          \
                                                                                                                               \
    static inline __attribute__((always_inline)) void taps##V(float *result, const float *framed, const float *gradient,       \
                                                              long height, long width, long channels, const long size,         \
                                                              long dilation, long step, long row) {                            \
        for (long c = 0; c < channels; c += V) {                                                                               \
            v##V sum[25];                                                                                                      \
            for (int t = 0; t < size * size; t++) sum[t] = (v##V){0};                                                          \
            for (long h = 0; h < height; h++)                                                                                  \
                for (long w = 0; w < width; w++) {                                                                             \
                    v##V value = *(const v##V *)(gradient + (h * width + w) * channels + c);                                   \
                    const float *corner = framed + h * step * row + w * step * channels + c;                                   \
                    _Pragma("GCC unroll 5") for (int i = 0; i < size; i++)                                                     \
                        _Pragma("GCC unroll 5") for (int j = 0; j < size; j++)                                                 \
                            sum[i * size + j] += value * *(const v##V *)(corner + i * dilation * row + j * dilation * channels);\
                }                                                                                                              \
            for (int t = 0; t < size * size; t++) *(v##V *)(result + t * channels + c) += sum[t];                              \
        }                                                                                                                      \
    }

KERNELS(16)
KERNELS(4)

#define CALL(name, ...) (job.channels % 16 ? name##4(__VA_ARGS__) : name##16(__VA_ARGS__))

static Job job_of(const long *shape, const long *size, const long *dilation) {
    Job job = {shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], size, dilation};
    for (long j = 0; j < job.count; j++) {
        long own = size[j] / 2 * dilation[j];
        job.border = own > job.border ? own : job.border;
    }
    job.row = (job.width + 2 * job.border) * job.channels;
    job.framed_size = (job.height + 2 * job.border) * job.row;
    job.high = out(job.height, job.stride);
    job.wide = out(job.width, job.stride);
    job.in_size = job.height * job.width * job.channels;
    job.out_size = job.high * job.wide * job.channels;
    return job;
}

// frames the image b that kernel j reads; where all read the same, that is done for the first
static void frame_source(float *framed, const Job *job, const void *x, long j, long b) {
    if (j > 0 && job->shared) return;
    long image = (j * job->images + b) * job->in_size * (job->half_x ? sizeof(bf16) : sizeof(float));
    frame(framed, (const char *)x + image, job->height, job->width, job->channels, job->border, 1, job->half_x);
}

static float *packed(const Job *job, const long *start, const float *const *weights) {
    float *result = lines(start[job->count]);
    for (long j = 0; j < job->count; j++)
        for (long c = 0, taps = job->size[j] * job->size[j]; c < job->channels; c++)
            for (long t = 0; t < taps; t++) result[start[j] + t * job->channels + c] = weights[j][c * taps + t];
    return result;
}

// result [count][images][out height][out width][channels]; over its pixels, the mean of products of channels, second [count]
// [channels][channels], and of channels, first [count][channels], unless both are null
void forward(void *result, float *second, float *first, const void *x, const float *const *kernels, const long *shape,
             const long *size, const long *dilation, long half) {
    Job job = job_of(shape, size, dilation);
    const long *start = starts(&job);
    float *weights = packed(&job, start, kernels);
    long channels = job.channels, square = channels * channels, pixels = job.high * job.wide;
    float *squares = calloc(GROUPS * job.count * square, sizeof(float)), *sums = calloc(GROUPS * job.count * channels, sizeof(float));
#pragma omp parallel for schedule(static)
    for (long g = 0; g < GROUPS; g++) {
        long from, to;
        group(g, job.images, &from, &to);
        float *framed = zeros(job.framed_size), *wide = half ? lines(job.out_size) : NULL;
        Scratch scratch = scratch_of(channels, half);
        for (long b = from; b < to; b++)
            for (long j = 0; j < job.count; j++) {
                frame_source(framed, &job, x, j, b);
                long inset = job.border - size[j] / 2 * dilation[j], image = (j * job.images + b) * job.out_size;
                void *place = half ? (void *)((bf16 *)result + image) : (float *)result + image;
                const float *corner = framed + inset * job.row + inset * channels;
                long step = half ? 4 : job.high;  // few enough rows to be in the nearest cache when they are halved
                for (long h = 0; h < job.high; h += step) {
                    long high = job.high - h < step ? job.high - h : step, at = h * job.wide * channels;
                    CALL(correlate, half ? wide : (float *)place + at, corner + h * job.stride * job.row, weights + start[j], high,
                         job.wide, channels, size[j], dilation[j], job.stride, job.row, 0, 0);
                    if (half) halve((bf16 *)place + at, wide, high * job.wide * channels);
                }
                if (!second) continue;
                add_any_gram(squares + (g * job.count + j) * square, place, place, FULL, pixels, channels, half, &scratch);
                add_any_gram(sums + (g * job.count + j) * channels, NULL, place, SUM, pixels, channels, half, &scratch);
            }
        free(framed);
        free(wide);
        free(scratch.left);
    }
    if (second) {
        add_groups(second, squares, job.count * square, 1.0f / (job.images * pixels));
        add_groups(first, sums, job.count * channels, 1.0f / (job.images * pixels));
    }
    free(squares);
    free(sums);
    free(weights);
    free((void *)start);
}

// The gradients of x, [count, or 1 if shared][images][height][width][channels], and of the kernels, one after the other; each may be
// null. The gradient of result j is not given but computed on the way, an image at a time: shifts[j] + sum of rows[t] x matrices[t]
// over the terms first[j] <= t < first[j + 1], as products in rows.c, of rows in bfloat16 if `half`.
void backward(void *of_x, float *of_kernels, const void *x, const float *const *kernels, const float *shifts, const long *first,
              const void *const *rows, const float *const *matrices, const long *kinds, const long *shape, const long *size,
              const long *dilation, long half) {
    Job job = job_of(shape, size, dilation);
    const long *start = starts(&job);
    long channels = job.channels, pixels = job.high * job.wide, all = start[job.count];
    Terms terms = terms_of(rows, matrices, kinds, first[job.count], channels, half);
    float *weights = packed(&job, start, kernels), *parts = calloc(of_kernels ? GROUPS * all : 1, sizeof(float));
#pragma omp parallel for schedule(static)
    for (long g = 0; g < GROUPS; g++) {
        long from, to;
        group(g, job.images, &from, &to);
        float *framed_x = zeros(job.framed_size), *framed = zeros(job.framed_size);
        float *gradient = lines(job.out_size), *wide = job.half_x ? lines(job.in_size) : NULL;
        for (long b = from; b < to; b++)
            for (long j = 0; j < job.count; j++) {
                long inset = job.border - size[j] / 2 * dilation[j], corner = inset * job.row + inset * channels;
                sum_of(gradient, NULL, shifts + j * channels, &terms, first[j], first[j + 1], b * pixels, (b + 1) * pixels);
                if (of_kernels) {
                    float *place = parts + g * all + start[j];
                    frame_source(framed_x, &job, x, j, b);
                    if (size[j] == 3)
                        CALL(taps, place, framed_x + corner, gradient, job.high, job.wide, channels, 3, dilation[j], job.stride,
                             job.row);
                    else
                        CALL(taps, place, framed_x + corner, gradient, job.high, job.wide, channels, 5, dilation[j], job.stride,
                             job.row);
                }
                if (!of_x) continue;
                long image = ((job.shared ? 0 : j) * job.images + b) * job.in_size;
                float *place = job.half_x ? wide : (float *)of_x + image;
                int last = !job.shared || j == job.count - 1;
                if (job.stride == 1) {
                    frame(framed, gradient, job.height, job.width, channels, job.border, 0, 0);
                    CALL(correlate, place, framed + corner, weights + start[j], job.height, job.width, channels, size[j],
                         dilation[j], 1, job.row, 1, job.shared && j > 0);
                } else {
                    if (j == 0 || !job.shared) memset(framed, 0, job.framed_size * sizeof(float));
                    CALL(scatter, framed + corner, gradient, weights + start[j], job.high, job.wide, channels, size[j], dilation[j],
                         job.stride, job.row);
                    for (long h = 0; last && h < job.height; h++)
                        memcpy(place + h * job.width * channels, framed + (h + job.border) * job.row + job.border * channels,
                               job.width * channels * sizeof(float));
                }
                if (!last) continue;
                if (job.half_x) {
                    for (long i = 0; i < job.in_size; i++)
                        if (widened(((const bf16 *)x)[image + i]) <= 0.0f) place[i] = 0.0f;
                    halve((bf16 *)of_x + image, place, job.in_size);
                } else
                    for (long i = 0; i < job.in_size; i++) place[i] = ((const float *)x)[image + i] <= 0.0f ? 0.0f : place[i];
            }
        free(framed_x);
        free(framed);
        free(gradient);
        free(wide);
    }
    if (of_kernels) {
        add_groups(weights, parts, all, 1.0f);  // in the place of what is no longer needed
        for (long j = 0; j < job.count; j++)
            for (long c = 0, taps = size[j] * size[j]; c < channels; c++)
                for (long t = 0; t < taps; t++) of_kernels[start[j] + c * taps + t] = weights[start[j] + t * channels + c];
    }
    release(&terms);
    free(parts);
    free(weights);
    free((void *)start);
}
