#pragma once
#include <array>
#include <memory>
#include <utility>

#include "op.h"
#include "simd.h"

// Matrix products by panels. A panel holds 2 W columns of the second matrix as floats; many rows of the first matrix
// are multiplied with it. Each sum runs from the first number to the last, whatever the number of rows, columns and
// threads.

/** Columns of a panel, numbers of each that are prepared at once, and rows that share them: all stay in the second
 * cache. */
constexpr int64_t wide = 2 * W, deep = 640;
/** Rows whose sums of a panel fit into the registers. */
constexpr int64_t tall = accumulators / 2;
constexpr int64_t block = 24 * tall;

inline int64_t panelsOf(int64_t columns) { return (columns + wide - 1) / wide; }
/** Rows of a group, of M in all: groups are nearly alike. */
inline int64_t heightOf(int64_t M) {
  const int64_t groups = std::max<int64_t>(1, (M + tall - 1) / tall);
  return std::max<int64_t>(1, (M + groups - 1) / groups);
}

/** Panels that a thread takes at a time, 4 at most: as many as let `used` threads end together. */
inline int64_t groupOf(int64_t panels, int64_t used) {
  int64_t best = 1;
  const auto longest = [&](int64_t group) { return ((panels + group - 1) / group + used - 1) / used * group; };
  for (int64_t group = 2; group <= 4; group++)
    if (longest(group) <= longest(best)) best = group;
  return best;
}

/** Numbers of the 2 W columns of a panel, as floats or as pairs of bf16, which are neighbours in their column. */
template <typename Vector>
struct Columns {
  Vector left, right;
};

/** A panel [n, wide] of floats, or of pairs. */
template <typename Vector, typename Number>
struct PanelOf {
  const Number* numbers;
  static constexpr int steps = 1;
  __attribute__((always_inline)) Columns<Vector> columns(int64_t k, int) const {
    return {load(numbers + k * wide), load(numbers + k * wide + W)};
  }
  const PanelOf& sharedBy(int64_t, int64_t, int64_t) const { return *this; }
};
using Panel = PanelOf<V, float>;
using PairPanel = PanelOf<I, int32_t>;

/** C [MR, wide] (+)= the rows of a group, A [n, MR], · a panel [n, wide], which is read some steps of a sum at once. */
template <typename P, int MR>
void tile(const float* A, const P& panel, int64_t n, float* C, int64_t ldc, bool add) {
  V sums[MR][2];
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) sums[i][j] = add ? load(C + i * ldc + j * W) : V{};
  const auto advance = [&](int64_t k, int step) __attribute__((always_inline)) {
    const auto [left, right] = panel.columns(k, step);
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
      const float a = A[(k + step) * MR + i];
      addProduct(sums[i][0], a, left);
      addProduct(sums[i][1], a, right);
    }
  };
  int64_t k = 0;
  for (; k + P::steps <= n; k += P::steps)
#pragma GCC unroll 2
    for (int step = 0; step < P::steps; step++) advance(k, step);
  if (k < n) advance(k, 0);
#pragma GCC unroll 12
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) store(C + i * ldc + j * W, sums[i][j]);
}

template <typename P>
using Tile = void (*)(const float*, const P&, int64_t, float*, int64_t, bool);
template <typename P, int... MR>
constexpr std::array<Tile<P>, sizeof...(MR) + 1> tilesFor(std::integer_sequence<int, MR...>) {
  return {nullptr, tile<P, MR + 1>...};
}
/** By rows. */
template <typename P>
constexpr auto tiles = tilesFor<P>(std::make_integer_sequence<int, tall>{});

/**
 * to[k · line + i] = from[i · row + k] for i in [0, rows) and k in [0, n), where `rows` is at most W. Writes whole
 * vectors, with zeros behind, as far as there is room for so many floats; a later line goes over what was too much.
 */
INLINE void turn(const float* from, int64_t row, int64_t rows, int64_t n, float* to, int64_t line, int64_t room) {
  for (int64_t k = 0; k < n; k += W) {
    const int length = std::min<int64_t>(W, n - k);
    I square[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) square[i] = i < rows ? bitsOf(load(from + i * row + k, length)) : I{};
    transpose(square);
    float* out = to + k * line;
    if (length == W && (k + W - 1) * line + W <= room) {
#pragma GCC unroll 16
      for (int l = 0; l < W; l++) store(out + l * line, floatOf(square[l]));
      continue;
    }
    for (int l = 0; l < length; l++)
      store(out + l * line, floatOf(square[l]), (k + l) * line + W <= room ? W : static_cast<int>(rows));
  }
}

/**
 * A matrix [M, K] in groups of rows. In a group, the k-th numbers of its rows are adjacent. Behind them there is room
 * for `more` numbers of each row.
 */
class Rows {
 public:
  /** Number k of row i is x[i · row + k · column]. */
  Rows(const float* x, int64_t M, int64_t K, int64_t row, int64_t column)
      : Rows(x, M, K, row, column, 0, [](int64_t, int64_t, float*) {}) {}
  Rows(const float* x, int64_t M, int64_t K) : Rows(x, M, K, K, 1) {}
  /** With `then(first, rows, numbers)` for each group while it is in the cache, which writes what comes behind. */
  template <typename Then>
  Rows(const float* x, int64_t M, int64_t K, int64_t row, int64_t column, int64_t more, const Then& then)
      : M_(M), K_(K + more), height_(heightOf(M)), numbers_(new float[M * K_]) {
    // Moving a number takes as long as 32 additions, and the sums of `then` have few columns, which makes them slow.
    parallel((M + height_ - 1) / height_, (32 + 4 * more) * height_ * K, [&](int64_t group) {
      const int64_t first = group * height_, n = std::min(height_, M - first);
      const float* from = x + first * row;
      float* out = &numbers_[first * K_];
      if (column == 1 && tall <= W)  // a group is no higher than a vector is long
        turn(from, row, n, K, out, n, n * K_);
      else
        for (int64_t k = 0; k < K; k++)
          for (int64_t i = 0; i < n; i++) out[k * n + i] = from[i * row + k * column];
      then(first, n, out);
    });
  }

  int64_t length() const { return K_; }
  /** Rows of a group. */
  int64_t height() const { return height_; }

  /** C [to - from, wide] (+)= numbers [k, k + n) of rows [from, to) · a panel [n, wide]. `from` begins a group. */
  template <typename P>
  void product(int64_t from, int64_t to, int64_t k, int64_t n, const P& panel, float* C, int64_t ldc, bool add) const {
    for (int64_t row = from; row < to; row += height_) {
      const int64_t rows = std::min(height_, M_ - row);
      tiles<P>[rows](&numbers_[row* K_ + k* rows], panel, n, C + (row - from)* ldc, ldc, add);
    }
  }

 private:
  const int64_t M_, K_, height_;
  const std::unique_ptr<float[]> numbers_;
};

/**
 * out [M, N] = `rows` [M, K] · another matrix [K, N], which consists of parts one below the other. A part has its
 * `depth`, and `panel(column, k, n, numbers, next)`: its numbers [k, k + n) of columns [column, column + wide), which
 * it may write to `numbers` [n, wide]; behind the last column they are zeros. Columns from `next` on most likely come
 * after them. `ahead(column, k, end)` brings what it will read for the numbers [k, end) into the cache, some at a time
 * while another panel is multiplied with.
 */
template <typename... Parts>
void times(float* out, int64_t M, int64_t N, const Rows& rows, const Parts&... parts) {
  const int64_t depth = rows.length(), panels = panelsOf(N);
  if (!M || !N || !depth) return void(std::fill_n(out, M * N, 0));
  // Blocks of rows are alike, so that threads end together, and smaller where one has fewer panels than there are
  // threads. A thread takes a run of panels: memory is read fastest in order.
  const int64_t used = ownThreads, height = rows.height();
  const int64_t wanted = std::min((2 * used + panels - 1) / panels, (M + 4 * tall - 1) / (4 * tall));
  const int64_t blocks = std::max((M + block - 1) / block, wanted);
  const int64_t each = (M + blocks * height - 1) / (blocks * height) * height;
  const int64_t run = groupOf(panels, used), runs = (panels + run - 1) / run;
  const auto multiply = [&](int64_t column, int64_t next, int64_t from, int64_t to) {
    alignas(64) float numbers[deep * wide], partial[(block + tall) * wide];
    const bool whole = column + wide <= N;
    float* const sums = whole ? out + from * N + column : partial;
    const int64_t line = whole ? N : wide, groups = (to - from + height - 1) / height;
    int64_t above = 0;
    const auto add = [&](const auto& part) {
      for (int64_t k = 0; k < part.depth; k += deep) {
        const int64_t n = std::min(deep, part.depth - k);
        const auto panel = part.panel(column, k, n, numbers, next);
        const bool last = k + n == part.depth;
        const int64_t then = last ? 0 : k + n, count = std::min(deep, part.depth - then);
        for (int64_t row = from, behind; row < to; row = behind) {
          behind = std::min(to, row + height);
          const auto share = [&](int64_t at) { return then + count * (at - from) / (to - from); };
          part.ahead(last ? next : column, share(row), share(behind));
          const auto shared = panel.sharedBy((row - from) / height, groups, n);
          rows.product(row, behind, above + k, n, shared, sums + (row - from) * line, line, above + k > 0);
        }
      }
      above += part.depth;
    };
    (add(parts), ...);
    if (!whole)
      for (int64_t i = 0; i < to - from; i++)
        std::copy_n(partial + i * wide, N - column, out + (from + i) * N + column);
  };
  parallel(blocks * runs, 2 * std::min(M, each) * depth * wide * run, [&](int64_t task) {
    const int64_t first = task % runs * run, end = std::min(panels, first + run);
    const int64_t from = task / runs * each, to = std::min(M, from + each);
    for (int64_t at = first; at < end; at++) {
      const int64_t next = at + 1 < end ? at + 1 : (task + used) % runs * run;
      multiply(at * wide, next * wide, from, to);
    }
  });
}

/** A part for `times` that is written to a panel of floats by `fill(column, k, n, numbers)`. */
template <typename Fill>
struct Filled {
  int64_t depth;
  Fill fill;
  Panel panel(int64_t column, int64_t k, int64_t n, float* numbers, int64_t) const {
    fill(column, k, n, numbers);
    return {numbers};
  }
  void ahead(int64_t, int64_t, int64_t) const {}
};

/** For `times`: the columns of a matrix [K, N] of floats. */
inline auto columnsOf(const float* B, int64_t N, int64_t K) {
  const auto fill = [=](int64_t column, int64_t k, int64_t n, float* panel) {
    const int64_t columns = std::min(wide, N - column);
    for (int64_t i = 0; i < n; i++) {
      const float* from = B + (k + i) * N + column;
      float* to = panel + i * wide;
      if (columns == wide) {
        store(to, load(from)), store(to + W, load(from + W));
        continue;
      }
      std::fill_n(to, wide, 0);
      std::copy_n(from, columns, to);
    }
  };
  return Filled<decltype(fill)>{K, fill};
}

/** The columns of the transpose of a matrix [N, K] of floats. */
inline auto turnedColumnsOf(const float* B, int64_t N, int64_t K) {
  const auto fill = [=](int64_t column, int64_t k, int64_t n, float* panel) {
    for (int64_t j = 0; j < wide; j += W)
      turn(B + (column + j) * K + k, K, std::clamp<int64_t>(N - column - j, 0, W), n, panel + j, wide, n * wide - j);
  };
  return Filled<decltype(fill)>{K, fill};
}
