#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

// Vectors of as many floats as the processor has in a register. Sums go by the same lanes whatever stands beside a row,
// so that its last digit does not depend on the batch.

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int W = 16;
constexpr int accumulators = 24;
#elif defined(__AVX__)
constexpr int W = 8;
constexpr int accumulators = 12;
#else
constexpr int W = 4;
constexpr int accumulators = 12;
#endif

typedef float V __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef float LooseV __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t LooseI __attribute__((vector_size(4 * W), aligned(4), may_alias));

/** A whole vector, or its first `n` floats, the others 0. */
INLINE V load(const float* p) { return *reinterpret_cast<const LooseV*>(p); }
INLINE V load(const float* p, int n) {
  if (n == W) return load(p);
  V v = {};
  std::memcpy(&v, p, 4 * n);
  return v;
}
INLINE I load(const int32_t* p) { return *reinterpret_cast<const LooseI*>(p); }
INLINE void store(int32_t* p, I v) { *reinterpret_cast<LooseI*>(p) = v; }
INLINE void store(float* p, V v) { *reinterpret_cast<LooseV*>(p) = v; }
INLINE void store(float* p, V v, int n) {
  if (n == W) return store(p, v);
  std::memcpy(p, &v, 4 * n);
}

INLINE V all(float x) { return x - V{}; }
INLINE I bitsOf(V x) {
  I bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
INLINE V floatOf(I bits) {
  V x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
/** sum + a · b for each float of b. */
INLINE void addProduct(V& sum, float a, V b) { sum += all(a) * b; }

/** Whether the processor multiplies numbers of bf16 two at a time, and adds the products up in f32. */
#if defined(__AVX512BF16__)
constexpr bool multipliesPairs = true;

/** sum + a1 · b1 + a2 · b2, for the pair of bf16 that is kept as the float `a`, and for each pair of `b`. */
INLINE void addProduct(V& sum, float a, I b) {
  int32_t pair;
  std::memcpy(&pair, &a, 4);
  sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), reinterpret_cast<__m512bh>(b));
}

/** The floats rounded to bf16, in pairs of neighbours: those of `a` in the lower half of the vector. */
INLINE I pairsOf(V a, V b) { return reinterpret_cast<I>(_mm512_cvtne2ps_pbh(b, a)); }

/** The floats rounded to bf16, each in the lower half of an int. */
INLINE I bf16Of(V v) {
  typedef uint16_t Half __attribute__((vector_size(2 * W)));
  return __builtin_convertvector(reinterpret_cast<Half>(_mm512_cvtneps_pbh(v)), I);
}
#else
constexpr bool multipliesPairs = false;
INLINE void addProduct(V&, float, I) {}
INLINE I pairsOf(V, V) { return I{}; }
INLINE I bf16Of(V) { return I{}; }
#endif

INLINE V choose(I where, V a, V b) { return floatOf((where & bitsOf(a)) | (~where & bitsOf(b))); }
INLINE V greater(V a, V b) { return a > b ? a : b; }

INLINE float sum(V v) {
  float lanes[W];
  store(lanes, v);
  for (int n = W / 2; n; n /= 2)
    for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
  return lanes[0];
}
INLINE float most(V v) {
  float top = v[0];
  for (int i = 1; i < W; i++) top = std::max(top, v[i]);
  return top;
}

/**
 * `f(at, n)` for pieces of [0, size): whole vectors, then the rest. It stands in one place, for a compiler may round
 * the same expression otherwise in another (by multiplying and adding at once).
 */
template <typename F>
INLINE void sweep(int64_t size, const F& f) {
  for (int64_t at = 0; at < size; at += W) f(at, static_cast<int>(std::min<int64_t>(W, size - at)));
}

/** The first `n` floats of v, the others `other`. */
INLINE V firstOf(V v, int n, float other) {
  if (n == W) return v;
  for (int j = n; j < W; j++) v[j] = other;
  return v;
}

/** e^x to about one unit in the last place (Cephes' expf); 0 below -87. */
INLINE V exp(V x) {
  const V low = all(-87), high = all(88);
  const V bounded = x < low ? low : x > high ? high : x;
  const float magic = 12582912;  // 1.5 · 2^23: adding it rounds to a whole number
  const V n = (bounded * 1.44269504f + magic) - magic;
  const V r = (bounded - n * .693359375f) + n * 2.12194440e-4f;
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1;
  const I power = (__builtin_convertvector(n, I) + 127) << 23;
  return x < low ? V{} : p * floatOf(power);
}

INLINE V sigmoid(V x) { return 1 / (1 + exp(-x)); }
/** What SiLU, or the tanh form of GELU, multiplies x by: (1 + tanh(z)) / 2 = σ(2 z). */
constexpr float geluSlope = .7978845608f, geluCube = .044715f;
INLINE V gateFactor(V x, bool gelu) { return gelu ? sigmoid(2 * geluSlope * x * (1 + geluCube * x * x)) : sigmoid(x); }
INLINE V tanh(V x) { return 1 - 2 / (exp(2 * x) + 1); }

/** C[MR, NV · W] (+)= A · B with the sums in registers. */
template <int MR, int NV>
INLINE void tile(const float* A, int64_t row, int64_t column, const float* B, int64_t ldb, float* C, int64_t ldc,
                 int64_t k, bool add) {
  V sums[MR][NV];
#pragma GCC unroll 24
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) sums[i][j] = add ? load(C + i * ldc + j * W) : V{};
  for (int64_t p = 0; p < k; p++) {
    V b[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) b[j] = load(B + p * ldb + j * W);
#pragma GCC unroll 24
    for (int i = 0; i < MR; i++) {
      const V a = all(A[i * row + p * column]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) sums[i][j] += a * b[j];
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) store(C + i * ldc + j * W, sums[i][j]);
}

template <int NV>
static void columns(const float* A, int64_t row, int64_t column, const float* B, int64_t ldb, float* C, int64_t ldc,
                    int64_t m, int64_t k, bool add) {
  constexpr int MR = std::min(accumulators / NV, 12);
  int64_t i = 0;
  for (; i + MR <= m; i += MR) tile<MR, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
  if constexpr (MR > 8)
    for (; i + 8 <= m; i += 8) tile<8, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
  if constexpr (MR > 4)
    for (; i + 4 <= m; i += 4) tile<4, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
  for (; i + 3 <= m; i += 3) tile<3, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
  for (; i + 2 <= m; i += 2) tile<2, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
  for (; i < m; i++) tile<1, NV>(A + i * row, row, column, B, ldb, C + i * ldc, ldc, k, add);
}

/** C[m, n] = A[m, k] · B[k, n], or added to C; A(i, p) is A[i · row + p · column], B and C are kept by rows. */
[[maybe_unused]] static void product(const float* A, int64_t row, int64_t column, const float* B, int64_t ldb, float* C,
                                     int64_t ldc, int64_t m, int64_t n, int64_t k, bool add) {
  int64_t j = 0;
  if (accumulators >= 24)
    for (; j + 4 * W <= n; j += 4 * W) columns<4>(A, row, column, B + j, ldb, C + j, ldc, m, k, add);
  for (; j + 2 * W <= n; j += 2 * W) columns<2>(A, row, column, B + j, ldb, C + j, ldc, m, k, add);
  for (; j + W <= n; j += W) columns<1>(A, row, column, B + j, ldb, C + j, ldc, m, k, add);
  const int rest = n - j;
  for (int64_t i = 0; rest && i < m; i++) {
    V total = add ? load(C + i * ldc + j, rest) : V{};
    for (int64_t p = 0; p < k; p++) total += all(A[i * row + p * column]) * load(B + p * ldb + j, rest);
    store(C + i * ldc + j, total, rest);
  }
}

/** Transposes a square of vectors: lane j of vector i becomes lane i of vector j. */
template <int H = W / 2>
INLINE void transpose(I* rows) {
  I low, high;  // lanes without the bit H from one vector, those with it from the other
  for (int j = 0; j < W; j++) low[j] = j & H ? W + j - H : j, high[j] = j & H ? W + j : j + H;
#pragma GCC unroll 16
  for (int i = 0; i < W; i++) {
    if (i & H) continue;
    const I one = rows[i], other = rows[i + H];
    rows[i] = __builtin_shuffle(one, other, low);
    rows[i + H] = __builtin_shuffle(one, other, high);
  }
  if constexpr (H > 1) transpose<H / 2>(rows);
}
