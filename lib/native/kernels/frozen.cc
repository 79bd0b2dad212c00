#include "elementwise.h"
#include "rows.h"

// Products with a matrix [D, O] that is never trained and whose numbers are those of a checkpoint in bf16. It is kept
// in half the memory of floats, packed once: in panels of 2 W columns, packed [panels, D, W]. An int holds the bf16 of
// two columns of a panel, column l in the low half and column W + l in the high half, so that one load and two shifts
// give two vectors. Columns behind the last are zeros.

namespace {

/** Rows for which the matrix is read from memory in several streams, with all sums in the registers. */
constexpr int few = 4;

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

/** As many panels at once as registers allow, then what is left. */
template <int MR, int NP = std::max(1, std::min(4, std::min(8, accumulators / 2) / MR))>
void fewRowsOf(const float* x, const int32_t* packed, int64_t D, float* out, int64_t ldo, int64_t columns) {
  int64_t at = 0;
  for (; columns - at > (NP - 1) * wide; at += NP * wide)
    fewRows<MR, NP>(x, packed + at / wide * D * W, D, out + at, ldo, columns - at);
  if constexpr (NP > 1)
    if (at < columns) fewRowsOf<MR, NP - 1>(x, packed + at / wide * D * W, D, out + at, ldo, columns - at);
}

using FewRows = void (*)(const float*, const int32_t*, int64_t, float*, int64_t, int64_t);
constexpr FewRows byRows[few + 1] = {nullptr, fewRowsOf<1>, fewRowsOf<2>, fewRowsOf<3>, fewRowsOf<4>};

/** A panel [n, wide] as it is packed; `next`, of the same size, is brought into the cache meanwhile. */
struct Packed {
  const int32_t *pairs, *next;
  __attribute__((always_inline)) void vectors(int64_t k, V& left, V& right) const {
    __builtin_prefetch(next + k * W, 0, 2);
    const I both = load(pairs + k * W);
    left = lowHalf(both), right = highHalf(both);
  }
};

/** The columns of a matrix, for `times`. */
struct PackedColumns {
  const int32_t* packed;
  int64_t depth, columns;
  const int64_t used = ownThreads;
  Packed panel(int64_t column, int64_t k, int64_t, float*) const {
    const int64_t at = column / wide, next = std::min(at + used, panelsOf(columns) - 1);
    return {packed + (at * depth + k) * W, packed + (next * depth + k) * W};
  }
  void ahead(int64_t, int64_t, int64_t) const {}
};

/** The columns of its transpose [O, D], for `times`. */
struct TurnedColumns {
  const int32_t* packed;
  int64_t depth, D;
  Panel panel(int64_t column, int64_t k, int64_t n, float* numbers) const {
    for (int64_t i = 0; i < n; i += wide)
      for (int64_t j = 0; j < wide; j += W) {
        const int32_t* from = packed + ((k + i) / wide * D + column + j) * W;
        const int64_t rows = std::min<int64_t>(W, D - column - j);
        float* to = numbers + i * wide + j;
        I square[W];
#pragma GCC unroll 16
        for (int l = 0; l < W; l++) square[l] = l < rows ? load(from + l * W) : I{};
        transpose(square);
#pragma GCC unroll 16
        for (int l = 0; l < W; l++) {
          if (i + l < n) store(to + l * wide, lowHalf(square[l]));
          if (i + W + l < n) store(to + (W + l) * wide, highHalf(square[l]));
        }
      }
    return {numbers};
  }
  void ahead(int64_t column, int64_t k, int64_t end) const {
    for (; k < end; k++) __builtin_prefetch(packed + (k / wide * D + std::min(D - 1, column + k % wide)) * W, 0, 2);
  }
};

/** Panels that a thread takes at a time, 4 at most: as many as let `used` threads end together. */
int64_t groupOf(int64_t panels, int64_t used) {
  int64_t best = 1;
  const auto longest = [&](int64_t group) { return ((panels + group - 1) / group + used - 1) / used * group; };
  for (int64_t group = 2; group <= 4; group++)
    if (longest(group) <= longest(best)) best = group;
  return best;
}

/** x [M, D], to be multiplied with one matrix or several. */
struct Factor {
  const float* x;
  int64_t M, D;
  const Rows rows = Rows(x, M > few ? M : 0, D);
};

/** out [M, n] = x · columns of a matrix, by its panels from `packed` on. */
void multiply(const Factor& factor, const int32_t* packed, int64_t n, float* out) {
  const auto& [x, M, D, rows] = factor;
  if (!M || M > few) return times(out, M, n, rows, PackedColumns{packed, D, n});
  const int64_t panels = panelsOf(n), group = groupOf(panels, ownThreads);
  // A panel comes from memory, which takes as long as the sums of some rows.
  parallel((panels + group - 1) / group, 2 * 8 * D * group * wide, [&](int64_t task) {
    const int64_t column = task * group * wide;
    byRows[M](x, packed + column * D / 2, D, out + column, n, std::min(group * wide, n - column));
  });
}

/** Whether a tensor can be the panels of so many columns. */
bool isPacked(const Call::Input& packed, int64_t columns) {
  return packed.shape.size() == 3 && packed.last() == W && columns >= 0 && packed.shape[0] == panelsOf(columns);
}

}  // namespace

// Packs a matrix [D, O], or with the setting 1 the transpose of one [O, D], whose numbers are all of bf16 -> [panels,
// D, W].
static void pack(Call& call) {
  const auto weight = call.input(0);
  const bool transposed = call.settings[0];
  REQUIRE(weight.shape.size() == 2, "pack: needs a matrix");
  const int64_t D = weight.shape[transposed ? 1 : 0], O = weight.shape[transposed ? 0 : 1], panels = panelsOf(O);
  int32_t* out = call.outputInts(0, {panels, D, W});
  std::atomic<bool> exact{true};
  parallel(panels, 4 * D * wide, [&](int64_t panel) {
    for (int64_t k = 0; k < D; k++)
      for (int64_t l = 0; l < W; l++) {
        const auto bits = [&](int64_t column) -> uint32_t {
          uint32_t word = 0;
          if (column < O) std::memcpy(&word, weight.floats() + (transposed ? column * D + k : k * O + column), 4);
          if (word & 0xffff) exact = false;
          return word;
        };
        out[(panel * D + k) * W + l] = bits(panel * wide + l) >> 16 | (bits(panel * wide + W + l) & ~0xffffu);
      }
  });
  REQUIRE(exact, "pack: the matrix has numbers that bf16 does not hold");
}
static Op<pack> packOp("MuscPack", {"weight: float"}, {"packed: int32"});

// The packed matrix as floats [D, O]. Settings: O.
static void unpack(Call& call) {
  const auto packed = call.input(0);
  const int64_t O = call.settings[0];
  REQUIRE(isPacked(packed, O), "unpack: the panels must be those of so many columns");
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
static Op<unpack> unpackOp("MuscUnpack", {"packed: int32"}, {"weight: float"});

// x [M, D] · columns [from, from + n) of the matrix -> [M, n], or with the setting 1 dy [M, n] · the transpose of those
// columns -> [M, D]. Settings: O, from (of whole panels), n, whether it is the transpose.
static void frozenProduct(Call& call) {
  const auto x = call.input(0), packed = call.input(1);
  const int64_t O = call.settings[0], from = call.settings[1], n = call.settings[2];
  const bool transposed = call.settings[3];
  REQUIRE(isPacked(packed, O) && from >= 0 && n >= 0 && from + n <= O && from % wide == 0,
          "frozen product: the panels must be those of so many columns");
  const int64_t D = packed.shape[1], M = x.rows();
  REQUIRE(x.shape.size() == 2 && x.last() == (transposed ? n : D),
          "frozen product: x must be as wide as the matrix is high, or its transpose");
  float* out = call.output(0, {M, transposed ? D : n});
  const int32_t* first = packed.ints() + from / wide * D * W;
  if (!transposed) return multiply({x.floats(), M, D}, first, n, out);
  times(out, M, D, Rows(x.floats(), M, n), TurnedColumns{first, n, D});
}
static Op<frozenProduct> frozenProductOp("MuscFrozenProduct", {"x: float", "packed: int32"}, {"y: float"});

// x · matrix + (x · first) · second and x · first, for the matrix with an update of low rank: x [M, D], first [D, R],
// second [R, O] -> [M, O], [M, R]. With the setting 1 all three are transposed: x [M, O], first [R, O], second [D, R]
// -> [M, D], [M, R]. Settings: O, whether they are transposed.
static void frozenLora(Call& call) {
  const auto x = call.input(0), packed = call.input(1), first = call.input(2), second = call.input(3);
  const int64_t O = call.settings[0];
  const bool transposed = call.settings[1];
  REQUIRE(isPacked(packed, O), "frozen product: the panels must be those of so many columns");
  const auto& down = transposed ? second : first;
  const auto& up = transposed ? first : second;
  const int64_t D = packed.shape[1], M = x.rows(), R = down.last();
  REQUIRE(x.shape.size() == 2 && x.last() == (transposed ? O : D) && R > 0 && down.is({D, R}) && up.is({R, O}),
          "frozen product: x and the update must fit the matrix");
  float *out = call.output(0, {M, transposed ? D : O}), *through = call.output(1, {M, R});
  if (transposed || !M || M > few) {
    // x · first comes behind the numbers of x, and `second` below the matrix: one sum then gives both products.
    const int64_t K = x.last(), padded = (R + W - 1) / W * W;
    std::unique_ptr<float[]> turned(transposed ? new float[K * padded] : nullptr);
    if (transposed)
      for (int64_t j = 0; j < R; j += W)
        turn(up.floats() + j * K, K, std::min<int64_t>(W, R - j), K, &turned[j], padded, K * padded - j);
    const Rows rows(x.floats(), M, K, K, 1, R, [&](int64_t from, int64_t n, float* numbers) {
      float* to = through + from * R;
      product(numbers, 1, n, transposed ? turned.get() : down.floats(), transposed ? padded : R, to, R, n, R, K, false);
      for (int64_t j = 0; j < R; j++)
        for (int64_t i = 0; i < n; i++) numbers[(K + j) * n + i] = to[i * R + j];
    });
    if (transposed)
      return times(out, M, D, rows, TurnedColumns{packed.ints(), O, D}, turnedColumnsOf(down.floats(), D, R));
    return times(out, M, O, rows, PackedColumns{packed.ints(), D, O}, columnsOf(up.floats(), O, R));
  }
  product(x.floats(), D, 1, down.floats(), R, through, R, M, R, D, false);
  multiply({x.floats(), M, D}, packed.ints(), O, out);
  product(through, R, 1, up.floats(), O, out, O, M, O, R, true);
}
static Op<frozenLora> frozenLoraOp("MuscFrozenLora", {"x: float", "packed: int32", "first: float", "second: float"},
                                   {"y: float", "through: float"});

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

// Parts of a decoding step, where it takes longer to begin an operation than to do it.

namespace {

/** norm(x) for x [M, D], and the norm's weight [D] and eps. */
struct Normed {
  std::unique_ptr<float[]> numbers;
  Normed(const Call::Input& x, const Call::Input& weight, const Call::Input& eps) : numbers(new float[x.size]) {
    normRows(x.floats(), x.rows(), weight.floats(), 1, x.last(), *eps.floats(), numbers.get());
  }
  static bool fits(const Call::Input& x, const Call::Input& weight, const Call::Input& eps) {
    return x.shape.size() == 2 && x.last() > 0 && weight.is({x.last()}) && eps.size == 1;
  }
};

bool isMatrix(const Call::Input& packed, int64_t D, int64_t O) { return isPacked(packed, O) && packed.shape[1] == D; }

}  // namespace

// norm(x) · each of several matrices, [M, O] each. Settings: O of each.
static void normedProducts(Call& call) {
  const auto x = call.input(0), weight = call.input(1), eps = call.input(2);
  const int64_t M = x.rows(), D = x.last(), N = call.settings.size();
  REQUIRE(Normed::fits(x, weight, eps) && call.inputs() == 3 + N, "normed products: x must fit the norm's weight");
  std::vector<Call::Input> matrices;
  for (int64_t i = 0; i < N; i++) {
    matrices.push_back(call.input(3 + i));
    REQUIRE(isMatrix(matrices[i], D, call.settings[i]), "normed products: each matrix must be as high as x is wide");
  }
  const Normed normed(x, weight, eps);
  const Factor factor{normed.numbers.get(), M, D};
  for (int64_t i = 0; i < N; i++)
    multiply(factor, matrices[i].ints(), call.settings[i], call.output(i, {M, call.settings[i]}));
}
static Op<normedProducts> normedProductsOp("MuscNormedProducts",
                                           {"x: float", "weight: float", "eps: float", "packed: N * int32"},
                                           {"y: N * float"});

// act(norm(x) · gate) · (norm(x) · up) -> [M, O]. Settings: O, and 0 for SiLU or 1 for the tanh form of GELU.
static void normedGated(Call& call) {
  const auto x = call.input(0), weight = call.input(1), eps = call.input(2), gate = call.input(3), up = call.input(4);
  const int64_t M = x.rows(), D = x.last(), O = call.settings[0];
  REQUIRE(Normed::fits(x, weight, eps), "normed gates: x must fit the norm's weight");
  REQUIRE(isMatrix(gate, D, O) && isMatrix(up, D, O), "normed gates: the matrices must be as high as x is wide");
  float* y = call.output(0, {M, O});
  const Normed normed(x, weight, eps);
  const Factor factor{normed.numbers.get(), M, D};
  const std::unique_ptr<float[]> other(new float[M * O]);
  multiply(factor, gate.ints(), O, y);
  multiply(factor, up.ints(), O, other.get());
  gateBy(y, other.get(), M * O, call.settings[1], y);
}
static Op<normedGated> normedGatedOp("MuscNormedGated",
                                     {"x: float", "weight: float", "eps: float", "gate: int32", "up: int32"},
                                     {"y: float"});

// residual + x · matrix -> [M, O]. Settings: O.
static void frozenSum(Call& call) {
  const auto x = call.input(0), packed = call.input(1), residual = call.input(2);
  const int64_t M = x.rows(), D = x.last(), O = call.settings[0];
  REQUIRE(x.shape.size() == 2 && isMatrix(packed, D, O) && residual.is({M, O}),
          "frozen sum: x must be as wide as the matrix is high, and the residual as large as their product");
  float* y = call.output(0, {M, O});
  multiply({x.floats(), M, D}, packed.ints(), O, y);
  const float* before = residual.floats();
  sweep(M * O, [&](int64_t at, int n) { store(y + at, load(before + at, n) + load(y + at, n), n); });
}
static Op<frozenSum> frozenSumOp("MuscFrozenSum", {"x: float", "packed: int32", "residual: float"}, {"y: float"});
