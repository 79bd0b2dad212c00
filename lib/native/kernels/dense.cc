#ifndef __AVX512F__
#include "rows.h"

// Products of matrices of floats, for processors whose vectors have fewer than 16 of them: there TensorFlow's own give
// a row other digits beside other rows (on AVX2, where 1, 2 or 3 rows are left over behind sixes).

// a · b, either one transposed first -> [M, N]. Settings: whether a and b are, and a number that only tiles know.
static void denseProduct(Call& call) {
  const auto a = call.input(0), b = call.input(1);
  const bool turnedA = call.settings[0], turnedB = call.settings[1];
  REQUIRE(a.shape.size() == 2 && b.shape.size() == 2, "product: needs two matrices");
  const int64_t M = a.shape[turnedA ? 1 : 0], K = a.shape[turnedA ? 0 : 1], N = b.shape[turnedB ? 0 : 1];
  REQUIRE(b.shape[turnedB ? 1 : 0] == K, "product: the matrices must have one length in common");
  float* out = call.output(0, {M, N});
  const int64_t row = turnedA ? 1 : K, column = turnedA ? M : 1;
  if (M <= tall && !turnedB)  // the second matrix is read where it lies
    return parallel(panelsOf(N), 2 * M * K * wide, [&](int64_t panel) {
      const int64_t at = panel * wide;
      product(a.floats(), row, column, b.floats() + at, N, out + at, N, M, std::min(wide, N - at), K, false);
    });
  const Rows rows(a.floats(), M, K, row, column);
  if (turnedB) return times(out, M, N, rows, turnedColumnsOf(b.floats(), N, K));
  times(out, M, N, rows, columnsOf(b.floats(), N, K));
}
static Op<denseProduct> denseProductOp("MuscProduct", {"a: float", "b: float"}, {"product: float"});
#endif
