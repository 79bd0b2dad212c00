#include <memory>

#include "op.h"
#include "simd.h"

// Products with a matrix [D, O] that is never trained and whose numbers are those of a checkpoint in bf16. It is kept in
// half the memory of floats, packed once: in panels of 2 W columns, packed [panels, D, W]. An int holds the bf16 of two
// columns of a panel, column l in the low half and column W + l in the high half, so that one load and two shifts give two
// vectors. Columns behind the last are zeros.
//
// A sum goes from the first number to the last, whatever the number of rows, columns and threads.

namespace {

constexpr int64_t wide = 2 * W;
/** Numbers of a panel that are widened at once for many rows, and rows that share them: both stay in the caches. */
constexpr int64_t some = 256, block = 96;
/** Rows whose sums fit into the registers beside two vectors of a panel. */
constexpr int few = accumulators / 2 < 8 ? accumulators / 2 : 8;

int64_t panelsOf(int64_t columns) { return (columns + wide - 1) / wide; }

INLINE V lowHalf(I pairs) { return floatOf(pairs << 16); }
INLINE V highHalf(I pairs) { return floatOf(pairs & ~0xffff); }

/** out[MR, up to NP · 2 W] = x[MR, D] · NP panels. */
template <int MR, int NP>
void fewRows(const float* x, const int32_t* packed, int64_t D, float* out, int64_t ldo, int64_t columns) {
  V sums[MR][NP][2] = {};
  for (int64_t k = 0; k < D; k++) {
    V a[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) a[i] = all(x[i * D + k]);
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) {
      const I pairs = load(packed + (p * D + k) * W);
      const V low = lowHalf(pairs), high = highHalf(pairs);
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        sums[i][p][0] += a[i] * low;
        sums[i][p][1] += a[i] * high;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < 2 * NP; j++) {
      const int64_t left = columns - j * W;
      if (left > 0) store(out + i * ldo + j * W, sums[i][j / 2][j % 2], std::min<int64_t>(W, left));
    }
}

template <int MR>
void fewRowsOf(const float* x, const int32_t* packed, int64_t D, float* out, int64_t ldo, int64_t columns) {
  constexpr int NP = std::max(1, std::min(4, few / MR));
  int64_t at = 0;
  for (; columns - at > (NP - 1) * wide; at += NP * wide)
    fewRows<MR, NP>(x, packed + at / wide * D * W, D, out + at, ldo, columns - at);
  for (; at < columns; at += wide) fewRows<MR, 1>(x, packed + at / wide * D * W, D, out + at, ldo, columns - at);
}

void widen(const int32_t* packed, int64_t n, float* out) {
  for (int64_t k = 0; k < n; k++) {
    const I pairs = load(packed + k * W);
    store(out + k * wide, lowHalf(pairs));
    store(out + k * wide + W, highHalf(pairs));
  }
}

/** out[M, up to 2 W] = x[M, D] · a panel, for more rows than `few`. */
void manyRows(const float* x, const int32_t* packed, int64_t M, int64_t D, float* out, int64_t ldo, int64_t columns) {
  alignas(64) float panel[some * wide], partial[block * wide];
  const bool whole = columns >= wide;
  float* sums = whole ? out : partial;
  const int64_t lds = whole ? ldo : wide;
  for (int64_t k = 0; k < D; k += some) {
    const int64_t n = std::min(some, D - k);
    widen(packed + k * W, n, panel);
    product(x + k, D, 1, panel, wide, sums, lds, M, wide, n, k > 0);
  }
  if (!whole)
    for (int64_t i = 0; i < M; i++) std::copy_n(partial + i * wide, columns, out + i * ldo);
}

using FewRows = void (*)(const float*, const int32_t*, int64_t, float*, int64_t, int64_t);
constexpr FewRows byRows[] = {nullptr,      fewRowsOf<1>, fewRowsOf<2>, fewRowsOf<3>, fewRowsOf<4>,
                              fewRowsOf<5>, fewRowsOf<6>, fewRowsOf<7>, fewRowsOf<8>};

/** Whether a tensor can be the panels of so many columns. */
bool isPacked(const Call::Input& packed, int64_t columns) {
  return packed.shape.size() == 3 && packed.last() == W && columns >= 0 && packed.shape[0] == panelsOf(columns);
}

}  // namespace

// Packs a matrix [D, O], or with the setting 1 the transpose of one [O, D], whose numbers are all of bf16 -> [panels, D, W].
static void freeze(Call& call) {
  const auto weight = call.input(0);
  const bool turned = call.settings[0];
  REQUIRE(weight.shape.size() == 2, "freeze: needs a matrix");
  const int64_t D = weight.shape[turned ? 1 : 0], O = weight.shape[turned ? 0 : 1], panels = panelsOf(O);
  int32_t* out = call.outputInts(0, {panels, D, W});
  std::atomic<bool> exact{true};
  parallel(panels, 4 * D * wide, [&](int64_t panel) {
    for (int64_t k = 0; k < D; k++)
      for (int64_t l = 0; l < W; l++) {
        const auto bits = [&](int64_t column) -> uint32_t {
          uint32_t word = 0;
          if (column < O) std::memcpy(&word, weight.floats() + (turned ? column * D + k : k * O + column), 4);
          if (word & 0xffff) exact = false;
          return word;
        };
        out[(panel * D + k) * W + l] = bits(panel * wide + l) >> 16 | (bits(panel * wide + W + l) & ~0xffffu);
      }
  });
  REQUIRE(exact, "freeze: the matrix has numbers that bf16 does not hold");
}
static Op<freeze> freezeOp("MuscFreeze", {"weight: float"}, {"packed: int32"});

// The packed matrix as floats [D, O]. Settings: O.
static void thaw(Call& call) {
  const auto packed = call.input(0);
  const int64_t O = call.settings[0];
  REQUIRE(isPacked(packed, O), "thaw: the panels must be those of so many columns");
  const int64_t D = packed.shape[1], panels = packed.shape[0];
  float* out = call.output(0, {D, O});
  constexpr int64_t lines = 16;
  parallel((D + lines - 1) / lines, 2 * lines * O, [&](int64_t piece) {
    for (int64_t k = piece * lines; k < std::min(D, (piece + 1) * lines); k++)
      for (int64_t panel = 0; panel < panels; panel++) {
        const I pairs = load(packed.ints() + (panel * D + k) * W);
        const int64_t left = O - panel * wide;
        store(out + k * O + panel * wide, lowHalf(pairs), std::min<int64_t>(W, left));
        if (left > W) store(out + k * O + panel * wide + W, highHalf(pairs), std::min<int64_t>(W, left - W));
      }
  });
}
static Op<thaw> thawOp("MuscThaw", {"packed: int32"}, {"weight: float"});

// x [M, D] · columns [from, from + n) of the matrix -> [M, n]. Settings: O, from (of whole panels), n.
static void frozenProduct(Call& call) {
  const auto x = call.input(0), packed = call.input(1);
  const int64_t O = call.settings[0], from = call.settings[1], n = call.settings[2];
  REQUIRE(isPacked(packed, O) && from >= 0 && n >= 0 && from + n <= O && from % wide == 0,
          "frozen product: the panels must be those of so many columns");
  const int64_t D = packed.shape[1], M = x.rows();
  REQUIRE(x.shape.size() == 2 && x.last() == D, "frozen product: x must be as wide as the matrix is high");
  float* out = call.output(0, {M, n});
  const int32_t* first = packed.ints() + from / wide * D * W;
  if (!M || !n) return;
  const int64_t group = M <= few ? 4 : 1, groups = (panelsOf(n) + group - 1) / group;
  const int64_t blocks = M <= few ? 1 : (M + block - 1) / block;
  // A panel comes from memory, which takes as long as the sums of some rows.
  parallel(blocks * groups, 2 * std::max<int64_t>(std::min(M, block), 8) * D * group * wide, [&](int64_t task) {
    const int64_t column = task % groups * group * wide, row = task / groups * block;
    const int64_t rows = std::min(block, M - row), columns = std::min(group * wide, n - column);
    const int32_t* panel = first + column / wide * D * W;
    float* to = out + row * n + column;
    if (M <= few) return byRows[M](x.floats(), panel, D, to, n, columns);
    manyRows(x.floats() + row * D, panel, rows, D, to, n, columns);
  });
}
static Op<frozenProduct> frozenProductOp("MuscFrozenProduct", {"x: float", "packed: int32"}, {"y: float"});

// Columns of the matrix as rows, by number: ids [M] -> [M, D]. Settings: O.
static void frozenRows(Call& call) {
  const auto packed = call.input(0), ids = call.input(1);
  const int64_t O = call.settings[0];
  REQUIRE(isPacked(packed, O), "frozen rows: the panels must be those of so many columns");
  const int64_t D = packed.shape[1], M = ids.size;
  for (int64_t i = 0; i < M; i++)
    REQUIRE(ids.ints()[i] >= 0 && ids.ints()[i] < O, "frozen rows: an id lies outside of the table");
  float* out = call.output(0, {M, D});
  constexpr int64_t lines = 16;
  parallel((M + lines - 1) / lines, 4 * lines * D, [&](int64_t piece) {
    for (int64_t i = piece * lines; i < std::min(M, (piece + 1) * lines); i++) {
      const int64_t id = ids.ints()[i], at = id % wide;
      const int32_t* from = packed.ints() + id / wide * D * W + at % W;
      for (int64_t k = 0; k < D; k++) {
        const uint32_t pair = from[k * W], word = at < W ? pair << 16 : pair & ~0xffffu;
        std::memcpy(out + i * D + k, &word, 4);
      }
    }
  });
}
static Op<frozenRows> frozenRowsOp("MuscFrozenRows", {"packed: int32", "ids: int32"}, {"rows: float"});
