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

#include "half.h"

namespace {

struct Job {
    long images, height, width, channels, stride;
    long high, wide, in_size, out_size;  // of a result: its height and width; floats of an image, of a result

    explicit Job(const long *shape)
        : images(shape[0]), height(shape[1]), width(shape[2]), channels(shape[3]), stride(shape[4]) {
        high = (height - 1) / stride + 1, wide = (width - 1) / stride + 1;
        in_size = height * width * channels, out_size = high * wide * channels;
    }
};

struct Window {  // of a result, inside the image; the ends are beyond it
    long top, bottom, left, right;
    float share;  // of each of its pixels in the mean

    Window(const Job &job, long h, long w) {
        long y = h * job.stride, x = w * job.stride;
        top = y ? y - 1 : 0, bottom = y + 2 < job.height ? y + 2 : job.height;
        left = x ? x - 1 : 0, right = x + 2 < job.width ? x + 2 : job.width;
        share = 1.0f / ((bottom - top) * (right - left));
    }
    // calls visit(i, j) for each pixel
    template <typename Visit> __attribute__((always_inline)) void each(Visit visit) const {
        for (long i = top; i < bottom; i++)
            for (long j = left; j < right; j++) visit(i, j);
    }
};

template <int V> INLINE mask<V> larger(vec<V> a, vec<V> b) { return (a > b) | (a != a); }  // a NaN is larger than all

template <int V> INLINE mask<V> chosen(mask<V> which, mask<V> a, mask<V> b) { return (which & a) | (~which & b); }

// the maxima and the means of an image; each may be null
void pooled(float *maxima, float *means, const float *image, const Job &job) {
    for (long h = 0; h < job.high; h++)
        for (long w = 0; w < job.wide; w++) {
            const Window window(job, h, w);
            each_vector(job.channels, [&](auto width, long c) {
                constexpr int V = width.value;
                long place = (h * job.wide + w) * job.channels + c;
                vec<V> max = vec<V>{} - __builtin_inff(), sum = {};
                window.each([&](long i, long j) {
                    vec<V> one = load<V>(image + (i * job.width + j) * job.channels + c);
                    max = (vec<V>)chosen<V>(larger<V>(one, max), (mask<V>)one, (mask<V>)max);
                    sum += one;
                });
                if (maxima) store<V>(maxima + place, max);
                if (means) store<V>(means + place, sum * window.share);
            });
        }
}

// result += the gradient of an image, those of its maxima and means given; each may be null
void pooled_back(float *result, const float *of_maxima, const float *of_means, const float *image, const Job &job) {
    for (long h = 0; h < job.high; h++)
        for (long w = 0; w < job.wide; w++) {
            const Window window(job, h, w);
            each_vector(job.channels, [&](auto width, long c) {
                constexpr int V = width.value;
                long place = (h * job.wide + w) * job.channels + c;
                mask<V> at = mask<V>{} + (int)(window.top * job.width + window.left), of_max = {};
                vec<V> of_mean = {}, max = vec<V>{} - __builtin_inff();
                if (of_means) of_mean = load<V>(of_means + place) * window.share;
                if (of_maxima) {
                    of_max = (mask<V>)load<V>(of_maxima + place);
                    window.each([&](long i, long j) {
                        vec<V> one = load<V>(image + (i * job.width + j) * job.channels + c);
                        mask<V> is = larger<V>(one, max);
                        max = (vec<V>)chosen<V>(is, (mask<V>)one, (mask<V>)max);
                        at = chosen<V>(is, mask<V>{} + (int)(i * job.width + j), at);
                    });
                }
                window.each([&](long i, long j) {
                    long pixel = i * job.width + j;
                    float *to = result + pixel * job.channels + c;
                    store<V>(to, load<V>(to) + of_mean + (vec<V>)((at == (int)pixel) & of_max));
                });
            });
        }
}

}  // namespace

extern "C" {

// maxima and means [images][out height][out width][channels], each of which may be null; over the pixels of those that are not, one
// after the other, the means of squares and of themselves, squares and first [channels] each, which may be null together
int pool(void *maxima, void *means, float *squares, float *first, const float *x, const long *shape, long half) {
    const Job job(shape);
    const long channels = job.channels, pixels = job.high * job.wide, size = (!!maxima + !!means) * channels;
    const long groups = groups_of(job.images), wide_size = in_lines(half ? 2 * job.out_size : 0);
    const long image = job.out_size * (half ? sizeof(bf16) : sizeof(float)), own = wide_size + Scratch::size(channels, half);
    const Floats parts(2 * groups * size, true), memory(omp_get_max_threads() * own);
    if (!parts || !memory) return NO_MEMORY;
    float *sums = parts + groups * size;
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) {
        float *wide = memory + omp_get_thread_num() * own;
        Scratch scratch(wide + wide_size, channels);
        const Range images = group(g, job.images);
        for (long b = images.from; b < images.to; b++) {
            void *places[] = {maxima ? (char *)maxima + b * image : nullptr, means ? (char *)means + b * image : nullptr};
            float *each[] = {half && maxima ? wide : (float *)places[0], half && means ? wide + job.out_size : (float *)places[1]};
            pooled(each[0], each[1], x + b * job.in_size, job);
            for (long k = 0, at = g * size; k < 2; k++) {
                if (!places[k]) continue;
                if (half) halve((bf16 *)places[k], each[k], job.out_size);
                if (!squares) continue;
                add_any_gram(parts + at, places[k], places[k], DIAGONAL, pixels, channels, half, scratch);
                add_any_gram(sums + at, nullptr, places[k], SUM, pixels, channels, half, scratch);
                at += channels;
            }
        }
    }
    if (squares) {
        add_groups(squares, parts, size, groups, 1.0f / (job.images * pixels));
        add_groups(first, sums, size, groups, 1.0f / (job.images * pixels));
    }
    return DONE;
}

// The gradient of x. Those of the maxima, if `with_maxima`, and then of the means, if `with_means`, are not given but computed on
// the way, an image at a time: shifts[k] + sum of rows[t] x matrices[t] over the terms start[k] <= t < start[k + 1], as products in
// rows.cpp, of rows in bfloat16 if `half`.
int pool_backward(float *of_x, const float *x, long with_maxima, long with_means, const float *shifts, const long *start,
                  const void *const *rows, const float *const *matrices, const long *kinds, const long *shape, long half) {
    const Job job(shape);
    const long pixels = job.high * job.wide, count = with_maxima + with_means, groups = groups_of(job.images);
    const long size = in_lines(count * job.out_size), own = size + Scratch::size(job.channels, half);
    const Terms terms(rows, matrices, kinds, start[count], job.channels, half);
    const Floats memory(omp_get_max_threads() * own);
    if (!terms.packed || !memory) return NO_MEMORY;
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) {
        float *gradient = memory + omp_get_thread_num() * own;
        const Scratch scratch(gradient + size, job.channels);
        const Range images = group(g, job.images);
        for (long b = images.from; b < images.to; b++) {
            for (long k = 0; k < count; k++)
                sum_of(gradient + k * job.out_size, nullptr, shifts + k * job.channels, terms, start[k], start[k + 1], b * pixels,
                       (b + 1) * pixels, scratch);
            float *place = of_x + b * job.in_size;
            memset(place, 0, job.in_size * sizeof(float));
            pooled_back(place, with_maxima ? gradient : nullptr, with_means ? gradient + with_maxima * job.out_size : nullptr,
                        x + b * job.in_size, job);
        }
    }
    return DONE;
}
}
