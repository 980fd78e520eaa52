/* The operations of a transformer block for a few rows (a token each), at the speed of the memory that holds the weights.

   A matrix product with few rows reads each weight once and does little with it. BLAS is tuned for many rows: it reads the
   weights at 10 GB/s where the memory gives 25 to 30. Here a tile of a few weight rows stays in registers while it meets
   every row of x. The weights are read where they lie: nothing is repacked, so nothing can be out of date. The other
   functions save what dozens of tiny framework calls cost.

   Everything is computed in float32. `type` says how the values are stored. Compiled on the machine it runs on, for AVX-512 or AVX2. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FLOAT32, BFLOAT16, INT8 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 24")

/* A tile is TALL rows of weights against up to WIDEST rows of x, as many sums as there are registers for. The rows of weights
   lie APART rows from each other, so that each is a stream of its own, which the processor sees and fetches ahead by itself:
   three neighbouring rows are three short runs within the same few pages, and were read at half the speed. */
enum { TALL = 3, APART = 256 };
#if defined(__AVX512F__) && defined(__AVX512BW__)
enum { LANES = 16, WIDEST = 8, MOST = TALL * WIDEST };
#define from_int8(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p))))
#define from_bfloat16(p) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p))), 16))
#define bounded(v, low, high) (Vector)_mm512_min_ps(_mm512_max_ps((__m512)(v), _mm512_set1_ps(low)), _mm512_set1_ps(high))
#define nearest(v) (Vector)_mm512_roundscale_ps((__m512)(v), 0)
#define whole(v) (Whole)_mm512_cvtps_epi32((__m512)(v))
#elif defined(__AVX2__)
enum { LANES = 8, WIDEST = 4, MOST = TALL * WIDEST };
#define from_int8(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p))))
#define from_bfloat16(p) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p))), 16))
#define bounded(v, low, high) (Vector)_mm256_min_ps(_mm256_max_ps((__m256)(v), _mm256_set1_ps(low)), _mm256_set1_ps(high))
#define nearest(v) (Vector)_mm256_round_ps((__m256)(v), 0)
#define whole(v) (Whole)_mm256_cvtps_epi32((__m256)(v))
#else
#error "needs AVX2"
#endif
/* Compilers would rather read a value from memory at each use; the loads, not the sums, would then set the pace. */
#define KEEP(v) __asm__("" : "+v"(v))

/* Rows from which the functions below the products use more than one thread. */
enum { MANY = 64 };

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Whole __attribute__((vector_size(LANES * sizeof(int32_t))));

/* One value, or LANES of them, at place i of memory of that type. */

INLINE float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE float get(const void *from, long i, const int type) {
    if (type == INT8) return ((const int8_t *)from)[i];
    return type == FLOAT32 ? ((const float *)from)[i] : widened(((const uint16_t *)from)[i]);
}

INLINE void put(void *to, long i, float value, const int type) {
    if (type == FLOAT32) {
        ((float *)to)[i] = value;
    } else { /* to the nearest, ties to even; a NaN stays one */
        uint32_t bits;
        memcpy(&bits, &value, 4);
        ((uint16_t *)to)[i] = value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    }
}

INLINE Vector load(const void *from, long i, const int type) {
    if (type == INT8) return (Vector)from_int8((const int8_t *)from + i);
    if (type == BFLOAT16) return (Vector)from_bfloat16((const uint16_t *)from + i);
    Vector v;
    memcpy(&v, (const float *)from + i, sizeof v);
    return v;
}

INLINE float total(Vector v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
#endif
}

INLINE long size(const int type) { return type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1; }

/* y[rows, out] = x[rows, in] w[out, in]^T * scale + bias ----------------------------------------------------------------- */

typedef struct {
    const void *w, *x, *bias;
    const float *scale;
    void *y;
    long rows, in, out;
} Product;

INLINE void finish(const Product *p, long row, long at, float y, const int type) {
    if (p->scale) y *= p->scale[at];
    if (p->bias) y += get(p->bias, at, type);
    put(p->y, row * p->out + at, y, type);
}

/* `tall` weight rows, `apart` from each other, against `wide` rows of x from `row`, `deep` vectors of each at a time. */
INLINE void tile(const Product *p, long first, long apart, long row, const int stored, const int type, const int tall, const int wide, const int deep) {
    const long in = p->in;
    const char *w[TALL], *x = (const char *)p->x + row * in * size(type);
    long at[TALL];
    UNROLL for (int j = 0; j < tall; j++) {
        at[j] = first + j * apart < p->out ? first + j * apart : p->out - 1; /* the last rows of all may be met twice */
        w[j] = (const char *)p->w + at[j] * in * size(stored);
    }
    Vector sum[MOST];
    UNROLL for (int a = 0; a < tall * wide * deep; a++) sum[a] = (Vector){0};
    long i = 0;
#if defined(__AVX512BF16__)
    if (stored == BFLOAT16 && type == BFLOAT16)
        for (; i + 32 * deep <= in; i += 32 * deep)
            UNROLL for (int d = 0; d < deep; d++) {
                const long k = i + 32 * d;
                __m512bh weight[TALL];
                UNROLL for (int j = 0; j < tall; j++) weight[j] = (__m512bh)_mm512_loadu_si512(w[j] + k * 2);
                UNROLL for (int r = 0; r < wide; r++) {
                    __m512bh value = (__m512bh)_mm512_loadu_si512(x + (r * in + k) * 2);
                    KEEP(value);
                    UNROLL for (int j = 0; j < tall; j++) {
                        Vector *s = &sum[(j * wide + r) * deep + d];
                        *s = (Vector)_mm512_dpbf16_ps((__m512)*s, weight[j], value);
                    }
                }
            }
#endif
    for (; i + LANES * deep <= in; i += LANES * deep)
        UNROLL for (int d = 0; d < deep; d++) {
            const long k = i + LANES * d;
            Vector weight[TALL];
            UNROLL for (int j = 0; j < tall; j++) weight[j] = load(w[j], k, stored);
            UNROLL for (int r = 0; r < wide; r++) {
                Vector value = load(x, r * in + k, type);
                KEEP(value);
                UNROLL for (int j = 0; j < tall; j++) sum[(j * wide + r) * deep + d] += weight[j] * value;
            }
        }
    UNROLL for (int j = 0; j < tall; j++)
        UNROLL for (int r = 0; r < wide; r++) {
            Vector all = sum[(j * wide + r) * deep];
            UNROLL for (int d = 1; d < deep; d++) all += sum[(j * wide + r) * deep + d];
            float y = total(all);
            for (long k = i; k < in; k++) y += get(w[j], k, stored) * get(x, r * in + k, type);
            finish(p, row + r, at[j], y, type);
        }
}

/* The weights are cut into pieces of TALL * APART rows, the last into one of fewer. */
INLINE void strip(const Product *p, long number, const int stored, const int type) {
    const long before = number / APART * APART * TALL, rest = p->out - before;
    const long apart = rest < TALL * APART ? (rest + TALL - 1) / TALL : APART, first = before + number % APART;
    long row = 0;
    for (; row + WIDEST <= p->rows; row += WIDEST) tile(p, first, apart, row, stored, type, TALL, WIDEST, 1);
    if (WIDEST > 4 && p->rows & 4) tile(p, first, apart, row, stored, type, TALL, 4, 1), row += 4;
    if (p->rows & 2) tile(p, first, apart, row, stored, type, TALL, 2, 2), row += 2;
    if (p->rows & 1) tile(p, first, apart, row, stored, type, TALL, 1, 2);
}

static void strip_float32(const Product *p, long first) { strip(p, first, FLOAT32, FLOAT32); }
static void strip_bfloat16(const Product *p, long first) { strip(p, first, BFLOAT16, BFLOAT16); }
static void strip_int8_float32(const Product *p, long first) { strip(p, first, INT8, FLOAT32); }
static void strip_int8_bfloat16(const Product *p, long first) { strip(p, first, INT8, BFLOAT16); }

/* With a scale, w is INT8. */
void linear(int type, const void *w, const float *scale, const void *x, const void *bias, void *y, long rows, long in, long out, int threads) {
    const Product p = {w, x, bias, scale, y, rows, in, out};
    void (*const strip)(const Product *, long) = type == FLOAT32 ? (scale ? strip_int8_float32 : strip_float32) : (scale ? strip_int8_bfloat16 : strip_bfloat16);
    const long strips = (out + TALL - 1) / TALL;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long s = 0; s < strips; s++) strip(&p, s);
}

/* y = (x + residual) / rms(x + residual) * weight ------------------------------------------------------------------------ */

INLINE void norm_rows(const void *x, const void *residual, const void *weight, void *y, long rows, long width, float eps, int threads, const int type) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *sum = malloc(width * sizeof(float));
#pragma omp for schedule(static)
        for (long r = 0; r < rows; r++) {
            float squares = 0;
            for (long i = 0; i < width; i++) {
                sum[i] = get(x, r * width + i, type) + (residual ? get(residual, r * width + i, type) : 0);
                squares += sum[i] * sum[i];
            }
            const float factor = 1 / sqrtf(squares / width + eps);
            for (long i = 0; i < width; i++) put(y, r * width + i, sum[i] * factor * get(weight, i, type), type);
        }
        free(sum);
    }
}

void rms_norm(int type, const void *x, const void *residual, const void *weight, void *y, long rows, long width, float eps, int threads) {
    threads = rows < MANY ? 1 : threads;
    if (type == FLOAT32) norm_rows(x, residual, weight, y, rows, width, eps, threads, FLOAT32);
    else norm_rows(x, residual, weight, y, rows, width, eps, threads, BFLOAT16);
}

/* y = x * cos + partner(x) * sin, for every head of every row ------------------------------------------------------------ */

INLINE void rotate_rows(const void *x, const void *cos, const void *sin, void *y, long rows, long heads, long width, int half, long period, int threads, const int type) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long r = 0; r < rows; r++)
        for (long h = 0; h < heads; h++) {
            const long at = (r * heads + h) * width, row = r % period * width;
            if (half) {
                for (long i = 0; i < width; i++) {
                    const long partner = i < width / 2 ? i + width / 2 : i - width / 2;
                    put(y, at + i, get(x, at + i, type) * get(cos, row + i, type) + get(x, at + partner, type) * get(sin, row + i, type), type);
                }
            } else {
                for (long i = 0; i < width; i += 2) {
                    const float a = get(x, at + i, type), b = get(x, at + i + 1, type);
                    put(y, at + i, a * get(cos, row + i, type) + b * get(sin, row + i, type), type);
                    put(y, at + i + 1, b * get(cos, row + i + 1, type) + a * get(sin, row + i + 1, type), type);
                }
            }
        }
}

/* The tables have `period` rows, which repeat. */
void rotate(int type, const void *x, const void *cos, const void *sin, void *y, long rows, long heads, long width, int half, long period, int threads) {
    threads = rows < MANY ? 1 : threads;
    if (type == FLOAT32) rotate_rows(x, cos, sin, y, rows, heads, width, half, period, threads, FLOAT32);
    else rotate_rows(x, cos, sin, y, rows, heads, width, half, period, threads, BFLOAT16);
}

/* y = silu(gate) * up, gate and up side by side in x ----------------------------------------------------------------------- */

/* e^x by 2^n times a polynomial (Cephes), for LANES numbers: compilers do not make vectors of it by themselves. */
INLINE Vector exponentials(Vector x) {
    x = bounded(x, -87, 88);
    const Vector n = nearest(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector e = r * 1.9875691500e-4f + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1;
    return (Vector)((Whole)e + (whole(n) << 23));
}

/* LANES numbers from place i, the `count` first of them, the others 0. */
INLINE Vector load_some(const void *from, long i, long count, const int type) {
    if (count >= LANES) return load(from, i, type);
    float some[LANES] = {0};
    for (long k = 0; k < count; k++) some[k] = get(from, i + k, type);
    return load(some, 0, FLOAT32);
}

INLINE void store_some(void *to, long i, long count, Vector v, const int type) {
    float some[LANES];
    memcpy(some, &v, sizeof v);
    if (count >= LANES)
        for (long k = 0; k < LANES; k++) put(to, i + k, some[k], type);
    else
        for (long k = 0; k < count; k++) put(to, i + k, some[k], type);
}

INLINE void swiglu_rows(const void *x, void *y, long rows, long width, int threads, const int type) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < width; i += LANES) {
            const Vector gate = load_some(x, 2 * r * width + i, width - i, type), up = load_some(x, (2 * r + 1) * width + i, width - i, type);
            store_some(y, r * width + i, width - i, gate / (1 + exponentials(-gate)) * up, type);
        }
}

void swiglu(int type, const void *x, void *y, long rows, long width, int threads) {
    threads = rows < MANY ? 1 : threads;
    if (type == FLOAT32) swiglu_rows(x, y, rows, width, threads, FLOAT32);
    else swiglu_rows(x, y, rows, width, threads, BFLOAT16);
}

/* One query a row: y = softmax(q k^T * scaling) v ------------------------------------------------------------------------ */

typedef struct {
    long batch, heads, groups, length, width; /* groups: key/value heads */
    long row, head;                           /* strides of keys and values; positions are `width` apart */
    float scaling;
} Shape;

INLINE void attend_rows(const void *q, const void *k, const void *v, const uint8_t *mask, void *y, const Shape *s, const int type) {
    const long width = s->width, length = s->length, padded = (length + LANES - 1) / LANES * LANES;
    float *weight = malloc((padded + 2 * width) * sizeof(float)), *query = weight + padded, *mixed = query + width;
    for (long b = 0; b < s->batch; b++)
        for (long h = 0; h < s->heads; h++) {
            const long at = (b * s->heads + h) * width, past = b * s->row + h / (s->heads / s->groups) * s->head;
            float largest = -INFINITY;
            for (long i = 0; i < width; i++) query[i] = get(q, at + i, type) * s->scaling, mixed[i] = 0;
            for (long t = 0; t < length; t++) {
                float score = 0;
                for (long i = 0; i < width; i++) score += query[i] * get(k, past + t * width + i, type);
                weight[t] = mask && !mask[b * length + t] ? -INFINITY : score;
                largest = weight[t] > largest ? weight[t] : largest;
            }
            for (long t = length; t < padded; t++) weight[t] = -INFINITY;
            Vector sums = {0};
            for (long t = 0; t < padded; t += LANES) {
                const Vector e = exponentials(load(weight, t, FLOAT32) - largest);
                memcpy(weight + t, &e, sizeof e);
                sums += e;
            }
            const float sum = total(sums);
            for (long t = 0; t < length; t++)
                for (long i = 0; i < width; i++) mixed[i] += weight[t] * get(v, past + t * width + i, type);
            for (long i = 0; i < width; i++) put(y, at + i, mixed[i] / sum, type);
        }
    free(weight);
}

/* `mask`, if there is one, is 1 where a row may look: [batch, length]. */
void attend(int type, const void *q, const void *k, const void *v, const uint8_t *mask, void *y, long batch, long heads, long groups, long length,
            long width, long row, long head, float scaling) {
    const Shape s = {batch, heads, groups, length, width, row, head, scaling};
    if (type == FLOAT32) attend_rows(q, k, v, mask, y, &s, FLOAT32);
    else attend_rows(q, k, v, mask, y, &s, BFLOAT16);
}

/* Whole blocks for one new position a row: the functions above in the order of `models/blocks.py` ------------------------ */

typedef struct {
    const void *w;
    const float *scale; /* only if w is INT8 */
    const void *bias;
    long in, out;
} Matrix;

enum { PRE, PERI, SANDWICH };

typedef struct {
    Matrix q, k, v, o, gate_up, down;
    const void *attention_norm, *attention_post_norm, *mlp_norm, *mlp_post_norm, *q_norm, *k_norm; /* NULL where there is none */
    long heads, groups, head;
    float eps, scaling;
    int placement, half;
} Weights;

static void apply(int type, const Matrix *m, const void *x, void *y, long rows, int threads) {
    linear(type, m->w, m->scale, x, m->bias, y, rows, m->in, m->out, threads);
}

static void add(int type, const void *a, const void *b, void *y, long count) {
    for (long i = 0; i < count; i++) put(y, i, get(a, i, type) + get(b, i, type), type);
}

/* Where a branch of the block meets the stream it left. */
static void join(int type, const Weights *b, const void *branch, const void *norm, const void *stream, void *y, long rows, long width) {
    if (b->placement == SANDWICH) {
        rms_norm(type, branch, stream, norm, y, rows, width, b->eps, 1);
    } else if (b->placement == PERI) {
        rms_norm(type, branch, NULL, norm, y, rows, width, b->eps, 1);
        add(type, y, stream, y, rows * width);
    } else {
        add(type, branch, stream, y, rows * width);
    }
}

typedef struct {
    const Weights *weights;
    void *keys, *values; /* `length` positions with the new one, which is written here */
} Layer;

INLINE long scratch(const Weights *b, long rows) { return rows * (3 * b->q.in + 3 * b->q.out + 3 * b->k.out + 2 * b->gate_up.out); }

/* y may be x. `row` and `head` are the strides of keys and values. */
static void block(int type, const Layer *layer, const void *x, const void *cos, const void *sin, long period, long row, long head, long length,
                  const uint8_t *mask, void *y, long rows, int threads, char *normed) {
    const Weights *b = layer->weights;
    const long width = b->q.in, queries = b->q.out, kept = b->k.out, size = type == FLOAT32 ? 4 : 2;
    char *stream = normed + rows * width * size, *branch = stream + rows * width * size;
    char *q = branch + rows * width * size, *turned = q + rows * queries * size, *mixed = turned + rows * queries * size;
    char *k = mixed + rows * queries * size, *v = k + 2 * rows * kept * size, *gate_up = v + rows * kept * size;
    char *inner = gate_up + rows * b->gate_up.out * size;

    rms_norm(type, x, NULL, b->attention_norm, normed, rows, width, b->eps, 1);
    apply(type, &b->q, normed, q, rows, threads);
    apply(type, &b->k, normed, k, rows, threads);
    apply(type, &b->v, normed, v, rows, threads);
    if (b->q_norm) {
        rms_norm(type, q, NULL, b->q_norm, q, rows * b->heads, b->head, b->eps, 1);
        rms_norm(type, k, NULL, b->k_norm, k, rows * b->groups, b->head, b->eps, 1);
    }
    rotate(type, q, cos, sin, turned, rows, b->heads, b->head, b->half, period, 1);
    rotate(type, k, cos, sin, k + rows * kept * size, rows, b->groups, b->head, b->half, period, 1);
    k += rows * kept * size;
    for (long r = 0; r < rows; r++)
        for (long g = 0; g < b->groups; g++) {
            const long from = (r * b->groups + g) * b->head * size, to = (r * row + g * head + (length - 1) * b->head) * size;
            memcpy((char *)layer->keys + to, k + from, b->head * size);
            memcpy((char *)layer->values + to, v + from, b->head * size);
        }
    attend(type, turned, layer->keys, layer->values, mask, mixed, rows, b->heads, b->groups, length, b->head, row, head, b->scaling);
    apply(type, &b->o, mixed, branch, rows, threads);
    join(type, b, branch, b->attention_post_norm, x, stream, rows, width);

    rms_norm(type, stream, NULL, b->mlp_norm, normed, rows, width, b->eps, 1);
    apply(type, &b->gate_up, normed, gate_up, rows, threads);
    swiglu(type, gate_up, inner, rows, b->down.in, 1);
    apply(type, &b->down, inner, branch, rows, threads);
    join(type, b, branch, b->mlp_post_norm, stream, y, rows, width);
}

/* One block after another; `count` is at least 1. */
void stack(int type, const Layer *layers, long count, const void *x, const void *cos, const void *sin, long period, long row, long head, long length,
           const uint8_t *mask, void *y, long rows, int threads) {
    long most = 0;
    for (long i = 0; i < count; i++)
        if (scratch(layers[i].weights, rows) > most) most = scratch(layers[i].weights, rows);
    char *memory = malloc(most * (type == FLOAT32 ? 4 : 2));
    for (long i = 0; i < count; i++, x = y)
        block(type, &layers[i], x, cos, sin, period, row, head, length, mask, y, rows, threads, memory);
    free(memory);
}
