// The sums and grams of rows.h, of rows that are float32 or bfloat16.
//
// Where the processor and the operating system have AMX, and the channels fill its tiles, rows in bfloat16 are
// multiplied on these tiles: 16 rows x 16 or 32 channels by as many channels x 16, added to 16 x 16 sums in float32.
// AMX reads in pairs what is summed over. So matrices are packed (and rounded to bfloat16) before, and for grams the
// right rows are interleaved and the left rows transposed on the way. Elsewhere, and for the last rows, a few rows at
// a time are turned into float32. (The processor's vector instructions for bfloat16 are no faster than for float32.)

#pragma once

#include "rows.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef unsigned short bf16;

static inline bf16 halved(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;  // to the nearest, or even; NaN stays NaN
}

static void halve(bf16 *to, const float *from, long size) {
    long i = 0;
#ifdef __AVX512BF16__
    for (; i + 16 <= size; i += 16) _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    for (; i < size; i++) to[i] = halved(from[i]);
}

static inline float widened(bf16 value) {
    unsigned bits = (unsigned)value << 16;
    float result;
    memcpy(&result, &bits, sizeof bits);
    return result;
}

static void widen(float *to, const bf16 *from, long size) {
    for (long i = 0; i < size; i++) to[i] = widened(from[i]);
}

#ifdef __AVX512BF16__

// the 16 channels of two rows, of which the second may be missing, in pairs
static inline __m512i paired(const bf16 *rows, long channels, int second) {
    __m512i order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    order = _mm512_or_si512(order, _mm512_slli_epi32(_mm512_add_epi32(order, _mm512_set1_epi32(16)), 16));
    __m512i both = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)rows));
    if (second) both = _mm512_inserti64x4(both, _mm256_loadu_si256((const __m256i *)(rows + channels)), 1);
    return _mm512_permutexvar_epi16(order, both);
}

// result += the diagonal of left' x right, or the sum of the rows of right, of channels in sixteens
static void paired_gram(float *result, const bf16 *left, const bf16 *right, long n, long channels) {
    for (long c = 0; c < channels; c += 16) {
        __m512 sum[4] = {_mm512_loadu_ps(result + c)};  // several: each addition waits for the one before
        for (long r = 0; r < n; r += 8)
            for (long i = 0; i < 4 && r + 2 * i < n; i++) {
                long at = (r + 2 * i) * channels + c, second = r + 2 * i + 1 < n;
                __m512i one = left ? paired(left + at, channels, second) : _mm512_set1_epi32(0x3f803f80);
                sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)one, (__m512bh)paired(right + at, channels, second));
            }
        _mm512_storeu_ps(result + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

#endif

#ifdef __AMX_BF16__

#include <sys/syscall.h>
#include <unistd.h>

// Whether this process may use tiles, which it must ask for.
static int tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    static int refused = -1;
    if (refused < 0) refused = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0;
    return !refused;
}

// Sets up the tiles 0 to 3 of sums; 4, 5 of left rows, `deep` wide; 6, 7 of right ones in pairs.
static void configure(int deep) {
    struct {
        unsigned char palette, start, zeros[14];
        unsigned short bytes[16];
        unsigned char rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) tiles.bytes[i] = i == 4 || i == 5 ? 2 * deep : 64, tiles.rows[i] = i > 5 ? deep / 2 : 16;
    // Not _tile_loadconfig: GCC does not know that it, and loads of tiles, read memory.
    __asm__ volatile("ldtilecfg %0" ::"m"(tiles) : "memory");
}

// to [channels / 16][channels / 2][16][2], from a matrix [channels][channels] or a diagonal
static void pack(bf16 *to, const float *matrix, long kind, long channels) {
    for (long c = 0; c < channels; c += 16)
        for (long k = 0; k < channels; k += 2, to += 32)
            for (long i = 0; i < 16; i++)
                for (long odd = 0; odd < 2; odd++)
                    to[2 * i + odd] = kind == FULL           ? halved(matrix[(k + odd) * channels + c + i])
                                      : k + odd == c + i ? halved(matrix[c + i])
                                                           : 0;
}

// B times 16 rows of 16 channels of a sum; rows and result are those of the first
template <int B> INLINE void tiled(float *result, const Sum &all, const bf16 *packed, long row, long c, long deep) {
    const long channels = all.channels;
    const float *begun = all.start ? all.start + row * channels + c : all.shift + c;
    long stride = all.start ? 4 * channels : 0, next = all.start ? 16 * channels : 0;  // the shift is that of all rows
    _tile_loadd(0, begun, stride);
    if constexpr (B > 1) {
        _tile_loadd(1, begun + next, stride);
        _tile_loadd(2, begun + 2 * next, stride);
        _tile_loadd(3, begun + 3 * next, stride);
    }
    for (long t = 0; t < all.terms; t++) {
        const bf16 *left = (const bf16 *)all.rows[t] + row * channels, *right = packed + (t * channels + c) * channels;
        int diagonal = all.kinds[t] == DIAGONAL;
        long first = diagonal ? c / deep * deep : 0, end = diagonal ? first + deep : channels;
        for (long k = first; k < end; k += deep) {
            _tile_loadd(6, right + k * 16, 64);
            _tile_loadd(4, left + k, 2 * channels);
            _tile_dpbf16ps(0, 4, 6);
            if constexpr (B > 1) {
                _tile_loadd(5, left + k + 16 * channels, 2 * channels);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(4, left + k + 32 * channels, 2 * channels);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(5, left + k + 48 * channels, 2 * channels);
                _tile_dpbf16ps(3, 5, 6);
            }
        }
    }
    result += c;
    _tile_stored(0, result, 4 * channels);
    if constexpr (B > 1) {
        _tile_stored(1, result + 16 * channels, 4 * channels);
        _tile_stored(2, result + 32 * channels, 4 * channels);
        _tile_stored(3, result + 48 * channels, 4 * channels);
    }
    for (long r = 0; all.start && r < 16 * B; r++)
        for (long i = 0; i < 16; i++) result[r * channels + i] += all.shift[c + i];
}

// those of the rows from `from` on that are whole tiles; returns the first that is not
static long tiled_products(float *result, const Sum &all, const bf16 *packed, long from, long to) {
    long channels = all.channels, deep = channels % 32 ? 16 : 32, row = from;
    configure(deep);
    for (; row + 64 <= to; row += 64)
        for (long c = 0; c < channels; c += 16) tiled<4>(result + (row - from) * channels, all, packed, row, c, deep);
    for (; row + 16 <= to; row += 16)
        for (long c = 0; c < channels; c += 16) tiled<1>(result + (row - from) * channels, all, packed, row, c, deep);
    _tile_release();
    return row;
}

// rows [n][channels] with two rows in a pair, and zeros after the last: to [channels / 16][padded / 2][16][2]
static void interleave(bf16 *to, const bf16 *rows, long n, long padded, long channels) {
    for (long c = 0; c < channels; c += 16)
        for (long r = 0; r < padded; r += 2, to += 32)
            _mm512_storeu_si512(to, r < n ? paired(rows + r * channels + c, channels, r + 1 < n) : _mm512_setzero_si512());
}

// transposes each tile of 16 x 16 pairs
static void transpose(bf16 *to, const bf16 *from, long size) {
    for (long tile = 0; tile < size; tile += 512, to += 512, from += 512) {
        __m512i row[16], part[16];
        for (int i = 0; i < 16; i++) row[i] = _mm512_loadu_si512(from + 32 * i);
        for (int i = 0; i < 16; i += 4) {  // of each quarter of a register, its 4 x 4 pairs
            __m512i low = _mm512_unpacklo_epi32(row[i], row[i + 1]), high = _mm512_unpackhi_epi32(row[i], row[i + 1]);
            __m512i next_low = _mm512_unpacklo_epi32(row[i + 2], row[i + 3]);
            __m512i next_high = _mm512_unpackhi_epi32(row[i + 2], row[i + 3]);
            part[i] = _mm512_unpacklo_epi64(low, next_low), part[i + 1] = _mm512_unpackhi_epi64(low, next_low);
            part[i + 2] = _mm512_unpacklo_epi64(high, next_high), part[i + 3] = _mm512_unpackhi_epi64(high, next_high);
        }
        for (int i = 0; i < 4; i++) {  // then 4 x 4 quarters
            __m512i even = _mm512_shuffle_i32x4(part[i], part[i + 4], 0x88), odd = _mm512_shuffle_i32x4(part[i], part[i + 4], 0xdd);
            __m512i next_even = _mm512_shuffle_i32x4(part[i + 8], part[i + 12], 0x88);
            __m512i next_odd = _mm512_shuffle_i32x4(part[i + 8], part[i + 12], 0xdd);
            _mm512_storeu_si512(to + 32 * i, _mm512_shuffle_i32x4(even, next_even, 0x88));
            _mm512_storeu_si512(to + 32 * (i + 4), _mm512_shuffle_i32x4(odd, next_odd, 0x88));
            _mm512_storeu_si512(to + 32 * (i + 8), _mm512_shuffle_i32x4(even, next_even, 0xdd));
            _mm512_storeu_si512(to + 32 * (i + 12), _mm512_shuffle_i32x4(odd, next_odd, 0xdd));
        }
    }
}

// result += left' x right, of rows that are interleaved, and the left transposed
static void tiled_gram(float *result, const bf16 *left, const bf16 *right, long padded, long channels) {
    float sum[2][16][16] __attribute__((aligned(64)));
    configure(32);
    for (long h = 0; h < channels; h += 16)
        for (long c = 0; c < channels; c += 16) {
            _tile_zero(0);
            _tile_zero(1);
            for (const bf16 *a = left + h * padded, *b = right + c * padded; a < left + (h + 16) * padded; a += 1024, b += 1024) {
                _tile_loadd(4, a, 64);
                _tile_loadd(6, b, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, a + 512, 64);
                _tile_loadd(7, b + 512, 64);
                _tile_dpbf16ps(1, 5, 7);
            }
            _tile_stored(0, sum[0], 64);
            _tile_stored(1, sum[1], 64);
            for (long r = 0; r < 16; r++)
                for (long i = 0; i < 16; i++) result[(h + r) * channels + c + i] += sum[0][r][i] + sum[1][r][i];
        }
    _tile_release();
}

#else

static int tiles(void) { return 0; }

#endif

// The terms of some sums. Their rows are in bfloat16 if `half`, behind pointers to float.
struct Terms {
    const long channels, half;
    const float *const *rows, *const *matrices;
    const long *kinds;
    const long packed_size;  // of the matrices in bfloat16, in floats; 0 without tiles
    const Floats packed;

    Terms(const void *const *rows, const float *const *matrices, const long *kinds, long count, long channels, long half)
        : channels(channels), half(half), rows((const float *const *)rows), matrices(matrices), kinds(kinds),
          packed_size(half && channels % 16 == 0 && tiles() ? count * channels * channels / 2 : 0), packed(packed_size) {
#ifdef __AMX_BF16__
        for (long t = 0; packed && packed_size && t < count; t++)
            pack((bf16 *)(float *)packed + t * channels * channels, matrices[t], kinds[t], channels);
#endif
    }
};

constexpr long SOME = 64;  // rows that are turned into float32 at once

// What a thread needs to work on rows in bfloat16, in the memory that it is given.
struct Scratch {
    float *left, *right;          // of a chunk, the rows as they are multiplied
    float *wide;                  // some rows in float32
    const void *known = nullptr;  // what `left` was made of

    static long size(long channels, long half) { return half ? in_lines((2 * CHUNK + SOME) * channels) : 0; }
    Scratch(float *memory, long channels)
        : left(memory), right(memory + CHUNK * channels), wide(memory + 2 * CHUNK * channels) {}
};

// result, of the rows `from` to `to`, = start (or nothing) + shift + the sum of those terms that are `first` <= t < `end`
static void sum_of(float *result, const float *start, const float *shift, const Terms &terms, long first, long end, long from,
                   long to, const Scratch &scratch) {
    const long channels = terms.channels;
    Sum all = {start, shift, terms.rows + first, terms.matrices + first, terms.kinds + first, end - first, channels};
    if (!terms.half) return products_of(result, all, from, to);
    long row = from;
#ifdef __AMX_BF16__
    if (terms.packed_size)
        row = tiled_products(result, all, (const bf16 *)(float *)terms.packed + first * channels * channels, from, to);
#endif
    for (long next = row; row < to; row = next) {
        next = row + SOME < to ? row + SOME : to;
        float *place = result + (row - from) * channels;
        const float *wide = scratch.wide;
        Sum one = {start ? start + row * channels : nullptr, shift, &wide, all.matrices, all.kinds, 0, channels};
        products_of(place, one, 0, next - row);
        for (long t = 0; t < all.terms; t++) {
            widen(scratch.wide, (const bf16 *)all.rows[t] + row * channels, (next - row) * channels);
            products_of(place, {place, nullptr, &wide, all.matrices + t, all.kinds + t, 1, channels}, 0, next - row);
        }
    }
}

// result += left' x right (FULL), its diagonal, or the sum of the rows of right, of n rows that are in bfloat16 if `half`
static void add_any_gram(float *result, const void *left, const void *right, long kind, long n, long channels, long half,
                         Scratch &scratch) {
    if (!half) return add_gram(result, (const float *)left, (const float *)right, kind, n, channels);
    for (long from = 0; from < n; from += CHUNK) {
        long count = n - from < CHUNK ? n - from : CHUNK;
        const bf16 *a = left ? (const bf16 *)left + from * channels : nullptr, *b = (const bf16 *)right + from * channels;
#ifdef __AMX_BF16__
        if (kind == FULL && channels % 16 == 0 && tiles()) {
            long padded = (count + 63) / 64 * 64;
            bf16 *turned = (bf16 *)scratch.left, *pairs = (bf16 *)scratch.right;
            if (scratch.known != a) {
                interleave(pairs, a, count, padded, channels);
                transpose(turned, pairs, padded * channels);
                scratch.known = a;
                if (a != b) interleave(pairs, b, count, padded, channels);
            } else
                interleave(pairs, b, count, padded, channels);
            tiled_gram(result, turned, pairs, padded, channels);
            continue;
        }
#endif
#ifdef __AVX512BF16__
        if (kind != FULL && channels % 16 == 0) {
            paired_gram(result, a, b, count, channels);
            continue;
        }
#endif
        scratch.known = nullptr;
        if (a) widen(scratch.left, a, count * channels);
        widen(scratch.right, b, count * channels);
        add_gram(result, a ? scratch.left : nullptr, scratch.right, kind, count, channels);
    }
}
