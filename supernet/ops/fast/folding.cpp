// The small algebra of a combination, forward and backward: see folding.py. Matrices are [channels][channels] in
// float32.
//
// Term t has a weight a. If it is full, it has a matrix W. If it is normed, it has the mean and the variance of what
// it normalises. For full terms, mean = W m and variance = diag(W G W') - mean^2; for others both are given. With
// r = 1 / sqrt(variance + eps),
//
//     scale = gain * r,    shift = bias - gain * r * mean,    M = a * scale * W,    and a * shift is added to the
//                                                                                  shift of its target
//
// Forward, threads divide the terms among them. Backward, they divide the images: the gradients of terms that read
// one image are added up in their order, so that the result does not depend on the number of threads.

#include <cmath>

#include "rows.h"

namespace {

struct Job {
    long terms, full, normed, wholes, diagonals, targets, places, channels;
    const long *image, *target, *position;  // of each term: its image among those of its kind, its node, the place of its weight
    const long *slot;                       // of each image, where it is among all of them
    const float *second, *squares, *first, *weights;
    const float *const *pointwise, *const *gain, *const *bias;
    float eps;

    Job(const float *statistics, const float *weights, const float *const *pointwise, const float *const *gain,
        const float *const *bias, const long *layout, long channels, double eps)
        : terms(layout[0]), full(layout[1]), normed(layout[2]), wholes(layout[3]), diagonals(layout[4]), targets(layout[5]),
          places(layout[6]), channels(channels), second(statistics), weights(weights), pointwise(pointwise), gain(gain), bias(bias),
          eps(eps) {
        image = layout + 7, target = image + terms, position = target + terms, slot = position + terms;
        squares = second + wholes * channels * channels, first = squares + diagonals * channels;
    }
};

float dot(const float *a, const float *b, long n) {
    vec<WIDTH> sum = {};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) sum += load<WIDTH>(a + i) * load<WIDTH>(b + i);
    float result = 0.0f;
    for (int v = 0; v < WIDTH; v++) result += sum[v];
    for (; i < n; i++) result += a[i] * b[i];
    return result;
}

float weight_of(const Job &job, long t) { return job.weights ? job.weights[job.position[t]] : 1.0f; }

const float *first_of(const Job &job, long t) {
    return job.first + ((t < job.full ? 0 : job.wholes) + job.image[t]) * job.channels;
}

// mean and spread = E[x^2] - mean^2, a variance but for rounding, of what a normed term normalises; moved = W G if it is full
void observe(const Job &job, long t, float *mean, float *spread, float *moved) {
    const long channels = job.channels;
    const float *m = first_of(job, t);
    if (t < job.full) {
        const float *matrix = job.second + job.image[t] * channels * channels, *rows = job.pointwise[t];
        const long kind = FULL;
        products_of(moved, {nullptr, nullptr, &rows, &matrix, &kind, 1, channels}, 0, channels);
        for (long i = 0; i < channels; i++) {
            mean[i] = dot(rows + i * channels, m, channels);
            spread[i] = dot(rows + i * channels, moved + i * channels, channels) - mean[i] * mean[i];
        }
    } else
        for (long i = 0; i < channels; i++) mean[i] = m[i], spread[i] = job.squares[job.image[t] * channels + i] - m[i] * m[i];
}

float variance_of(float spread) { return spread < 0.0f ? 0.0f : spread; }  // a NaN remains one

// A term, given the gradients of its matrix [out][in] or diagonal, and of its target's shift: its matrix again, as [out][in], or
// diagonal, the gradients of its weights, and, added to what is there, those of the moments of its image. There is `memory` for two
// matrices and two rows.
void unfold_term(const Job &job, long t, float *matrix, float *of_weight, float *of_pointwise, float *of_gain, float *of_bias,
                 float *of_second, float *of_squares, float *of_first, const float *slope, const float *of_shift, float *memory) {
    const long channels = job.channels;
    float a = weight_of(job, t), sum = 0.0f;
    if (t >= job.normed) {
        for (long i = 0; i < channels; i++) matrix[i] = a, sum += slope[i];
        *of_weight = sum;
        return;
    }
    const bool full = t < job.full;
    const float *m = first_of(job, t), *W = full ? job.pointwise[t] : nullptr;
    float *moved = memory, *spread_back = moved + channels * channels, *mean = spread_back + channels * channels;
    float *spread = mean + channels;
    observe(job, t, mean, spread, moved);
    for (long i = 0; i < channels; i++) {
        float root = 1.0f / std::sqrt(variance_of(spread[i]) + job.eps), gain = job.gain ? job.gain[t][i] : 1.0f;
        float scale = gain * root, shift = (job.bias ? job.bias[t][i] : 0.0f) - scale * mean[i];
        const float *row = slope + i * channels;
        float of_matrix = full ? dot(row, W + i * channels, channels) : slope[i];
        sum += scale * of_matrix + shift * of_shift[i];
        float of_scale = a * (of_matrix - mean[i] * of_shift[i]);
        of_gain[i] = root * of_scale, of_bias[i] = a * of_shift[i];
        float of_spread = spread[i] < 0.0f ? 0.0f : -0.5f * gain * of_scale * root * root * root;
        float of_mean = -a * scale * of_shift[i] - 2.0f * mean[i] * of_spread;
        if (full)
            for (long j = 0; j < channels; j++) {
                long ij = i * channels + j;
                matrix[ij] = a * scale * W[ij];
                of_pointwise[ij] = a * scale * row[j] + 2.0f * of_spread * moved[ij] + of_mean * m[j];
                spread_back[ij] = of_spread * W[ij];
                of_first[j] += of_mean * W[ij];
            }
        else
            matrix[i] = a * scale, of_squares[i] += of_spread, of_first[i] += of_mean;
    }
    if (full) add_gram(of_second, spread_back, W, FULL, channels, channels);
    *of_weight = sum;
}

}  // namespace

extern "C" {

// parts: matrices [full][in][out], diagonals [terms - full][channels], shifts [targets][channels]; what BatchNorms see: means and
// variances, observed [2][normed][channels]; statistics: second moments [wholes][channels][channels], diagonals of others
// [diagonals][channels], the means of both
int fold(float *parts, float *observed, const float *statistics, const float *weights, const float *const *pointwise,
         const float *const *gain, const float *const *bias, const long *layout, long channels, double eps) {
    const Job job(statistics, weights, pointwise, gain, bias, layout, channels, eps);
    float *matrices = parts, *diagonals = matrices + job.full * channels * channels;
    float *shifts = diagonals + (job.terms - job.full) * channels, *means = observed, *variances = means + job.normed * channels;
    const long own = in_lines(channels * channels);
    const Floats each(job.terms * channels, true), memory(omp_get_max_threads() * own);
    if (!each || !memory) return NO_MEMORY;
#pragma omp parallel for schedule(static)
    for (long t = 0; t < job.terms; t++) {
        float a = weight_of(job, t);
        if (t >= job.normed) {
            for (long i = 0; i < channels; i++) diagonals[(t - job.full) * channels + i] = a;
            continue;
        }
        float *mean = means + t * channels, *variance = variances + t * channels;
        observe(job, t, mean, variance, memory + omp_get_thread_num() * own);
        for (long i = 0; i < channels; i++) {
            variance[i] = variance_of(variance[i]);
            float scale = (gain ? gain[t][i] : 1.0f) / std::sqrt(variance[i] + job.eps);
            each[t * channels + i] = a * ((bias ? bias[t][i] : 0.0f) - scale * mean[i]);
            if (t < job.full)
                for (long j = 0; j < channels; j++)
                    matrices[(t * channels + j) * channels + i] = a * scale * pointwise[t][i * channels + j];
            else
                diagonals[(t - job.full) * channels + i] = a * scale;
        }
    }
    memset(shifts, 0, job.targets * channels * sizeof(float));
    for (long t = 0; t < job.normed; t++)
        for (long i = 0; i < channels; i++) shifts[job.target[t] * channels + i] += each[t * channels + i];
    return DONE;
}

// The gradients of weights [terms], of pointwise [full][channels][channels], and of gains and biases, norms [2][normed][channels],
// also where there are none. Work begins with the gradients of parts, that of matrices as [full][out][in]; what follows is filled in:
// matrices [full][out][in] and diagonals again; of the images the gradient by way of their moments, over so many pixels, as matrices
// [wholes][channels][channels] and diagonals [diagonals][channels] to multiply them by, and shifts [places][channels].
int unfold(float *work, float *of_weights, float *of_pointwise, float *of_norms, const float *statistics, const float *weights,
           const float *const *pointwise, const float *const *gain, const float *const *bias, const long *layout, long channels,
           double eps, long pixels) {
    const Job job(statistics, weights, pointwise, gain, bias, layout, channels, eps);
    long square = channels * channels, images = job.wholes + job.diagonals, rest = job.terms - job.full;
    const float *of_matrices = work, *of_diagonals = of_matrices + job.full * square, *of_shifts = of_diagonals + rest * channels;
    float *matrices = (float *)of_shifts + job.targets * channels, *diagonals = matrices + job.full * square;
    float *of_second = diagonals + rest * channels, *of_squares = of_second + job.wholes * square;
    float *shifts = of_squares + job.diagonals * channels, *end = shifts + job.places * channels;
    const long own = in_lines(2 * square + 2 * channels);
    const Floats memory(omp_get_max_threads() * own);
    if (!memory) return NO_MEMORY;
    memset(of_second, 0, (end - of_second) * sizeof(float));
#pragma omp parallel for schedule(static)
    for (long k = 0; k <= images; k++) {  // the last is that of the terms which are not normed
        float *moment = k < job.wholes ? of_second + k * square : of_squares + (k - job.wholes) * channels;
        float *shift = shifts + (k < images ? job.slot[k] : 0) * channels;
        for (long t = 0; t < job.terms; t++) {
            long which = t < job.full ? job.image[t] : t < job.normed ? job.wholes + job.image[t] : images;
            if (which != k) continue;
            int full = t < job.full;
            unfold_term(job, t, full ? matrices + t * square : diagonals + (t - job.full) * channels, of_weights + job.position[t],
                        of_pointwise + t * square, of_norms + t * channels, of_norms + (job.normed + t) * channels, moment, moment,
                        shift, full ? of_matrices + t * square : of_diagonals + (t - job.full) * channels,
                        of_shifts + job.target[t] * channels, memory + omp_get_thread_num() * own);
        }
        if (k == images) continue;
        for (long i = 0; i < (k < job.wholes ? channels : 1) * channels; i++) moment[i] *= 2.0f / pixels;
        for (long i = 0; i < channels; i++) shift[i] /= pixels;
    }
    return DONE;
}
}
