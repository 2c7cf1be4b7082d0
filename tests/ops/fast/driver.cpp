// Runs every kernel on small images and prints what it computes, for processors that Python does not run on here.

#include <cstdio>

#include <initializer_list>
#include <vector>

extern "C" {
int products(void *const *, const float *const *, const float *, const long *, const void *const *, const float *const *,
             const long *, long, long, long, long, long);
int grams(float *const *, const void *const *, const void *const *, const long *, long, float, long, long, long);
int forward(void *, float *, float *, const void *, const float *const *, const long *, const long *, const long *, const long *,
            long);
int backward(void *, float *, const void *, const float *const *, const float *, const long *, const void *const *,
             const float *const *, const long *, const long *, const long *, const long *, const long *, long);
int pool(void *, void *, float *, float *, const float *, const long *, long);
int pool_backward(float *, const float *, long, long, const float *, const long *, const void *const *, const float *const *,
                  const long *, const long *, long);
int fold(float *, float *, const float *, const float *, const float *const *, const float *const *, const float *const *,
         const long *, long, double);
int unfold(float *, float *, float *, float *, const float *, const float *, const float *const *, const float *const *,
           const float *const *, const long *, long, double, long);
}

typedef std::vector<float> Floats;

static unsigned state = 1;

static Floats drawn(long size) {  // the same on every machine
    Floats result(size);
    for (float &one : result) one = ((state = state * 1664525u + 1013904223u) >> 8) / 16777216.0f * 2.0f - 1.0f;
    return result;
}

static void print(const char *name, std::initializer_list<const Floats *> results) {
    for (const Floats *result : results)
        for (float one : *result) printf("%s %.9g\n", name, one);
}

int main() {
    for (long channels : {1L, 7L, 29L, 64L}) {
        const long images = 3, height = 6, width = 7, pixels = images * height * width, square = channels * channels;
        const Floats x = drawn(pixels * channels), q = drawn(2 * pixels * channels), matrices = drawn(2 * square);
        const Floats shifts = drawn(2 * channels);
        const void *rows[] = {q.data(), q.data() + pixels * channels};
        const float *factors[] = {matrices.data(), matrices.data() + square};
        const long kinds[] = {0, 1}, first[] = {0, 1, 2};
        {
            Floats one(pixels * channels), two(pixels * channels);
            void *results[] = {one.data(), two.data()};
            const float *starts[] = {x.data(), nullptr};
            products(results, starts, shifts.data(), first, rows, factors, kinds, 2, pixels, channels, 0, 0);
            print("products", {&one, &two});
        }
        {
            Floats full(square), diagonal(channels), sum(channels);
            float *results[] = {full.data(), diagonal.data(), sum.data()};
            const void *left[] = {x.data(), x.data(), nullptr}, *right[] = {rows[0], rows[1], rows[0]};
            const long all[] = {0, 1, 2};
            grams(results, left, right, all, 3, 0.5f, pixels, channels, 0);
            print("grams", {&full, &diagonal, &sum});
        }
        for (long stride : {1L, 2L}) {
            const long size[] = {3, 5}, dilation[] = {1, 2}, start[] = {0, 9 * channels, 34 * channels};
            const long shape[] = {2, 1, images, height, width, channels, stride, 0, 1};
            const long out = images * ((height - 1) / stride + 1) * ((width - 1) / stride + 1);
            const Floats weights = drawn(34 * channels);
            const float *kernels[] = {weights.data(), weights.data() + start[1]};
            Floats result(2 * out * channels), second(2 * square), mean(2 * channels), of_x(x.size()), of_weights(weights.size());
            forward(result.data(), second.data(), mean.data(), x.data(), kernels, shape, size, dilation, start, 0);
            backward(of_x.data(), of_weights.data(), x.data(), kernels, shifts.data(), first, rows, factors, kinds, shape, size,
                     dilation, start, 0);
            print("depthwise", {&result, &second, &mean, &of_x, &of_weights});
            const long pooled[] = {images, height, width, channels, stride};
            Floats maxima(out * channels), means(out * channels), squares(2 * channels);
            pool(maxima.data(), means.data(), squares.data(), mean.data(), x.data(), pooled, 0);
            pool_backward(of_x.data(), x.data(), 1, 1, shifts.data(), first, rows, factors, kinds, pooled, 0);
            print("pooling", {&maxima, &means, &squares, &mean, &of_x});
        }
        {
            // two terms: the first has a matrix and a norm, the second a norm alone
            const long layout[] = {2, 1, 2, 1, 1, 1, 2, 0, 0, 0, 0, 0, 1, 0, 1};
            Floats moments = drawn(square + channels + 2 * channels);
            for (long c = 0; c < channels; c++) moments[c * channels + c] += 2.0f * channels, moments[square + c] += 3.0f;
            const Floats small = drawn(2 + 4 * channels);
            const float *gains[] = {&small[2], &small[2 + channels]}, *biases[] = {&small[2 + 2 * channels], &small[2 + 3 * channels]};
            Floats parts(square + 2 * channels), observed(4 * channels);
            fold(parts.data(), observed.data(), moments.data(), small.data(), factors, gains, biases, layout, channels, 1e-5);
            print("fold", {&parts, &observed});
            Floats work = drawn(square + 2 * channels);
            work.resize(work.size() + 2 * (square + channels) + 2 * channels);
            Floats of_weights(2), of_pointwise(square), of_norms(4 * channels);
            unfold(work.data(), of_weights.data(), of_pointwise.data(), of_norms.data(), moments.data(), small.data(), factors,
                   gains, biases, layout, channels, 1e-5, pixels);
            print("unfold", {&work, &of_weights, &of_pointwise, &of_norms});
        }
    }
}
