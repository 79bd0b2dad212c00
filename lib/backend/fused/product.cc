#ifdef __AMX_BF16__
#include <immintrin.h>
#include <memory>
#include "op.h"
#include "simd.h"

// Products of matrices by the tiles of AMX, which multiply numbers of 8 binary digits (bf16) and add them up in f32, many
// times faster than vectors do in f32. A float is the sum of three bf16, x = x1 + x2 + x3, and of the nine products of two
// such sums the six that matter to an f32 are added (Henry, Tang & Heinecke 2019): what comes out is nearer to the true
// product than what f32 gives. Three are enough where the right matrix is of bf16, as checkpoints are.
//
// A sum goes by the same steps whatever the number of rows, columns and threads.

namespace {

using Bf16 = uint16_t;
constexpr int64_t lines = 16, depth = 32;  // of a tile: rows or columns, and numbers of each
constexpr int64_t tileSize = lines * depth;
/** Tiles along a sum that are packed at once, and bytes of the right matrix: both stay in the second cache. */
constexpr int64_t longest = 32, widest = 1 << 20;
/** Bytes of the left matrix that are packed at once. */
constexpr int64_t highest = 8 << 20;

int64_t ceil(int64_t n, int64_t of) { return (n + of - 1) / of; }

/** Rows of a left matrix or columns of a right one, of `length` numbers each: number k of line i is data[i · line + k · along]. */
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
  constexpr Halves upper = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                            33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
#pragma GCC unroll 3
  for (int p = 0; p < parts; p++) {
    const I x = (bitsOf(a) + 0x8000) & ~0xffff, y = (bitsOf(b) + 0x8000) & ~0xffff;  // to the nearest
    if constexpr (neighbours) pairs[p][at] = Pairs(__builtin_shuffle(Halves(x), Halves(y), upper));
    else pairs[p][at] = Pairs(U(x) >> 16) | y;
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
      rows[i] = __builtin_shuffle(a, b, first);
      rows[i + step] = __builtin_shuffle(a, b, second);
    }
  }
}

INLINE V loadFirst(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0, p);
}

/**
 * Packs the tile of lines from `i` on and numbers [k, end), each part a tile: rows of a left matrix as they are, columns of a right
 * one by pairs of k.
 */
template <int parts, bool right>
void packTile(const Lines& x, int64_t i, int64_t k, int64_t end, Bf16* out) {
  Pairs pairs[parts][lines];
  const int64_t count = std::min(lines, x.count - i);
  for (int j = 0; j < lines; j++) {
    if (x.along == 1) {
      const float* p = x.data + (i + j) * x.line + k;
      const int64_t n = j < count ? end - k : 0;
      split<parts, true>(loadFirst(p, n), loadFirst(p + 16, n - 16), pairs, j);
    } else {
      const float* p = x.data + i + (k + 2 * j) * x.along;
      const int64_t n = end - k - 2 * j;
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
 * As `pack` for a right matrix, but only the first parts, if they are all there is; else false. Tiles are `one` numbers apart. A
 * matrix that is used for few rows comes from memory at its full speed only if it is asked for ahead.
 */
bool packExact(const Lines& x, int64_t from, int64_t to, int64_t k, int64_t end, Bf16* out, int64_t stride, int64_t one) {
  constexpr int64_t ahead = 4;
  const int64_t tiles = ceil(end - k, depth);
  const auto inexact = [](V a, V b) {
    return _mm512_test_epi32_mask(__m512i(bitsOf(a) | bitsOf(b)), _mm512_set1_epi32(0xffff)) != 0;
  };
  const auto next = [](const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); };
  if (x.along == 1) {
    for (int64_t panel = from; panel < to; panel++)
      for (int64_t t = 0; t < tiles; t++) {
        Pairs pairs[1][lines];
        bool none = true;
        for (int j = 0; j < lines; j++) {
          const int64_t i = panel * lines + j, at = k + t * depth, n = i < x.count ? end - at : 0;
          const float* p = x.data + i * x.line + at;
          next(p + ahead * depth), next(p + ahead * depth + 16);
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
      next(p + ahead * x.along), next(p + (ahead + 1) * x.along);
      const V a = loadFirst(p, at < end ? count : 0), b = loadFirst(p + x.along, at + 1 < end ? count : 0);
      none &= !inexact(a, b);
      Pairs pairs[1][lines];
      split<1, false>(a, b, pairs, 0);
      *reinterpret_cast<Pairs*>(out + (panel - from) * stride + pair / lines * one + pair % lines * depth) = pairs[0][0];
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
 * C [32, 32], or its first 16 rows, (+)= the sum of `count` tiles' products, in the right matrix of which the first `exact` tiles
 * have one part only.
 */
template <int parts, bool tall>
void square(Panels a, Panels b, int64_t exact, int64_t count, float* c, int64_t row, bool add) {
#define LEFT(part)                                                                       \
  _tile_loadd(4, a.tiles + (part) * tileSize, 64);                                       \
  if (tall) { _tile_loadd(5, a.tiles + a.next + (part) * tileSize, 64); }
#define RIGHT(part)                                                                      \
  _tile_loadd(6, b.tiles + (part) * tileSize, 64);                                       \
  _tile_loadd(7, b.tiles + b.next + (part) * tileSize, 64);
#define MULTIPLY                                                                         \
  _tile_dpbf16ps(0, 4, 6);                                                               \
  _tile_dpbf16ps(1, 4, 7);                                                               \
  if (tall) {                                                                            \
    _tile_dpbf16ps(2, 5, 6);                                                             \
    _tile_dpbf16ps(3, 5, 7);                                                             \
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
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  }
  for (int64_t t = 0; t < count; t++, a.tiles += parts * tileSize, b.tiles += parts * tileSize) {
    if (parts == 1) {
      LEFT(0) RIGHT(0) MULTIPLY
    } else if (t < exact) {
      RIGHT(0) LEFT(1) MULTIPLY
      LEFT(2) MULTIPLY
      LEFT(0) MULTIPLY
    } else {
      LEFT(0) RIGHT(2) MULTIPLY
      RIGHT(1) MULTIPLY
      LEFT(1) MULTIPLY
      RIGHT(0) MULTIPLY
      LEFT(2) MULTIPLY
      LEFT(0) MULTIPLY
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

/** A matrix by rows. */
struct Target {
  float* data;
  int64_t rows, columns;
};

/** As `square`, for the numbers of C from (i, j) on, as many as it has. */
template <int parts>
void squareAt(Panels a, Panels b, int64_t exact, int64_t count, const Target& c, int64_t i, int64_t j, bool add) {
  const int64_t rows = std::min(2 * lines, c.rows - i), columns = std::min(2 * lines, c.columns - j);
  const auto into = [&](float* to, int64_t row) {
    if (rows > lines) square<parts, true>(a, b, exact, count, to, row, add);
    else square<parts, false>(a, b, exact, count, to, row, add);
  };
  float* corner = c.data + i * c.columns + j;
  if (rows % lines == 0 && columns == 2 * lines) return into(corner, c.columns);
  alignas(64) float whole[2 * lines * 2 * lines];
  for (int64_t r = 0; add && r < rows; r++) std::copy_n(corner + r * c.columns, columns, whole + r * 2 * lines);
  into(whole, 2 * lines);
  for (int64_t r = 0; r < rows; r++) std::copy_n(whole + r * 2 * lines, columns, corner + r * c.columns);
}

/** x · down and, of that, · up: what an update of low rank adds to a product with x. */
struct LowRank {
  Lines down, up;  // columns of [K, R], of [R, N]
  Target through;  // [M, R]
};

/** out = left · right, + left · down · up. */
template <int parts>
class Product {
 public:
  Product(const Lines& left, const Lines& right, const Target& out, const LowRank* update)
      : left(left), right(right), out(out), update(update), tiles(ceil(left.length, depth)),
        all(tiles + (update ? ceil(update->up.length, depth) : 0)) {}

  void run() {
    const int64_t pairs = ceil(out.columns, 2 * lines), fit = std::max<int64_t>(1, widest / (4 * one * std::min(all, longest)));
    const int64_t blocks = ceil(ceil(pairs, fit), threads()) * threads();
    const int64_t most = std::max<int64_t>(1, highest / (4 * one * all)), height = std::min(most, ceil(out.rows, 2 * lines));
    // Rows are packed for all columns at once, or one after another where that saves a way to memory and back.
    const bool eachOnce = blocks == 1 && all <= longest;
    packDown();
    const auto packed = room<Bf16>((eachOnce ? 1 : height) * pair(all));
    for (int64_t top = 0; top < ceil(out.rows, 2 * lines); top += height) {
      const int64_t bottom = std::min(top + height, ceil(out.rows, 2 * lines));
      if (!eachOnce)
        parallel(bottom - top, lines * left.length * 8, [&](int64_t row) {
          const Tiles shaped;
          packRows(top + row, &packed[row * pair(all)]);
        });
      parallel(blocks, (bottom - top) * 2 * lines * left.length * ceil(out.columns, blocks) / 2, [&](int64_t block) {
        const Tiles shaped;
        const int64_t from = pairs * block / blocks, to = pairs * (block + 1) / blocks;
        const auto b = room<Bf16>((to - from) * pair(std::min(all, longest)));
        for (int64_t t = 0; t < all; t += longest) {
          const int64_t count = std::min(longest, all - t);
          const int64_t exact = packColumns(from, to, t, count, b.get());
          for (int64_t row = top; row < bottom; row++) {
            if (eachOnce) packRows(row, packed.get());
            const Bf16* a = &packed[(eachOnce ? 0 : row - top) * pair(all) + t * one];
            for (int64_t column = from; column < to; column++)
              squareAt<parts>({a, all * one}, {&b[(column - from) * pair(count)], count * one}, exact, count, out,
                              row * 2 * lines, column * 2 * lines, t > 0);
          }
        }
      });
    }
  }

 private:
  static constexpr int64_t one = parts * tileSize;
  /** Numbers of two panels of so many tiles. */
  static int64_t pair(int64_t tiles) { return 2 * tiles * one; }

  void packDown() {
    if (!update) return;
    const int64_t pairs = ceil(update->through.columns, 2 * lines);
    down = room<Bf16>(pairs * pair(tiles));
    pack<parts, true>(update->down, 0, 2 * pairs, 0, left.length, down.get(), tiles * one);
  }

  /** Two panels of the left matrix, and behind them those of what goes through the update. */
  void packRows(int64_t row, Bf16* packed) {
    pack<parts, false>(left, 2 * row, 2 * row + 2, 0, left.length, packed, all * one);
    if (!update) return;
    const Target& h = update->through;
    for (int64_t column = 0; column * 2 * lines < h.columns; column++)
      squareAt<parts>({packed, all * one}, {&down[column * pair(tiles)], tiles * one}, 0, tiles, h,
                      row * 2 * lines, column * 2 * lines, false);
    const Lines through{h.data, h.rows, h.columns, h.columns, 1};
    pack<parts, false>(through, 2 * row, 2 * row + 2, 0, h.columns, packed + tiles * one, all * one);
  }

  /** Tiles [t, t + count) of pairs of columns [from, to), and how many of them have one part only. */
  int64_t packColumns(int64_t from, int64_t to, int64_t t, int64_t count, Bf16* packed) {
    const int64_t own = std::clamp<int64_t>(tiles - t, 0, count), end = std::min(right.length, (t + own) * depth);
    const bool exact = packExact(right, 2 * from, 2 * to, t * depth, end, packed, count * one, one);
    if (!exact) pack<parts, true>(right, 2 * from, 2 * to, t * depth, end, packed, count * one);
    if (own < count) {
      const int64_t k = (t + own - tiles) * depth, last = std::min(update->up.length, k + (count - own) * depth);
      pack<parts, true>(update->up, 2 * from, 2 * to, k, last, packed + own * one, count * one);
    }
    return exact ? own : 0;
  }

  const Lines left, right;
  const Target out;
  const LowRank* const update;
  const int64_t tiles, all;  // of the left matrix, and with those of what goes through the update
  Room<Bf16> down{nullptr, &std::free};
};

void multiplied(int64_t parts, const Lines& left, const Lines& right, const Target& out, const LowRank* update) {
  if (parts == 1) Product<1>(left, right, out, update).run();
  else Product<3>(left, right, out, update).run();
}

/** Rows of a matrix, or of what it is when turned. */
Lines rowsOf(const Call::Input& x, bool turned) {
  const int64_t columns = x.last(), rows = x.shape[0];
  return turned ? Lines{x.floats(), columns, rows, 1, columns} : Lines{x.floats(), rows, columns, columns, 1};
}
Lines columnsOf(const Call::Input& x, bool turned) { return rowsOf(x, !turned); }

}  // namespace

// a · b, either turned first: a [M, K], b [K, N] -> [M, N]. Settings: whether a, whether b is turned; parts of a number, 3 or 1.
static void product(Call& call) {
  const auto a = call.input(0), b = call.input(1);
  const Lines left = rowsOf(a, call.settings[0]), right = columnsOf(b, call.settings[1]);
  if (left.length != right.length) return call.fail("product: matrices must agree in what is summed over");
  const Target out{call.output(0, {left.count, right.count}), left.count, right.count};
  if (!left.length) std::fill_n(out.data, out.rows * out.columns, 0);
  else multiplied(call.settings[2], left, right, out, nullptr);
}
static Op<product> productOp("MuscProduct", {"a: float", "b: float"}, {"y: float"});

// x · weight + (x · down) · up, and x · down: x [M, K], weight [K, N], down [K, R], up [R, N] -> [M, N], [M, R]. Settings: whether
// weight, down and up are turned first; parts of a number, 3 or 1.
static void lowRankProduct(Call& call) {
  const auto x = call.input(0), weight = call.input(1), down = call.input(2), up = call.input(3);
  const bool turned = call.settings[0];
  const Lines left = rowsOf(x, false), right = columnsOf(weight, turned);
  const LowRank columns{columnsOf(down, turned), columnsOf(up, turned), {}};
  const int64_t M = left.count, N = right.count, R = columns.down.count;
  if (left.length != right.length || left.length != columns.down.length || R != columns.up.length || N != columns.up.count)
    return call.fail("low-rank product: matrices must agree in what is summed over");
  const Target out{call.output(0, {M, N}), M, N}, through{call.output(1, {M, R}), M, R};
  const LowRank update{columns.down, columns.up, through};
  multiplied(call.settings[1], left, right, out, &update);
}
static Op<lowRankProduct> lowRankProductOp("MuscLowRankProduct", {"x: float", "weight: float", "down: float", "up: float"},
                                           {"y: float", "through: float"});
#endif
