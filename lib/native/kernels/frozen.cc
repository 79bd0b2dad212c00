#include "rows.h"

// Products with a matrix [D, O] that is never trained and whose numbers are those of a checkpoint in bf16. It is kept
// in half the memory of floats, packed once: in panels of 2 W columns, packed [panels, D, W]. An int holds the bf16 of
// two columns of a panel, column l in the low half and column W + l in the high half, so that one load and two shifts
// give two vectors. Columns behind the last are zeros.

namespace {

/** Rows whose sums fit into the registers beside two vectors of a panel. */
constexpr int few = accumulators / 2 < 8 ? accumulators / 2 : 8;

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

using FewRows = void (*)(const float*, const int32_t*, int64_t, float*, int64_t, int64_t);
constexpr FewRows byRows[] = {nullptr,      fewRowsOf<1>, fewRowsOf<2>, fewRowsOf<3>, fewRowsOf<4>,
                              fewRowsOf<5>, fewRowsOf<6>, fewRowsOf<7>, fewRowsOf<8>};

/** For `times`: the columns of the matrix. */
struct Widened {
  const int32_t* packed;
  int64_t D;
  void fill(int64_t column, int64_t k, int64_t n, float* panel) const {
    const int32_t* from = vector(column, k);
    for (int64_t i = 0; i < n; i++) {
      const I pairs = load(from + i * W);
      store(panel + i * wide, lowHalf(pairs));
      store(panel + i * wide + W, highHalf(pairs));
    }
  }
  /** One of the vectors that `fill` reads for the columns, another for each k. */
  const int32_t* vector(int64_t column, int64_t k) const { return packed + (column / wide * D + k) * W; }
};

/** The columns of its transpose [O, D]; `k` is a multiple of 2 W. */
struct WidenedTransposed {
  const int32_t* packed;
  int64_t D;
  void fill(int64_t column, int64_t k, int64_t n, float* panel) const {
    for (int64_t i = 0; i < n; i += wide)
      for (int64_t j = 0; j < wide; j += W) {
        const int32_t* from = packed + ((k + i) / wide * D + column + j) * W;
        const int64_t rows = std::min<int64_t>(W, D - column - j);
        float* to = panel + i * wide + j;
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
  }
  const int32_t* vector(int64_t column, int64_t k) const {
    return packed + (k / wide * D + std::min(D - 1, column + k % wide)) * W;
  }
};

/** out [M, N] = rows · a matrix of K rows as above, and below them those of `rest`. */
template <typename Matrix, typename Rest>
void timesFrozen(float* out, int64_t M, int64_t N, const Rows& rows, int64_t K, const Matrix& matrix,
                 const Rest& rest) {
  times(
      out, M, N, rows,
      [&](int64_t column, int64_t k, int64_t n, float* panel) {
        const int64_t inside = std::clamp<int64_t>(K - k, 0, n);
        if (inside) matrix.fill(column, k, inside, panel);
        if (inside < n) rest(column, k + inside - K, n - inside, panel + inside * wide);
      },
      [&](int64_t column, int64_t k, int64_t end) {
        for (; k < std::min(K, end); k++) __builtin_prefetch(matrix.vector(column, k), 0, 2);
      });
}
template <typename Matrix>
void timesFrozen(float* out, int64_t M, int64_t N, const Rows& rows, const Matrix& matrix) {
  timesFrozen(out, M, N, rows, rows.length(), matrix, [](int64_t, int64_t, int64_t, float*) {});
}

/** A panel [n, wide] as it is packed. */
struct Packed {
  const int32_t* pairs;
  __attribute__((always_inline)) void vectors(int64_t k, V& left, V& right) const {
    const I both = load(pairs + k * W);
    left = lowHalf(both), right = highHalf(both);
  }
};

/** Rows from which on it pays to widen a panel before it is multiplied with. */
constexpr int64_t many = 2 * tall;

/** out [M, n] = x [M, D] · columns of a matrix, by its panels from `packed` on. */
void multiply(const float* x, const int32_t* packed, int64_t M, int64_t D, int64_t n, float* out) {
  if (!M || M > many) return timesFrozen(out, M, n, Rows(x, M, D), Widened{packed, D});
  if (M > few) {
    const Rows rows(x, M, D);
    return parallel(panelsOf(n), 2 * M * D * wide, [&](int64_t task) {
      const int64_t column = task * wide;
      const Packed panel{packed + task * D * W};
      if (column + wide <= n) return rows.product(0, M, 0, D, panel, out + column, n, false);
      float partial[many * wide];
      rows.product(0, M, 0, D, panel, partial, wide, false);
      for (int64_t i = 0; i < M; i++) std::copy_n(partial + i * wide, n - column, out + i * n + column);
    });
  }
  constexpr int64_t group = 4;
  // A panel comes from memory, which takes as long as the sums of some rows.
  parallel((panelsOf(n) + group - 1) / group, 2 * 8 * D * group * wide, [&](int64_t task) {
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
  if (!transposed) return multiply(x.floats(), first, M, D, n, out);
  timesFrozen(out, M, D, Rows(x.floats(), M, n), WidenedTransposed{first, D});
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
  if (transposed || !M || M > many) {
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
      return timesFrozen(out, M, D, rows, K, WidenedTransposed{packed.ints(), D}, turnedColumnsOf(down.floats(), D, R));
    return timesFrozen(out, M, O, rows, K, Widened{packed.ints(), D}, columnsOf(up.floats(), O));
  }
  product(x.floats(), D, 1, down.floats(), R, through, R, M, R, D, false);
  multiply(x.floats(), packed.ints(), M, D, O, out);
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
