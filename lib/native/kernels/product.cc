#ifdef __AMX_BF16__
#include <immintrin.h>

#include <memory>

#include "op.h"
#include "simd.h"

// Products of matrices by the tiles of AMX, which multiply numbers of 8 binary digits (bf16) and add them up in f32,
// many times faster than vectors do in f32. A float is the sum of three bf16, x = x1 + x2 + x3, and of the nine
// products of two such sums the six that matter to an f32 are added (Henry, Tang & Heinecke 2019): what comes out is
// nearer to the true product than what f32 gives. Three are enough where the right matrix is of bf16, as checkpoints
// are.
//
// A sum goes by the same steps whatever the number of rows, columns and threads.

namespace {

using Bf16 = uint16_t;
constexpr int64_t lines = 16, depth = 32;                      // of a tile: rows or columns, and numbers of each
constexpr int64_t tileSize = lines * depth, side = 2 * lines;  // side: of the squares that are made at once
/** Tiles along a sum that are packed at once, and bytes of columns, which stay in the second cache, and of rows. */
constexpr int64_t most = 32, widest = 1 << 20, highest = 8 << 20;

int64_t ceil(int64_t n, int64_t of) { return (n + of - 1) / of; }

/** Rows of a left matrix or columns of a right one, of `length` numbers each: number k of line i is data[i · line + k ·
 * along]. */
struct Lines {
  const float* data;
  int64_t count, length, line, along;  // line or along is 1
};

/** Memory that is not filled with zeros first. */
template <typename T>
using Room = std::unique_ptr<T[], decltype(&std::free)>;
template <typename T>
Room<T> room(int64_t n) {
  void* memory = std::aligned_alloc(64, ceil(n * sizeof(T), 64) * 64);
  if (!memory) throw std::bad_alloc();
  return {static_cast<T*>(memory), &std::free};
}

/** Sixteen pairs of bf16. */
typedef int32_t Pairs __attribute__((vector_size(64)));

/** The parts of 32 floats as pairs, of neighbours or of a[j] with b[j]. */
template <int parts, bool neighbours>
INLINE void split(V a, V b, Pairs (*pairs)[lines], int at) {
  typedef uint32_t U __attribute__((vector_size(64)));
  typedef uint16_t Halves __attribute__((vector_size(64)));
  const Halves upper = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                        33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
#pragma GCC unroll 3
  for (int p = 0; p < parts; p++) {
    const I x = (bitsOf(a) + 0x8000) & ~0xffff, y = (bitsOf(b) + 0x8000) & ~0xffff;  // to the nearest
    if constexpr (neighbours)
      pairs[p][at] = Pairs(_mm512_permutex2var_epi16(__m512i(x), __m512i(upper), __m512i(y)));
    else
      pairs[p][at] = Pairs(U(x) >> 16) | y;
    a -= floatOf(x), b -= floatOf(y);
  }
}

/** Turns the square of sixteen times sixteen pairs. */
INLINE void transpose(Pairs* rows) {
#pragma GCC unroll 4
  for (int step = 1; step < 16; step *= 2) {
    Pairs first, second;  // which of the 32 pairs of two rows
    for (int j = 0; j < 16; j++) {
      first[j] = j & step ? 16 + j - step : j;
      second[j] = j & step ? 16 + j : j + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i & step) continue;
      const Pairs a = rows[i], b = rows[i + step];
      rows[i] = Pairs(_mm512_permutex2var_epi32(__m512i(a), __m512i(first), __m512i(b)));
      rows[i + step] = Pairs(_mm512_permutex2var_epi32(__m512i(a), __m512i(second), __m512i(b)));
    }
  }
}

INLINE V loadFirst(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0, p);
}

/** Asks for what will be read, which the processor does not guess by itself; it may lie outside the matrix. */
template <_mm_hint cache>
INLINE void soon(const float* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), cache);
}

/**
 * Packs the tile of lines from `i` on and numbers [k, end), each part a tile: rows of a left matrix as they are,
 * columns of a right one by pairs of k.
 */
template <int parts, bool right>
void packTile(const Lines& x, int64_t i, int64_t k, int64_t end, Bf16* out) {
  Pairs pairs[parts][lines];
  const int64_t count = std::min(lines, x.count - i);
  for (int j = 0; j < lines; j++) {
    if (x.along == 1) {
      const float* p = x.data + (i + j) * x.line + k;
      const int64_t n = j < count ? end - k : 0;
      if (!right) soon<_MM_HINT_T1>(p + side * x.line), soon<_MM_HINT_T1>(p + side * x.line + 16);
      split<parts, true>(loadFirst(p, n), loadFirst(p + 16, n - 16), pairs, j);
    } else {
      const float* p = x.data + i + (k + 2 * j) * x.along;
      const int64_t n = end - k - 2 * j;
      soon<_MM_HINT_T0>(p + depth * x.along), soon<_MM_HINT_T0>(p + (depth + 1) * x.along);
      split<parts, false>(loadFirst(p, n > 0 ? count : 0), loadFirst(p + x.along, n > 1 ? count : 0), pairs, j);
    }
  }
#pragma GCC unroll 3
  for (int p = 0; p < parts; p++) {
    if ((x.along == 1) == right) transpose(pairs[p]);
    for (int j = 0; j < lines; j++) *reinterpret_cast<Pairs*>(out + p * tileSize + j * depth) = pairs[p][j];
  }
}

/** Packs panels [from, to) of sixteen lines, their tiles from `out` on and `stride` apart. */
template <int parts, bool right>
void pack(const Lines& x, int64_t from, int64_t to, int64_t k, int64_t end, Bf16* out, int64_t stride) {
  const int64_t tiles = ceil(end - k, depth), panels = to - from;
  for (int64_t at = 0; at < tiles * panels; at++) {  // as the matrix lies in memory
    const int64_t panel = x.along == 1 ? at / tiles : at % panels, t = x.along == 1 ? at % tiles : at / panels;
    packTile<parts, right>(x, (from + panel) * lines, k + t * depth, end, out + panel * stride + t * parts * tileSize);
  }
}

/**
 * As `pack` for a right matrix, but only the first parts, if they are all there is; else false. Tiles are `one` numbers
 * apart. A matrix that is used for few rows comes from memory at its full speed only if it is asked for ahead.
 */
bool packExact(const Lines& x, int64_t from, int64_t to, int64_t k, int64_t end, Bf16* out, int64_t stride,
               int64_t one) {
  constexpr int64_t ahead = 4;
  const int64_t tiles = ceil(end - k, depth);
  const auto inexact = [](V a, V b) {
    return _mm512_test_epi32_mask(__m512i(bitsOf(a) | bitsOf(b)), _mm512_set1_epi32(0xffff)) != 0;
  };
  if (x.along == 1) {
    for (int64_t panel = from; panel < to; panel++)
      for (int64_t t = 0; t < tiles; t++) {
        Pairs pairs[1][lines];
        bool none = true;
        for (int j = 0; j < lines; j++) {
          const int64_t i = panel * lines + j, at = k + t * depth, n = i < x.count ? end - at : 0;
          const float* p = x.data + i * x.line + at;
          soon<_MM_HINT_T0>(p + ahead * depth), soon<_MM_HINT_T0>(p + ahead * depth + 16);
          const V a = loadFirst(p, n), b = loadFirst(p + 16, n - 16);
          none &= !inexact(a, b);
          split<1, true>(a, b, pairs, j);
        }
        if (!none) return false;
        transpose(pairs[0]);
        Bf16* tile = out + (panel - from) * stride + t * one;
        for (int j = 0; j < lines; j++) *reinterpret_cast<Pairs*>(tile + j * depth) = pairs[0][j];
      }
    return true;
  }
  for (int64_t pair = 0; pair < tiles * lines; pair++) {
    const int64_t at = k + 2 * pair;
    bool none = true;
    for (int64_t panel = from; panel < to; panel++) {
      const int64_t count = x.count - panel * lines;
      const float* p = x.data + at * x.along + panel * lines;
      soon<_MM_HINT_T0>(p + ahead * x.along), soon<_MM_HINT_T0>(p + (ahead + 1) * x.along);
      const V a = loadFirst(p, at < end ? count : 0), b = loadFirst(p + x.along, at + 1 < end ? count : 0);
      none &= !inexact(a, b);
      Pairs pairs[1][lines];
      split<1, false>(a, b, pairs, 0);
      *reinterpret_cast<Pairs*>(out + (panel - from) * stride + pair / lines * one + pair % lines * depth) =
          pairs[0][0];
    }
    if (!none) return false;
  }
  return true;
}

/** Tells the processor that all tiles are whole, for as long as it lives. */
struct Tiles {
  Tiles() {
    struct {
      uint8_t palette = 1, none[15] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } const shape;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  ~Tiles() { _tile_release(); }
};

/** Two panels of a packed matrix, `next` numbers apart. */
struct Panels {
  const Bf16* tiles;
  int64_t next;
};

/**
 * C [32, 32], or its first 16 rows, (+)= the sum of `count` tiles' products, in the right matrix of which the first
 * `exact` tiles have one part only.
 */
template <int parts, bool tall>
void square(Panels a, Panels b, int64_t exact, int64_t count, float* c, int64_t row, bool add) {
#define LEFT(part)                                            \
  _tile_loadd(4, a.tiles + (part) * tileSize, 64);            \
  if (tall) {                                                 \
    _tile_loadd(5, a.tiles + a.next + (part) * tileSize, 64); \
  }
#define RIGHT(part)                                \
  _tile_loadd(6, b.tiles + (part) * tileSize, 64); \
  _tile_loadd(7, b.tiles + b.next + (part) * tileSize, 64);
#define MULTIPLY             \
  _tile_dpbf16ps(0, 4, 6);   \
  _tile_dpbf16ps(1, 4, 7);   \
  if (tall) {                \
    _tile_dpbf16ps(2, 5, 6); \
    _tile_dpbf16ps(3, 5, 7); \
  }
  const int64_t bytes = row * sizeof(float);
  if (add) {
    _tile_loadd(0, c, bytes);
    _tile_loadd(1, c + 16, bytes);
    if (tall) {
      _tile_loadd(2, c + 16 * row, bytes);
      _tile_loadd(3, c + 16 * row + 16, bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t t = 0; t < count; t++, a.tiles += parts * tileSize, b.tiles += parts * tileSize) {
    if (parts == 1) {
      LEFT(0) RIGHT(0) MULTIPLY
    } else if (t < exact) {
      RIGHT(0) LEFT(1) MULTIPLY LEFT(2) MULTIPLY LEFT(0) MULTIPLY
    } else {
      LEFT(0) RIGHT(2) MULTIPLY RIGHT(1) MULTIPLY LEFT(1) MULTIPLY RIGHT(0) MULTIPLY LEFT(2) MULTIPLY LEFT(0) MULTIPLY
    }
  }
  _tile_stored(0, c, bytes);
  _tile_stored(1, c + 16, bytes);
  if (tall) {
    _tile_stored(2, c + 16 * row, bytes);
    _tile_stored(3, c + 16 * row + 16, bytes);
  }
#undef LEFT
#undef RIGHT
#undef MULTIPLY
}

/** A matrix by rows, or a part of one. */
struct Target {
  float* data;
  int64_t rows, columns, row;  // row: numbers from one row to the next
};

/** As `square`, for the numbers of C from (i, j) on, as many as it has. */
template <int parts>
void squareAt(Panels a, Panels b, int64_t exact, int64_t count, const Target& c, int64_t i, int64_t j, bool add) {
  const int64_t rows = std::min(side, c.rows - i), columns = std::min(side, c.columns - j);
  const auto into = [&](float* to, int64_t row) {
    if (rows > lines)
      square<parts, true>(a, b, exact, count, to, row, add);
    else
      square<parts, false>(a, b, exact, count, to, row, add);
  };
  float* corner = c.data + i * c.row + j;
  if (rows % lines == 0 && columns == side) return into(corner, c.row);
  alignas(64) float whole[side * side];
  for (int64_t r = 0; add && r < rows; r++) std::copy_n(corner + r * c.row, columns, whole + r * side);
  into(whole, side);
  for (int64_t r = 0; r < rows; r++) std::copy_n(whole + r * side, columns, corner + r * c.row);
}

/** x · down and, of that, · up: what an update of low rank adds to a product with x. */
struct LowRank {
  Lines down, up;  // columns of [K, R], of [R, N]
  Target through;  // [M, R]
};

/** What a product is gated by: left · right becomes act(left · columns) · (left · right), silu or tanh-gelu. */
struct Gate {
  Lines columns;
  bool gelu;
};

/** out = left · right, + left · down · up, or gated, by one thread. */
template <int parts>
class Product {
 public:
  Product(const Lines& left, const Lines& right, const Target& out, const LowRank* update, const Gate* gate)
      : left(left),
        right(right),
        out(out),
        update(update),
        gate(gate),
        tiles(ceil(left.length, depth)),
        all(tiles + (update ? ceil(update->up.length, depth) : 0)),
        longest(gate ? all : most),
        wideness(gate ? lines : side) {}

  void run() {
    const Tiles shaped;
    const int64_t rows = ceil(out.rows, side), columns = ceil(out.columns, wideness), deep = std::min(all, longest);
    const int64_t wide = std::clamp<int64_t>(widest / bytes(deep), 1, columns);
    // Packed rows are kept for the next columns if there are any.
    const int64_t high = wide < columns ? std::clamp<int64_t>(highest / bytes(deep), 1, rows) : 1;
    const auto a = room<Bf16>(high * pair(deep)), b = room<Bf16>(wide * pair(deep));
    packDown();
    for (int64_t t = 0; t < all; t += longest) {
      const int64_t count = std::min(longest, all - t);
      int64_t exact = 0;
      for (int64_t top = 0; top < rows; top += high) {
        for (int64_t from = 0; from < columns; from += wide) {
          const int64_t to = std::min(columns, from + wide);
          if (top == 0 || wide < columns) exact = packColumns(from, to, t, count, b.get());
          for (int64_t row = top; row < std::min(rows, top + high); row++) {
            Bf16* packed = &a[(row - top) * pair(count)];
            if (from == 0) packRows(row, t, count, packed);
            for (int64_t column = from; column < to; column++) {
              const Panels x{packed, count * one}, y{&b[(column - from) * pair(count)], count * one};
              if (gate)
                gatedSquare(x, y, exact, row * side, column * lines);
              else
                squareAt<parts>(x, y, exact, count, out, row * side, column * side, t > 0);
            }
          }
        }
      }
    }
  }

 private:
  static constexpr int64_t one = parts * tileSize;
  /** Numbers, and bytes, of two panels of so many tiles. */
  static int64_t pair(int64_t tiles) { return 2 * tiles * one; }
  static int64_t bytes(int64_t tiles) { return pair(tiles) * sizeof(Bf16); }
  int64_t ownTiles(int64_t t, int64_t count) { return std::clamp<int64_t>(tiles - t, 0, count); }

  void packDown() {
    if (!update) return;
    const int64_t pairs = ceil(update->through.columns, side);
    down = room<Bf16>(pairs * pair(tiles));
    pack<parts, true>(update->down, 0, 2 * pairs, 0, left.length, down.get(), tiles * one);
  }

  /** Tiles [t, t + count) of two panels of the left matrix, those of what goes through the update behind its own. */
  void packRows(int64_t row, int64_t t, int64_t count, Bf16* packed) {
    const int64_t own = ownTiles(t, count);
    pack<parts, false>(left, 2 * row, 2 * row + 2, t * depth, std::min(left.length, (t + own) * depth), packed,
                       count * one);
    if (!update) return;
    const Target& h = update->through;
    for (int64_t column = 0; own && column * side < h.columns; column++)
      squareAt<parts>({packed, count * one}, {&down[column * pair(tiles) + t * one], tiles * one}, 0, own, h,
                      row * side, column * side, t > 0);
    const Lines through{h.data, h.rows, h.columns, h.row, 1};
    const int64_t k = (t + own - tiles) * depth, end = std::min(h.columns, k + (count - own) * depth);
    if (own < count) pack<parts, false>(through, 2 * row, 2 * row + 2, k, end, packed + own * one, count * one);
  }

  /** Sixteen columns of the gate lie beside the sixteen that they are for. */
  void gatedSquare(Panels a, Panels b, int64_t exact, int64_t i, int64_t j) {
    alignas(64) float whole[side * side];
    square<parts, true>(a, b, exact, all, whole, side, false);
    const int64_t count = std::min(lines, out.columns - j);
    for (int64_t r = 0; r < std::min(side, out.rows - i); r++) {
      const V g = load(whole + r * side), y = g * gateFactor(g, gate->gelu) * load(whole + r * side + lines);
      store(out.data + (i + r) * out.row + j, y, count);
    }
  }

  bool packGated(int64_t from, int64_t to, Bf16* packed) {
    const int64_t stride = 2 * all * one;
    if (packExact(gate->columns, from, to, 0, right.length, packed, stride, one) &&
        packExact(right, from, to, 0, right.length, packed + all * one, stride, one))
      return true;
    pack<parts, true>(gate->columns, from, to, 0, right.length, packed, stride);
    pack<parts, true>(right, from, to, 0, right.length, packed + all * one, stride);
    return false;
  }

  /** Tiles [t, t + count) of pairs of columns [from, to), and how many of them have one part only. */
  int64_t packColumns(int64_t from, int64_t to, int64_t t, int64_t count, Bf16* packed) {
    if (gate) return packGated(from, to, packed) ? all : 0;
    const int64_t own = ownTiles(t, count), end = std::min(right.length, (t + own) * depth);
    const bool exact = packExact(right, 2 * from, 2 * to, t * depth, end, packed, count * one, one);
    if (!exact) pack<parts, true>(right, 2 * from, 2 * to, t * depth, end, packed, count * one);
    const int64_t k = (t + own - tiles) * depth;
    if (own < count)
      pack<parts, true>(update->up, 2 * from, 2 * to, k, std::min(update->up.length, k + (count - own) * depth),
                        packed + own * one, count * one);
    return exact ? own : 0;
  }

  const Lines left, right;
  const Target out;
  const LowRank* const update;
  const Gate* const gate;
  const int64_t tiles, all;         // of the left matrix, and with those of what goes through the update
  const int64_t longest, wideness;  // tiles that are packed at once, and columns of the result that a square makes
  Room<Bf16> down{nullptr, &std::free};
};

Lines some(const Lines& x, int64_t from, int64_t to) {
  return {x.data + from * x.line, to - from, x.length, x.line, x.along};
}

/**
 * Each thread takes some of the rows or some of the columns, whichever are more, and packs all that it needs: what
 * another core has packed comes slower than from memory.
 */
template <int parts>
void multiply(const Lines& left, const Lines& right, const Target& out, const LowRank* update, const Gate* gate) {
  const bool byRows = out.rows > out.columns;
  const int64_t squares = ceil(byRows ? out.rows : out.columns, side), pieces = std::min(ownThreads, squares);
  parallel(pieces, out.rows * out.columns * left.length / pieces / 16, [&](int64_t piece) {
    const int64_t from = squares * piece / pieces * side;
    const int64_t to = std::min(squares * (piece + 1) / pieces * side, byRows ? out.rows : out.columns);
    if (byRows) {
      const auto rows = [&](const Target& c) { return Target{c.data + from * c.row, to - from, c.columns, c.row}; };
      const LowRank same = update ? LowRank{update->down, update->up, rows(update->through)} : LowRank{};
      return Product<parts>(some(left, from, to), right, rows(out), update ? &same : nullptr, gate).run();
    }
    const Target columns{out.data + from, out.rows, to - from, out.row};
    const Gate gates = gate ? Gate{some(gate->columns, from, to), gate->gelu} : Gate{};
    if (!update) return Product<parts>(left, some(right, from, to), columns, nullptr, gate ? &gates : nullptr).run();
    LowRank part{update->down, some(update->up, from, to), update->through};
    const auto own = piece ? room<float>(part.through.rows * part.through.row) : Room<float>{nullptr, &std::free};
    if (piece) part.through.data = own.get();
    Product<parts>(left, some(right, from, to), columns, &part, nullptr).run();
  });
}

void multiplied(int64_t parts, const Lines& left, const Lines& right, const Target& out,
                const LowRank* update = nullptr, const Gate* gate = nullptr) {
  if (!out.rows || !out.columns) return;
  if (parts == 1)
    multiply<1>(left, right, out, update, gate);
  else
    multiply<3>(left, right, out, update, gate);
}

/** Rows of a matrix, or of what it is when transposed. */
Lines rowsOf(const Call::Input& x, bool transposed) {
  const int64_t columns = x.last(), rows = x.shape[0];
  return transposed ? Lines{x.floats(), columns, rows, 1, columns} : Lines{x.floats(), rows, columns, columns, 1};
}
Lines columnsOf(const Call::Input& x, bool transposed) { return rowsOf(x, !transposed); }

}  // namespace

// a · b, either transposed first: a [M, K], b [K, N] -> [M, N]. Settings: whether a, whether b is transposed; parts of
// a number, 3 or 1.
static void product(Call& call) {
  const auto a = call.input(0), b = call.input(1);
  const Lines left = rowsOf(a, call.settings[0]), right = columnsOf(b, call.settings[1]);
  REQUIRE(left.length == right.length, "product: matrices must agree in what is summed over");
  const Target out{call.output(0, {left.count, right.count}), left.count, right.count, right.count};
  if (!left.length) return void(std::fill_n(out.data, out.rows * out.columns, 0));
  // The columns of a matrix are packed faster as the right one: aᵀ b, if that has more rows than columns, is (bᵀ a)ᵀ.
  // Of a result that no cache holds, such as a large table's gradient, a second one would cost more.
  const bool transposed =
      call.settings[0] && !call.settings[1] && out.rows > out.columns && out.rows * out.columns <= 1 << 20;
  if (!transposed) return multiplied(call.settings[2], left, right, out);
  const auto other = room<float>(out.rows * out.columns);
  multiplied(call.settings[2], rowsOf(b, true), columnsOf(a, false), {other.get(), out.columns, out.rows, out.rows});
  parallel(ceil(out.rows, side), side * out.columns, [&](int64_t piece) {
    for (int64_t j = 0; j < out.columns; j++)
      for (int64_t i = piece * side; i < std::min(out.rows, (piece + 1) * side); i++)
        out.data[i * out.row + j] = other.get()[j * out.rows + i];
  });
}
static Op<product> productOp("MuscProduct", {"a: float", "b: float"}, {"y: float"});

// x · weight + (x · down) · up, and x · down: x [M, K], weight [K, N], down [K, R], up [R, N] -> [M, N], [M, R].
// Settings: whether weight, down and up are transposed first; parts of a number, 3 or 1.
static void lowRankProduct(Call& call) {
  const auto x = call.input(0), weight = call.input(1), down = call.input(2), up = call.input(3);
  const bool transposed = call.settings[0];
  const Lines left = rowsOf(x, false), right = columnsOf(weight, transposed);
  const LowRank columns{columnsOf(down, transposed), columnsOf(up, transposed), {}};
  const int64_t M = left.count, N = right.count, R = columns.down.count;
  REQUIRE(left.length == right.length && left.length == columns.down.length && R == columns.up.length &&
              N == columns.up.count,
          "low-rank product: matrices must agree in what is summed over");
  const Target out{call.output(0, {M, N}), M, N, N}, through{call.output(1, {M, R}), M, R, R};
  const LowRank update{columns.down, columns.up, through};
  multiplied(call.settings[1], left, right, out, &update);
}
static Op<lowRankProduct> lowRankProductOp("MuscLowRankProduct",
                                           {"x: float", "weight: float", "down: float", "up: float"},
                                           {"y: float", "through: float"});

// act(x · gate) · (x · up): x [M, D], gate and up [D, F] -> [M, F]. Settings: 1 for tanh-gelu, 0 for silu; parts of a
// number, 3 or 1.
static void gatedProduct(Call& call) {
  const auto x = call.input(0), gate = call.input(1), up = call.input(2);
  const Lines left = rowsOf(x, false), right = columnsOf(up, false);
  const Gate columns{columnsOf(gate, false), call.settings[0] == 1};
  REQUIRE(left.length == right.length && left.length == columns.columns.length && right.count == columns.columns.count,
          "gated product: matrices must agree in what is summed over");
  const Target out{call.output(0, {left.count, right.count}), left.count, right.count, right.count};
  multiplied(call.settings[1], left, right, out, nullptr, &columns);
}
static Op<gatedProduct> gatedProductOp("MuscGatedProduct", {"x: float", "gate: float", "up: float"}, {"y: float"});
#endif
