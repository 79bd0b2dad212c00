#include "elementwise.h"
#include "rows.h"

// Products with a matrix [D, O] that is never trained and whose numbers are those of a checkpoint in bf16. It is kept
// in half the memory of floats, packed once: in panels of 2 W columns, packed [panels, ceil(D / 2), 2 W]. An int holds
// a pair of neighbours in a column, the first in its lower half, so that one load and two shifts give vectors of both,
// and an instruction for bf16 takes them as they are. Numbers behind the last row or column are zeros.
//
// With the setting `bf16` the other factor is rounded to bf16 as well, where the processor multiplies such pairs; sums
// stay in f32. Elsewhere it changes nothing.

namespace {

/** Rows for which the matrix is read from memory in several streams, with all sums in the registers. */
constexpr int few = 4;

INLINE V lowHalf(I pairs) { return floatOf(pairs << 16); }
INLINE V highHalf(I pairs) { return floatOf(pairs & ~0xffff); }

inline int64_t pairsIn(int64_t length) { return (length + 1) / 2; }

/** out[MR, up to NP · 2 W] = x [MR, D] · NP panels; or x [MR, ceil(D / 2)] where it holds pairs. */
template <bool pairs, int MR, int NP>
void fewRows(const float* x, const int32_t* packed, int64_t D, float* out, int64_t ldo, int64_t columns) {
  const int64_t depth = pairsIn(D), line = pairs ? depth : D;
  V sums[MR][NP][2] = {};
  const auto add = [&](int64_t k, auto both) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++)
#pragma GCC unroll 2
      for (int j = 0; j < 2; j++) {
        const I two = load(packed + (p * depth + k) * wide + j * W);
        const V first = lowHalf(two), second = highHalf(two);
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) {
          const float* from = x + i * line + (pairs ? k : 2 * k);
          if constexpr (pairs) {
            addProduct(sums[i][p][j], *from, two);
          } else {
            addProduct(sums[i][p][j], from[0], first);
            if (both) addProduct(sums[i][p][j], from[1], second);
          }
        }
      }
  };
  for (int64_t k = 0; k < D / 2; k++) add(k, std::true_type());
  if (D % 2) add(D / 2, std::false_type());
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < 2 * NP; j++) {
      const int64_t left = columns - j * W;
      if (left > 0) store(out + i * ldo + j * W, sums[i][j / 2][j % 2], std::min<int64_t>(W, left));
    }
}

/** As many panels at once as registers allow, then what is left. */
template <bool pairs, int MR, int NP = std::max(1, std::min(4, std::min(8, accumulators / 2) / MR))>
void fewRowsOf(const float* x, const int32_t* packed, int64_t D, float* out, int64_t ldo, int64_t columns) {
  int64_t at = 0;
  for (; columns - at > (NP - 1) * wide; at += NP * wide)
    fewRows<pairs, MR, NP>(x, packed + at * pairsIn(D), D, out + at, ldo, columns - at);
  if constexpr (NP > 1)
    if (at < columns) fewRowsOf<pairs, MR, NP - 1>(x, packed + at * pairsIn(D), D, out + at, ldo, columns - at);
}

using FewRows = void (*)(const float*, const int32_t*, int64_t, float*, int64_t, int64_t);
template <bool pairs>
constexpr FewRows byRows[few + 1] = {nullptr, fewRowsOf<pairs, 1>, fewRowsOf<pairs, 2>, fewRowsOf<pairs, 3>,
                                     fewRowsOf<pairs, 4>};

/**
 * A panel as it is packed; `next`, of the same size, is brought into the cache meanwhile. Each group of rows fetches
 * its share of it, `rate` / 256 lines of memory for each that it reads: if the first group fetched all, it would wait
 * for the memory, and the memory for the others.
 */
template <bool pairs>
struct Packed {
  const int32_t *numbers, *next;
  int64_t rate = 256;
  static constexpr int steps = pairs ? 1 : 2;
  Packed sharedBy(int64_t group, int64_t groups, int64_t n) const {
    const int64_t lines = pairs ? 2 * n : n;
    return {numbers, next + lines * group / groups * W, 256 / groups};
  }
  __attribute__((always_inline)) void fetch(int64_t line) const {
    __builtin_prefetch(next + (line * rate >> 8) * W, 0, 2);
  }
  __attribute__((always_inline)) auto columns(int64_t k, int step) const {
    const int32_t* at = numbers + k * (pairs ? wide : W);
    const I left = load(at), right = load(at + W);
    if constexpr (pairs) {
      fetch(2 * k), fetch(2 * k + 1);
      return Columns<I>{left, right};
    } else {
      fetch(k + step);
      return step ? Columns<V>{highHalf(left), highHalf(right)} : Columns<V>{lowHalf(left), lowHalf(right)};
    }
  }
};

/** The columns of a matrix, for `times`; with `pairs`, a step of a sum is a pair. */
template <bool pairs>
struct PackedColumns {
  const int32_t* packed;
  int64_t depth, rows;
  PackedColumns(const int32_t* packed, int64_t D) : packed(packed), depth(pairs ? pairsIn(D) : D), rows(pairsIn(D)) {}
  Packed<pairs> panel(int64_t column, int64_t k, int64_t, float*, int64_t next) const {
    const int64_t row = pairs ? k : k / 2;
    return {packed + column * rows + row * wide, packed + next * rows + row * wide};
  }
  void ahead(int64_t, int64_t, int64_t) const {}
};

/** Lanes of both in turn: the first of `even`, the first of `odd`, the second of `even`, … */
INLINE Columns<I> interleaved(I even, I odd) {
  I left, right;
  for (int j = 0; j < W; j++) left[j] = j / 2 + j % 2 * W, right[j] = left[j] + W / 2;
  return {__builtin_shuffle(even, odd, left), __builtin_shuffle(even, odd, right)};
}

/** The columns of its transpose [O, D], for `times`; with `pairs`, a step of a sum is a pair of its rows. */
template <bool pairs>
struct TurnedColumns {
  const int32_t* packed;
  int64_t O, D, depth;
  TurnedColumns(const int32_t* packed, int64_t O, int64_t D)
      : packed(packed), O(O), D(D), depth(pairs ? pairsIn(O) : O) {}
  auto panel(int64_t column, int64_t k, int64_t n, float* numbers, int64_t) const {
    constexpr int64_t step = pairs ? 2 : 1;
    for (int64_t i = step * k; i < std::min(O, step * (k + n)); i += W) {
      // Pairs [column, column + 2 W) of D, for W rows of the transpose.
      const int64_t rows = pairsIn(D);
      const int32_t* from = packed + (i / wide * rows + column / 2) * wide + i % wide;
      I square[W];
#pragma GCC unroll 16
      for (int l = 0; l < W; l++) square[l] = l < rows - column / 2 ? load(from + l * wide) : I{};
      transpose(square);
      float* to = numbers + (i / step - k) * wide;
#pragma GCC unroll 16
      for (int l = 0; l < W; l += step) {
        // A row of the transpose, in the upper half of each number, and in a pair the one before in the lower half.
        const I before = pairs ? square[l] : I{}, row = square[l + step - 1];
        const auto [left, right] =
            interleaved((before & 0xffff) | row << 16, (before >> 16 & 0xffff) | (row & ~0xffff));
        float* line = to + l / step * wide;
        if ((i + l) / step - k < n) store(line, floatOf(left)), store(line + W, floatOf(right));
      }
    }
    if constexpr (pairs)
      return PairPanel{reinterpret_cast<const int32_t*>(numbers)};
    else
      return Panel{numbers};
  }
  void ahead(int64_t column, int64_t k, int64_t end) const {
    constexpr int64_t step = pairs ? 2 : 1;
    const int64_t rows = pairsIn(D);
    // A line of memory holds one pair of D for W rows of the transpose.
    for (k *= step; k < step * end; k++)
      __builtin_prefetch(packed + (k / wide * rows + std::min(rows - 1, column / 2 + k % W)) * wide + k % wide / W * W,
                         0, 2);
  }
};

/** x [M, K] as pairs of bf16 [M, ceil(K / 2)]. */
std::unique_ptr<float[]> asPairs(const float* x, int64_t M, int64_t K) {
  const int64_t line = pairsIn(K);
  std::unique_ptr<float[]> pairs(new float[M * line]);
  parallelRows(M, K, [&](int64_t i) {
    for (int64_t k = 0; k < K; k += wide) {
      const float* from = x + i * K + k;
      const auto count = [&](int64_t at) { return static_cast<int>(std::clamp<int64_t>(K - k - at, 0, W)); };
      const I two = pairsOf(load(from, count(0)), load(from + W, count(W)));
      store(&pairs[i * line + k / 2], floatOf(two), std::min<int64_t>(W, line - k / 2));
    }
  });
  return pairs;
}

/** x [M, D], to be multiplied with one matrix or several, and rounded for that where `bf16`. */
struct Factor {
  const int64_t M, D;
  const std::unique_ptr<float[]> pairs;
  const float* const x;
  const Rows rows;
  Factor(const float* from, int64_t M, int64_t D, bool bf16)
      : M(M),
        D(D),
        pairs(multipliesPairs && bf16 ? asPairs(from, M, D) : nullptr),
        x(pairs ? pairs.get() : from),
        rows(x, M > few ? M : 0, pairs ? pairsIn(D) : D) {}
};

/** out [M, n] = x · columns of a matrix, by its panels from `packed` on. */
template <bool pairs>
void multiplyBy(const Factor& factor, const int32_t* packed, int64_t n, float* out) {
  const int64_t M = factor.M, D = factor.D;
  if (!M || M > few) return times(out, M, n, factor.rows, PackedColumns<pairs>(packed, D));
  const int64_t panels = panelsOf(n), group = groupOf(panels, ownThreads);
  // A panel comes from memory, which takes as long as the sums of some rows.
  parallel((panels + group - 1) / group, 2 * 8 * D * group * wide, [&](int64_t task) {
    const int64_t column = task * group * wide;
    byRows<pairs>[M](factor.x, packed + column* pairsIn(D), D, out + column, n, std::min(group* wide, n - column));
  });
}

void multiply(const Factor& factor, const int32_t* packed, int64_t n, float* out) {
  return factor.pairs ? multiplyBy<multipliesPairs>(factor, packed, n, out) : multiplyBy<false>(factor, packed, n, out);
}

/** Floats in pairs, for `times`: those of another part, rounded to bf16. */
template <typename Part>
struct Rounded {
  Part part;
  int64_t depth = pairsIn(part.depth);
  PairPanel panel(int64_t column, int64_t k, int64_t n, float* numbers, int64_t) const {
    constexpr int64_t some = 16;
    alignas(64) float floats[2 * some * wide];
    for (int64_t i = 0; i < n; i += some) {
      const int64_t count = std::min(2 * std::min(some, n - i), part.depth - 2 * (k + i));
      const auto [from] = part.panel(column, 2 * (k + i), count, floats, column);
      for (int64_t j = 0; j < count; j += 2)
        for (int64_t l = 0; l < wide; l += W) {
          const V first = load(from + j * wide + l), second = j + 1 < count ? load(from + (j + 1) * wide + l) : V{};
          store(numbers + (i + j / 2) * wide + l, floatOf(bf16Of(first) | bf16Of(second) << 16));
        }
    }
    return {reinterpret_cast<const int32_t*>(numbers)};
  }
  void ahead(int64_t, int64_t, int64_t) const {}
};

/** Whether a tensor can be the panels of a matrix [D, O]. */
bool isPacked(const Call::Input& packed, int64_t D, int64_t O) {
  return D >= 0 && O >= 0 && packed.is({panelsOf(O), pairsIn(D), wide});
}

}  // namespace

// Packs a matrix [D, O], or with the setting 1 the transpose of one [O, D], whose numbers are all of bf16 -> [panels,
// ceil(D / 2), 2 W].
static void pack(Call& call) {
  const auto weight = call.input(0);
  const bool transposed = call.settings[0];
  REQUIRE(weight.shape.size() == 2, "pack: needs a matrix");
  const int64_t D = weight.shape[transposed ? 1 : 0], O = weight.shape[transposed ? 0 : 1], panels = panelsOf(O);
  int32_t* out = call.outputInts(0, {panels, pairsIn(D), wide});
  std::atomic<bool> exact{true};
  parallel(panels, 4 * D * wide, [&](int64_t panel) {
    for (int64_t k = 0; k < D; k += 2)
      for (int64_t l = 0; l < wide; l++) {
        const auto bits = [&](int64_t row, int64_t column) -> uint32_t {
          uint32_t word = 0;
          if (row < D && column < O)
            std::memcpy(&word, weight.floats() + (transposed ? column * D + row : row * O + column), 4);
          if (word & 0xffff) exact = false;
          return word;
        };
        const int64_t column = panel * wide + l;
        out[(panel * pairsIn(D) + k / 2) * wide + l] = bits(k, column) >> 16 | (bits(k + 1, column) & ~0xffffu);
      }
  });
  REQUIRE(exact, "pack: the matrix has numbers that bf16 does not hold");
}
static Op<pack> packOp("MuscPack", {"weight: float"}, {"packed: int32"});

// The packed matrix as floats [D, O]. Settings: D, O.
static void unpack(Call& call) {
  const auto packed = call.input(0);
  const int64_t D = call.settings[0], O = call.settings[1];
  REQUIRE(isPacked(packed, D, O), "unpack: the panels must be those of a matrix of this size");
  const int64_t panels = panelsOf(O), pairs = pairsIn(D);
  float* out = call.output(0, {D, O});
  constexpr int64_t some = 8;
  parallel((pairs + some - 1) / some, 4 * some * O, [&](int64_t piece) {
    for (int64_t k = piece * some; k < std::min(pairs, (piece + 1) * some); k++)
      for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t l = 0; l < wide; l += W) {
          const int64_t column = panel * wide + l, left = std::min<int64_t>(W, O - column);
          if (left <= 0) break;
          const I two = load(packed.ints() + (panel * pairs + k) * wide + l);
          store(out + 2 * k * O + column, lowHalf(two), left);
          if (2 * k + 1 < D) store(out + (2 * k + 1) * O + column, highHalf(two), left);
        }
  });
}
static Op<unpack> unpackOp("MuscUnpack", {"packed: int32"}, {"weight: float"});

// x [M, D] · columns [from, from + n) of the matrix -> [M, n], or with the setting 1 dy [M, n] · the transpose of those
// columns -> [M, D]. Settings: D, O, from (of whole panels), n, whether it is the transpose, bf16.
static void frozenProduct(Call& call) {
  const auto x = call.input(0), packed = call.input(1);
  const int64_t D = call.settings[0], O = call.settings[1], from = call.settings[2], n = call.settings[3];
  const bool transposed = call.settings[4], bf16 = call.settings[5];
  REQUIRE(isPacked(packed, D, O) && from >= 0 && n >= 0 && from + n <= O && from % wide == 0,
          "frozen product: the panels must be those of a matrix of this size");
  const int64_t M = x.rows();
  REQUIRE(x.shape.size() == 2 && x.last() == (transposed ? n : D),
          "frozen product: x must be as wide as the matrix is high, or its transpose");
  float* out = call.output(0, {M, transposed ? D : n});
  const int32_t* first = packed.ints() + from * pairsIn(D);
  if (!transposed) return multiply({x.floats(), M, D, bf16}, first, n, out);
  if (multipliesPairs && bf16) {
    const auto pairs = asPairs(x.floats(), M, n);
    return times(out, M, D, Rows(pairs.get(), M, pairsIn(n)), TurnedColumns<multipliesPairs>(first, n, D));
  }
  times(out, M, D, Rows(x.floats(), M, n), TurnedColumns<false>(first, n, D));
}
static Op<frozenProduct> frozenProductOp("MuscFrozenProduct", {"x: float", "packed: int32"}, {"y: float"});

namespace {

/** An update of low rank: first [K, R], second [R, N], or with `transposed` the transpose of each. */
struct Update {
  const float *first, *second;
  int64_t R;
  bool transposed;
};

/** out [M, N] = x [M, K] · a matrix, given as a part, + (x · first) · second; and through [M, R] = x · first. */
template <bool pairs, typename Matrix>
void timesWith(float* out, float* through, const float* x, int64_t M, int64_t K, int64_t N, const Matrix& matrix,
               const Update& update) {
  const auto& [first, second, R, transposed] = update;
  const int64_t padded = (R + W - 1) / W * W, depth = pairs ? pairsIn(K) : K, more = pairs ? pairsIn(R) : R;
  std::unique_ptr<float[]> turned(transposed ? new float[K * padded] : nullptr);
  if (transposed)
    for (int64_t j = 0; j < R; j += W)
      turn(first + j * K, K, std::min<int64_t>(W, R - j), K, &turned[j], padded, K * padded - j);
  const float* const narrow = transposed ? turned.get() : first;
  const int64_t line = transposed ? padded : R;
  const std::unique_ptr<float[]> rounded = pairs ? asPairs(x, M, K) : nullptr;
  // x · first comes behind the numbers of x, and `second` below the matrix: one sum then gives both products.
  const Rows rows(pairs ? rounded.get() : x, M, depth, depth, 1, more, [&](int64_t from, int64_t n, float* numbers) {
    float* y = through + from * R;
    if constexpr (pairs)
      product(x + from * K, K, 1, narrow, line, y, R, n, R, K, false);
    else
      product(numbers, 1, n, narrow, line, y, R, n, R, K, false);
    const std::unique_ptr<float[]> halves = pairs ? asPairs(y, n, R) : nullptr;
    for (int64_t j = 0; j < more; j++)
      for (int64_t i = 0; i < n; i++) numbers[(depth + j) * n + i] = (pairs ? halves.get() : y)[i * more + j];
  });
  const auto with = [&](const auto& part) {
    if constexpr (pairs)
      times(out, M, N, rows, matrix, Rounded<std::decay_t<decltype(part)>>{part});
    else
      times(out, M, N, rows, matrix, part);
  };
  transposed ? with(turnedColumnsOf(second, N, R)) : with(columnsOf(second, N, R));
}

}  // namespace

// x · matrix + (x · first) · second and x · first, for the matrix with an update of low rank: x [M, D], first [D, R],
// second [R, O] -> [M, O], [M, R]. With the setting 1 all three are transposed: x [M, O], first [R, O], second [D, R]
// -> [M, D], [M, R]. Settings: D, O, whether they are transposed, bf16.
static void frozenLora(Call& call) {
  const auto x = call.input(0), packed = call.input(1), first = call.input(2), second = call.input(3);
  const int64_t D = call.settings[0], O = call.settings[1];
  const bool transposed = call.settings[2], bf16 = call.settings[3];
  REQUIRE(isPacked(packed, D, O), "frozen product: the panels must be those of a matrix of this size");
  const auto& down = transposed ? second : first;
  const auto& up = transposed ? first : second;
  const int64_t M = x.rows(), R = down.last();
  REQUIRE(x.shape.size() == 2 && x.last() == (transposed ? O : D) && R > 0 && down.is({D, R}) && up.is({R, O}),
          "frozen product: x and the update must fit the matrix");
  float *out = call.output(0, {M, transposed ? D : O}), *through = call.output(1, {M, R});
  const bool pairs = multipliesPairs && bf16;
  if (!transposed && M && M <= few && !pairs) {
    product(x.floats(), D, 1, down.floats(), R, through, R, M, R, D, false);
    multiply({x.floats(), M, D, false}, packed.ints(), O, out);
    return product(through, R, 1, up.floats(), O, out, O, M, O, R, true);
  }
  const Update update{first.floats(), second.floats(), R, transposed};
  const auto both = [&](auto pairs) {
    if (transposed) {
      const TurnedColumns<pairs.value> matrix(packed.ints(), O, D);
      timesWith<pairs.value>(out, through, x.floats(), M, O, D, matrix, update);
    } else {
      const PackedColumns<pairs.value> matrix(packed.ints(), D);
      timesWith<pairs.value>(out, through, x.floats(), M, D, O, matrix, update);
    }
  };
  pairs ? both(std::bool_constant<multipliesPairs>()) : both(std::false_type());
}
static Op<frozenLora> frozenLoraOp("MuscFrozenLora", {"x: float", "packed: int32", "first: float", "second: float"},
                                   {"y: float", "through: float"});

// Columns of the matrix as rows, by number: ids [M] -> [M, D]. Settings: D, O.
static void frozenRows(Call& call) {
  const auto packed = call.input(0), ids = call.input(1);
  const int64_t D = call.settings[0], O = call.settings[1];
  REQUIRE(isPacked(packed, D, O), "frozen rows: the panels must be those of a matrix of this size");
  const int64_t M = ids.size;
  for (int64_t i = 0; i < M; i++)
    REQUIRE(ids.ints()[i] >= 0 && ids.ints()[i] < O, "frozen rows: an id lies outside of the table");
  float* out = call.output(0, {M, D});
  constexpr int64_t lines = 16;
  parallel((M + lines - 1) / lines, 4 * lines * D, [&](int64_t piece) {
    for (int64_t i = piece * lines; i < std::min(M, (piece + 1) * lines); i++) {
      const int64_t id = ids.ints()[i];
      const int32_t* from = packed.ints() + id / wide * pairsIn(D) * wide + id % wide;
      for (int64_t k = 0; k < D; k++) {
        const uint32_t pair = from[k / 2 * wide], word = k % 2 ? pair & ~0xffffu : pair << 16;
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

}  // namespace

// norm(x) · each of several matrices, [M, O] each. Settings: O of each, then bf16.
static void normedProducts(Call& call) {
  const auto x = call.input(0), weight = call.input(1), eps = call.input(2);
  const int64_t M = x.rows(), D = x.last(), N = call.settings.size() - 1;
  REQUIRE(Normed::fits(x, weight, eps) && call.inputs() == 3 + N, "normed products: x must fit the norm's weight");
  std::vector<Call::Input> matrices;
  for (int64_t i = 0; i < N; i++) {
    matrices.push_back(call.input(3 + i));
    REQUIRE(isPacked(matrices[i], D, call.settings[i]), "normed products: each matrix must be as high as x is wide");
  }
  const Normed normed(x, weight, eps);
  const Factor factor(normed.numbers.get(), M, D, call.settings[N]);
  for (int64_t i = 0; i < N; i++)
    multiply(factor, matrices[i].ints(), call.settings[i], call.output(i, {M, call.settings[i]}));
}
static Op<normedProducts> normedProductsOp("MuscNormedProducts",
                                           {"x: float", "weight: float", "eps: float", "packed: N * int32"},
                                           {"y: N * float"});

// act(norm(x) · gate) · (norm(x) · up) -> [M, O]. Settings: O, 0 for SiLU or 1 for the tanh form of GELU, bf16.
static void normedGated(Call& call) {
  const auto x = call.input(0), weight = call.input(1), eps = call.input(2), gate = call.input(3), up = call.input(4);
  const int64_t M = x.rows(), D = x.last(), O = call.settings[0];
  REQUIRE(Normed::fits(x, weight, eps), "normed gates: x must fit the norm's weight");
  REQUIRE(isPacked(gate, D, O) && isPacked(up, D, O), "normed gates: the matrices must be as high as x is wide");
  float* y = call.output(0, {M, O});
  const Normed normed(x, weight, eps);
  const Factor factor(normed.numbers.get(), M, D, call.settings[2]);
  const std::unique_ptr<float[]> other(new float[M * O]);
  multiply(factor, gate.ints(), O, y);
  multiply(factor, up.ints(), O, other.get());
  gateBy(y, other.get(), M * O, call.settings[1], y);
}
static Op<normedGated> normedGatedOp("MuscNormedGated",
                                     {"x: float", "weight: float", "eps: float", "gate: int32", "up: int32"},
                                     {"y: float"});

// residual + x · matrix -> [M, O]. Settings: O, bf16.
static void frozenSum(Call& call) {
  const auto x = call.input(0), packed = call.input(1), residual = call.input(2);
  const int64_t M = x.rows(), D = x.last(), O = call.settings[0];
  REQUIRE(x.shape.size() == 2 && isPacked(packed, D, O) && residual.is({M, O}),
          "frozen sum: x must be as wide as the matrix is high, and the residual as large as their product");
  float* y = call.output(0, {M, O});
  multiply({x.floats(), M, D, call.settings[1] != 0}, packed.ints(), O, y);
  const float* before = residual.floats();
  sweep(M * O, [&](int64_t at, int n) { store(y + at, load(before + at, n) + load(y + at, n), n); });
}
static Op<frozenSum> frozenSumOp("MuscFrozenSum", {"x: float", "packed: int32", "residual: float"}, {"y: float"});
