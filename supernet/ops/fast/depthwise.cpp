// Many depthwise convolutions of images, after ReLU if `rectify`, at once: forward and backward.
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

#include "half.h"

namespace {

struct Job {
    long count, shared, images, height, width, channels, stride, half_x, rectify;
    const long *size, *dilation, *start;  // start: where the weights of each kernel begin
    long border, row, framed_size;        // of a frame: zeros around the image, floats in a row, floats in all
    long high, wide, in_size, out_size;   // of a result: its height and width; floats of an image, of a result

    Job(const long *shape, const long *size, const long *dilation, const long *start)
        : count(shape[0]), shared(shape[1]), images(shape[2]), height(shape[3]), width(shape[4]), channels(shape[5]),
          stride(shape[6]), half_x(shape[7]), rectify(shape[8]), size(size), dilation(dilation), start(start), border(0) {
        for (long j = 0; j < count; j++) border = size[j] / 2 * dilation[j] > border ? size[j] / 2 * dilation[j] : border;
        row = framed_row(width);
        framed_size = (height + 2 * border) * row;
        high = (height - 1) / stride + 1, wide = (width - 1) / stride + 1;
        in_size = height * width * channels, out_size = high * wide * channels;
    }
    long framed_row(long width) const { return (width + 2 * border) * channels; }
    long corner(long j) const {  // where kernel j begins to read a frame
        long inset = border - size[j] / 2 * dilation[j];
        return inset * row + inset * channels;
    }
    long weights() const { return start[count]; }
};

// the image [height][width][channels] inside a frame of zeros, whose border is that of the job
void frame(float *framed, const void *image, long height, long width, const Job &job, bool rectify, bool half) {
    const long length = width * job.channels, row = (width + 2 * job.border) * job.channels;
    for (long h = 0; h < height; h++) {
        float *to = framed + (h + job.border) * row + job.border * job.channels;
        const float *from = half ? to : (const float *)image + h * length;
        if (half) widen(to, (const bf16 *)image + h * length, length);
        if (rectify)
            for (long i = 0; i < length; i++) to[i] = from[i] < 0.0f ? 0.0f : from[i];
        else if (!half)
            memcpy(to, from, length * sizeof(float));
    }
}

// frames the image b that kernel j reads; where all read the same, that is done for the first
void frame_source(float *framed, const Job &job, const void *x, long j, long b) {
    if (j > 0 && job.shared) return;
    long image = (j * job.images + b) * job.in_size * (job.half_x ? sizeof(bf16) : sizeof(float));
    frame(framed, (const char *)x + image, job.height, job.width, job, job.rectify, job.half_x);
}

constexpr int MOST = 7 * 7;  // taps of a kernel

// Pixels of a result are sums over taps: of the weight `weight[t]` times the image at at[t] from where the pixel begins to read.
struct Taps {
    long count = 0, at[MOST], weight[MOST];

    void add(long place, long index) { at[count] = place, weight[count++] = index; }
};

// Where kernel j reads a frame, for a result.
Taps taps_of(const Job &job, long j) {
    Taps taps;
    for (long t = 0, size = job.size[j]; t < size * size; t++)
        taps.add(job.corner(j) + (t / size * job.row + t % size * job.channels) * job.dilation[j], t);
    return taps;
}

// Where the gradient of an image reads that of the result, in a frame: at the pixels whose row is `y` more than a multiple of the
// stride, and whose column is `x` more.
Taps taps_back(const Job &job, long j, long y, long x) {
    Taps taps;
    const long size = job.size[j], pad = size / 2 * job.dilation[j], row = job.framed_row(job.wide);
    for (long t = 0; t < size * size; t++) {
        long down = y + pad - t / size * job.dilation[j], right = x + pad - t % size * job.dilation[j];
        if (down % job.stride || right % job.stride) continue;
        taps.add((down / job.stride + job.border) * row + (right / job.stride + job.border) * job.channels, t);
    }
    return taps;
}

// Rows of pixels: from a pixel to the next, and from a row to the next, in floats.
struct Steps {
    long pixel, row;
};

// PIXELS neighbours of a row
template <int V, int PIXELS>
INLINE void correlate(float *place, long step, const float *from, long from_step, const Taps &taps, const float *weights,
                      long channels, bool add) {
    vec<V> sum[PIXELS];
    for (int u = 0; u < PIXELS; u++) sum[u] = add ? load<V>(place + u * step) : vec<V>{};
    for (long t = 0; t < taps.count; t++) {
        vec<V> weight = load<V>(weights + taps.weight[t] * channels);
        const float *at = from + taps.at[t];
        for (int u = 0; u < PIXELS; u++) sum[u] += weight * load<V>(at + u * from_step);
    }
    for (int u = 0; u < PIXELS; u++) store<V>(place + u * step, sum[u]);
}

// `width` neighbours: PIXELS at once, and what is left fewer at once
template <int V, int PIXELS>
void correlate_row(float *place, long step, const float *from, long from_step, const Taps &taps, const float *weights,
                   long channels, long width, bool add) {
    for (; width >= PIXELS; width -= PIXELS, place += PIXELS * step, from += PIXELS * from_step)
        correlate<V, PIXELS>(place, step, from, from_step, taps, weights, channels, add);
    if constexpr (PIXELS > 1)
        correlate_row<V, PIXELS / 2>(place, step, from, from_step, taps, weights, channels, width, add);
}

// result (+)= sum over taps of the weights times the framed image
void correlate(float *result, Steps to, const float *framed, Steps from, const Taps &taps, const float *weights, long channels,
               long height, long width, bool add) {
    for (long h = 0; h < height; h++)
        each_vector(channels, [&](auto V, long c) {
            correlate_row<V.value, 8>(result + h * to.row + c, to.pixel, framed + h * from.row + c, from.pixel, taps, weights + c,
                                      channels, width, add);
        });
}

// The gradients of the weights of the taps from FIRST on: as many at once as there are registers for.
template <int V, int SIZE, int FIRST = 0>
void gather(float *result, const float *framed, const float *gradient, const Job &job, long j) {
    constexpr int ALL = SIZE * SIZE, ROOM = REGISTERS - 3, COUNT = ALL - FIRST < ROOM ? ALL - FIRST : ROOM;
    const long channels = job.channels, down = job.dilation[j] * job.row, right = job.dilation[j] * channels;
    vec<V> sum[COUNT] = {};
    for (long h = 0; h < job.high; h++)
        for (long w = 0; w < job.wide; w++) {
            vec<V> value = load<V>(gradient + (h * job.wide + w) * channels);
            const float *corner = framed + (h * job.row + w * channels) * job.stride;
#pragma GCC unroll 64
            for (int t = 0; t < COUNT; t++)
                sum[t] += value * load<V>(corner + (FIRST + t) / SIZE * down + (FIRST + t) % SIZE * right);
        }
    for (int t = 0; t < COUNT; t++) {
        float *place = result + (FIRST + t) * channels;
        store<V>(place, load<V>(place) + sum[t]);
    }
    if constexpr (FIRST + COUNT < ALL) gather<V, SIZE, FIRST + COUNT>(result, framed, gradient, job, j);
}

// result += the gradient of the weights of kernel j
void gather(float *result, const float *framed, const float *gradient, const Job &job, long j) {
    each_vector(job.channels, [&](auto V, long c) {
        auto of_size = job.size[j] == 3 ? gather<V.value, 3> : job.size[j] == 5 ? gather<V.value, 5> : gather<V.value, 7>;
        of_size(result + c, framed + job.corner(j) + c, gradient + c, job, j);
    });
}

void pack(float *result, const Job &job, const float *const *weights) {
    for (long j = 0; j < job.count; j++)
        for (long c = 0, taps = job.size[j] * job.size[j]; c < job.channels; c++)
            for (long t = 0; t < taps; t++) result[job.start[j] + t * job.channels + c] = weights[j][c * taps + t];
}

}  // namespace

extern "C" {

// result [count][images][out height][out width][channels]; over its pixels, the mean of products of channels, second [count]
// [channels][channels], and of channels, first [count][channels], unless both are null
int forward(void *result, float *second, float *first, const void *x, const float *const *kernels, const long *shape,
            const long *size, const long *dilation, const long *start, long half) {
    const Job job(shape, size, dilation, start);
    const long channels = job.channels, square = channels * channels, pixels = job.high * job.wide, count = job.count;
    const long groups = groups_of(job.images), wide_size = half ? job.out_size : 0;
    const long own = in_lines(job.framed_size) + in_lines(wide_size) + Scratch::size(channels, half);
    const Floats weights(job.weights()), memory(omp_get_max_threads() * own, true);
    const Floats squares(second ? groups * count * square : 0, true), sums(second ? groups * count * channels : 0, true);
    if (!weights || !memory || !squares || !sums) return NO_MEMORY;
    pack(weights, job, kernels);
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) {
        float *framed = memory + omp_get_thread_num() * own, *wide = framed + in_lines(job.framed_size);
        Scratch scratch(wide + in_lines(wide_size), channels);
        const Range images = group(g, job.images);
        for (long b = images.from; b < images.to; b++)
            for (long j = 0; j < count; j++) {
                frame_source(framed, job, x, j, b);
                long image = (j * job.images + b) * job.out_size;
                void *place = half ? (void *)((bf16 *)result + image) : (float *)result + image;
                const Taps taps = taps_of(job, j);
                const Steps to = {channels, job.wide * channels}, from = {job.stride * channels, job.stride * job.row};
                long step = half ? 4 : job.high;  // few enough rows to be in the nearest cache when they are halved
                for (long h = 0; h < job.high; h += step) {
                    long high = job.high - h < step ? job.high - h : step, at = h * job.wide * channels;
                    correlate(half ? wide : (float *)place + at, to, framed + h * from.row, from, taps, weights + start[j],
                              channels, high, job.wide, false);
                    if (half) halve((bf16 *)place + at, wide, high * job.wide * channels);
                }
                if (!second) continue;
                add_any_gram(squares + (g * count + j) * square, place, place, FULL, pixels, channels, half, scratch);
                add_any_gram(sums + (g * count + j) * channels, nullptr, place, SUM, pixels, channels, half, scratch);
            }
    }
    if (second) {
        add_groups(second, squares, count * square, groups, 1.0f / (job.images * pixels));
        add_groups(first, sums, count * channels, groups, 1.0f / (job.images * pixels));
    }
    return DONE;
}

// The gradients of x, [count, or 1 if shared][images][height][width][channels], and of the kernels, one after the other; each may be
// null. The gradient of result j is not given but computed on the way, an image at a time: shifts[j] + sum of rows[t] x matrices[t]
// over the terms first[j] <= t < first[j + 1], as products in rows.cpp, of rows in bfloat16 if `half`.
int backward(void *of_x, float *of_kernels, const void *x, const float *const *kernels, const float *shifts, const long *first,
             const void *const *rows, const float *const *matrices, const long *kinds, const long *shape, const long *size,
             const long *dilation, const long *start, long half) {
    const Job job(shape, size, dilation, start);
    const long channels = job.channels, pixels = job.high * job.wide, all = job.weights(), groups = groups_of(job.images);
    const long frame_size = in_lines(job.framed_size), wide_size = in_lines(job.half_x ? job.in_size : 0);
    const long own = 2 * frame_size + in_lines(job.out_size) + wide_size + Scratch::size(channels, half);
    const Terms terms(rows, matrices, kinds, first[job.count], channels, half);
    const Floats weights(all), parts(of_kernels ? groups * all : 0, true), memory(omp_get_max_threads() * own, true);
    if (!terms.packed || !weights || !parts || !memory) return NO_MEMORY;
    pack(weights, job, kernels);
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) {
        float *framed_x = memory + omp_get_thread_num() * own, *framed = framed_x + frame_size;
        float *gradient = framed + frame_size, *wide = gradient + in_lines(job.out_size);
        const Scratch scratch(wide + wide_size, channels);
        const Range images = group(g, job.images);
        for (long b = images.from; b < images.to; b++)
            for (long j = 0; j < job.count; j++) {
                sum_of(gradient, nullptr, shifts + j * channels, terms, first[j], first[j + 1], b * pixels, (b + 1) * pixels,
                       scratch);
                if (of_kernels) {
                    frame_source(framed_x, job, x, j, b);
                    gather(parts + g * all + start[j], framed_x, gradient, job, j);
                }
                if (!of_x) continue;
                long image = ((job.shared ? 0 : j) * job.images + b) * job.in_size;
                float *place = job.half_x ? wide : (float *)of_x + image;
                bool last = !job.shared || j == job.count - 1;
                frame(framed, gradient, job.high, job.wide, job, false, false);
                const Steps from = {channels, job.framed_row(job.wide)}, row = {channels, job.width * channels};
                const Steps to = {job.stride * row.pixel, job.stride * row.row};
                for (long y = 0; y < job.stride; y++)
                    for (long x = 0; x < job.stride; x++)
                        correlate(place + y * row.row + x * row.pixel, to, framed, from, taps_back(job, j, y, x),
                                  weights + start[j], channels, (job.height - y + job.stride - 1) / job.stride,
                                  (job.width - x + job.stride - 1) / job.stride, job.shared && j > 0);
                if (!last) continue;
                if (job.rectify) {
                    const float *floats = (const float *)x + image;
                    const bf16 *halves = (const bf16 *)x + image;
                    for (long i = 0; i < job.in_size; i++)
                        place[i] = (job.half_x ? widened(halves[i]) : floats[i]) <= 0.0f ? 0.0f : place[i];
                }
                if (job.half_x) halve((bf16 *)of_x + image, place, job.in_size);
            }
    }
    if (of_kernels) {
        add_groups(weights, parts, all, groups, 1.0f);  // in the place of what is no longer needed
        for (long j = 0; j < job.count; j++)
            for (long c = 0, taps = size[j] * size[j]; c < channels; c++)
                for (long t = 0; t < taps; t++) of_kernels[start[j] + c * taps + t] = weights[start[j] + t * channels + c];
    }
    return DONE;
}
}
