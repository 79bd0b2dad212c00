#ifndef __AVX512F__
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "op.h"
#include "simd.h"

// Products of matrices of floats, for processors whose vectors have fewer than 16 of them: there TensorFlow's own give a row
// other digits beside other rows (on AVX2, where 1, 2 or 3 rows are left over behind sixes). Here a sum goes from the first
// number to the last, whatever the number of rows, columns and threads.

namespace {

/** Columns that are made at once, numbers of each that are packed at once, and rows that share them. */
constexpr int NV = accumulators >= 24 ? 4 : 2;
constexpr int64_t wide = NV * W, some = 256, block = 192;
/** Rows for which a matrix is read where it lies. */
constexpr int64_t few = 12;

/** Turns a square of vectors. */
INLINE void turn(V* rows) {
#if defined(__AVX__)
  __m256 pairs[8], fours[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
#else
  V turned[W];
  for (int i = 0; i < W; i++)
    for (int j = 0; j < W; j++) turned[j][i] = rows[i][j];
  std::copy_n(turned, W, rows);
#endif
}

/** Numbers [0, k) of `n` columns, column j from B[j · line] on, as rows of `wide` with zeros behind. */
void packTurned(const float* B, int64_t line, int64_t k, int64_t n, float* out) {
  for (int64_t j = 0; j < wide; j += W)
    for (int64_t p = 0; p < k; p += W) {
      const int length = std::min<int64_t>(W, k - p);
      V square[W];
      for (int i = 0; i < W; i++) square[i] = j + i < n ? load(B + (j + i) * line + p, length) : V{};
      turn(square);
      for (int i = 0; i < length; i++) store(out + (p + i) * wide + j, square[i]);
    }
}

/** The same of rows of B, `line` apart. */
void packRows(const float* B, int64_t line, int64_t k, int64_t n, float* out) {
  for (int64_t p = 0; p < k; p++) {
    if (n == wide) {
      for (int64_t j = 0; j < wide; j += W) store(out + p * wide + j, load(B + p * line + j));
      continue;
    }
    std::fill_n(out + p * wide, wide, 0);
    std::copy_n(B + p * line, n, out + p * wide);
  }
}

}  // namespace

// a · b, either one transposed first -> [M, N]. Settings: whether a and b are, and a number that only tiles know.
static void denseProduct(Call& call) {
  const auto a = call.input(0), b = call.input(1);
  const bool turnedA = call.settings[0], turnedB = call.settings[1];
  REQUIRE(a.shape.size() == 2 && b.shape.size() == 2, "product: needs two matrices");
  const int64_t M = a.shape[turnedA ? 1 : 0], K = a.shape[turnedA ? 0 : 1], N = b.shape[turnedB ? 0 : 1];
  REQUIRE(b.shape[turnedB ? 1 : 0] == K, "product: the matrices must have one length in common");
  float* out = call.output(0, {M, N});
  if (!M || !N) return;
  if (!K) return void(std::fill_n(out, M * N, 0));
  const int64_t row = turnedA ? 1 : K, column = turnedA ? M : 1;
  const int64_t panels = (N + wide - 1) / wide, blocks = (M + block - 1) / block;
  parallel(panels * blocks, 2 * std::min(M, block) * K * wide, [&](int64_t task) {
    const int64_t j = task % panels * wide, i = task / panels * block;
    const int64_t n = std::min(wide, N - j), m = std::min(block, M - i);
    const float* left = a.floats() + i * row;
    float* to = out + i * N + j;
    if (m <= few && !turnedB) return product(left, row, column, b.floats() + j, N, to, N, m, n, K, false);
    alignas(64) float panel[some * wide], partial[block * wide];
    const bool whole = n == wide;
    for (int64_t k = 0; k < K; k += some) {
      const int64_t length = std::min(some, K - k);
      if (turnedB)
        packTurned(b.floats() + j * K + k, K, length, n, panel);
      else
        packRows(b.floats() + k * N + j, N, length, n, panel);
      product(left + k * column, row, column, panel, wide, whole ? to : partial, whole ? N : wide, m, wide, length, k > 0);
    }
    if (!whole)
      for (int64_t r = 0; r < m; r++) std::copy_n(partial + r * wide, n, to + r * N);
  });
}
static Op<denseProduct> denseProductOp("MuscProduct", {"a: float", "b: float"}, {"product: float"});
#endif
