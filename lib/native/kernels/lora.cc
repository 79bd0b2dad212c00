#include "op.h"
#include "simd.h"

// Gradients of a low-rank update y += x A B, of which `A` and `B` come times its scale: with h = x A and g = dy Bᵀ,
// dA = xᵀ g and dB = hᵀ dy. x [M, D], dy [M, C], A [D, r], B [r, O] -> dA [D, r], dB [r, O]. The update is of columns
// [offset, offset + O) of y. Settings: offset.
static void loraGradient(Call& call) {
  const auto x = call.input(0), dy = call.input(1), A = call.input(2), B = call.input(3);
  const int64_t D = x.last(), C = dy.last(), M = x.rows(), r = A.last(), O = B.last();
  REQUIRE(D > 0 && r > 0 && O > 0 && dy.size == M * C && A.is({D, r}) && B.is({r, O}) && call.settings[0] >= 0 &&
              call.settings[0] + O <= C,
          "LoRA's gradient: x and dy must have the same rows, A and B the widths of x and of some columns of dy");
  const int64_t R = (r + W - 1) / W * W;  // whole vectors
  const float* d = dy.floats() + call.settings[0];
  float* dA = call.output(0, A.shape);
  float* dB = call.output(1, B.shape);
  std::vector<float> wideA(D * R), turnedB(O * R);
  for (int64_t i = 0; i < D; i++) std::copy_n(A.floats() + i * r, r, &wideA[i * R]);
  for (int64_t j = 0; j < r; j++)
    for (int64_t o = 0; o < O; o++) turnedB[o * R + j] = B.floats()[j * O + o];

  // Memory is read once: some tokens are used for all products while they are in the cache. Sums of parts are added in
  // their order, so that they do not depend on the threads.
  constexpr int64_t some = 48;
  const int64_t parts = std::clamp<int64_t>(M / 256, 1, 16);
  std::vector<float> sumsA(parts * D * R), sumsB(parts * R * O);
  parallel(parts, 4 * M / parts * R * (D + O), [&](int64_t part) {
    float h[some * 64], g[some * 64];
    float *sumA = &sumsA[part * D * R], *sumB = &sumsB[part * R * O];
    const int64_t end = M * (part + 1) / parts;
    for (int64_t t = M * part / parts; t < end; t += some) {
      const int64_t count = std::min(some, end - t);
      const float *xs = x.floats() + t * D, *ds = d + t * C;
      for (int64_t j = 0; j < R; j += 64) {
        const int64_t wide = std::min<int64_t>(64, R - j), rank = std::min(wide, r - j);
        product(xs, D, 1, &wideA[j], R, h, 64, count, wide, D, false);
        product(ds, C, 1, &turnedB[j], R, g, 64, count, wide, O, false);
        product(xs, 1, D, g, 64, sumA + j, R, D, wide, count, true);
        product(h, 1, 64, ds, C, sumB + j * O, O, rank, O, count, true);
      }
    }
  });
  for (int64_t i = 0; i < D; i++)
    for (int64_t j = 0; j < r; j++) {
      float total = 0;
      for (int64_t part = 0; part < parts; part++) total += sumsA[(part * D + i) * R + j];
      dA[i * r + j] = total;
    }
  for (int64_t i = 0; i < r * O; i++) {
    float total = 0;
    for (int64_t part = 0; part < parts; part++) total += sumsB[part * R * O + i];
    dB[i] = total;
  }
}
static Op<loraGradient> loraGradientOp("MuscLoraGradient", {"x: float", "dy: float", "a: float", "b: float"},
                                       {"da: float", "db: float"});

// W + (scale A) B for updates of some columns of W, and scale A and scale B of each. weight [D, O], then A [D, r] and B
// [r, o] of each update, one after another. Settings: the first column of each.
static void effective(Call& call) {
  const auto weight = call.input(0), scale = call.input(1);
  REQUIRE(
      weight.shape.size() == 2 && scale.size == 1 && call.inputs() == static_cast<int>(2 + 2 * call.settings.size()),
      "effective: needs a matrix, a number, and A and B for each first column");
  const int64_t D = weight.shape[0], O = weight.last();
  for (size_t i = 0; i < call.settings.size(); i++) {
    const auto A = call.input(2 + 2 * i), B = call.input(3 + 2 * i);
    REQUIRE(
        A.is({D, A.last()}) && B.is({A.last(), B.last()}) && call.settings[i] >= 0 && call.settings[i] + B.last() <= O,
        "effective: A and B must fit the matrix");
  }
  float* out = call.output(0, weight.shape);
  std::vector<Call::Input> given;
  std::vector<float*> scaled;
  for (int i = 2; i < call.inputs(); i++) {
    given.push_back(call.input(i));
    scaled.push_back(call.output(i - 1, given.back().shape));
    for (int64_t at = 0; at < given.back().size; at++) scaled.back()[at] = *scale.floats() * given.back().floats()[at];
  }
  constexpr int64_t some = 24;
  parallel((D + some - 1) / some, 2 * some * O * (given.empty() ? 1 : given[0].last()), [&](int64_t piece) {
    const int64_t from = piece * some, count = std::min(some, D - from);
    std::copy_n(weight.floats() + from * O, count * O, out + from * O);
    for (size_t i = 0; i < given.size(); i += 2) {
      const int64_t r = given[i].last(), o = given[i + 1].last(), at = from * O + call.settings[i / 2];
      product(scaled[i] + from * r, r, 1, given[i + 1].floats(), o, out + at, O, count, o, r, true);
    }
  });
}
static Op<effective> effectiveOp("MuscEffective", {"weight: float", "scale: float", "updates: N * float"},
                                 {"effective: float", "scaled: N * float"});

// Updates of some columns of a matrix [D, N] as one of low rank: down [D, R] of all scale A, side by side and then
// zeros up to whole vectors, and up [R, N] of all B, each at its own rows and columns. A [D, r] and B [r, o] of each,
// one after another. Settings: N, then the first column of each.
static void lowRank(Call& call) {
  const auto scale = call.input(0);
  std::vector<Call::Input> given;
  for (int i = 1; i < call.inputs(); i++) given.push_back(call.input(i));
  REQUIRE(scale.size == 1 && !given.empty() && given.size() == 2 * (call.settings.size() - 1),
          "low rank: needs A and B for each first column");
  for (size_t i = 0; i < given.size(); i += 2)
    REQUIRE(given[i].is({given[0].shape[0], given[i].last()}) &&
                given[i + 1].is({given[i].last(), given[i + 1].last()}) && call.settings[1 + i / 2] >= 0 &&
                call.settings[1 + i / 2] + given[i + 1].last() <= call.settings[0],
            "low rank: A and B must fit the matrix");
  const int64_t D = given[0].shape[0], N = call.settings[0];
  int64_t R = 0;
  for (size_t i = 0; i < given.size(); i += 2) R += given[i].last();
  R = (R + W - 1) / W * W;
  float *down = call.output(0, {D, R}), *up = call.output(1, {R, N});
  std::fill_n(down, D * R, 0);
  std::fill_n(up, R * N, 0);
  int64_t from = 0;
  for (size_t i = 0; i < given.size(); i += 2) {
    const int64_t r = given[i].last(), o = given[i + 1].last(), offset = call.settings[1 + i / 2];
    for (int64_t d = 0; d < D; d++)
      for (int64_t j = 0; j < r; j++) down[d * R + from + j] = *scale.floats() * given[i].floats()[d * r + j];
    for (int64_t j = 0; j < r; j++) std::copy_n(given[i + 1].floats() + j * o, o, up + (from + j) * N + offset);
    from += r;
  }
}
static Op<lowRank> lowRankOp("MuscLowRank", {"scale: float", "updates: N * float"}, {"down: float", "up: float"});

// Gradients of each A and B of such updates, dA = scale xᵀ g and dB = hᵀ dy for h = x down and g = dy upᵀ. x [M, D], dy
// [M, N], h [M, R], g [M, R]. Settings: the first column, r and o of each.
static void lowRankGradient(Call& call) {
  const auto x = call.input(0), dy = call.input(1), h = call.input(2), g = call.input(3), scale = call.input(4);
  const int64_t D = x.last(), M = x.rows(), N = dy.last(), R = h.last();
  REQUIRE(D > 0 && R > 0 && dy.size == M * N && h.size == M * R && g.size == M * R && scale.size == 1 &&
              call.settings.size() % 3 == 0,
          "low rank's gradient: all inputs must have the same rows");
  struct Update {
    int64_t offset, r, o, from;  // from: its first column of h and g
    float *dA, *dB;
  };
  std::vector<Update> updates;
  int64_t from = 0, sizeB = 0;
  for (size_t i = 0; i < call.settings.size(); i += 3) {
    const int64_t offset = call.settings[i], r = call.settings[i + 1], o = call.settings[i + 2];
    REQUIRE(r > 0 && o > 0 && offset >= 0 && offset + o <= N && from + r <= R,
            "low rank's gradient: updates must fit dy");
    const int at = 2 * updates.size();
    updates.push_back({offset, r, o, from, call.output(at, {D, r}), call.output(at + 1, {r, o})});
    from += r, sizeB += r * o;
  }
  // As above: memory is read once, and sums do not depend on the threads. A task makes a part of the sums, of some of
  // its rows or columns.
  constexpr int64_t some = 48, slice = 192;
  const int64_t parts = std::clamp<int64_t>(M / 256, 1, 16);
  std::vector<float> sumsA(parts * D * R), sumsB(parts * sizeB);
  struct Slice {
    const Update* update;  // null for the sums of A
    int64_t at, size;
    float* sums;
  };
  std::vector<Slice> slices;
  for (int64_t at = 0; at < D; at += slice) slices.push_back({nullptr, at, std::min(slice, D - at), &sumsA[at * R]});
  float* sumB = sumsB.data();
  for (const Update& update : updates) {
    for (int64_t at = 0; at < update.o; at += slice)
      slices.push_back({&update, at, std::min(slice, update.o - at), sumB + at});
    sumB += update.r * update.o;
  }
  const int64_t count = slices.size();
  parallel(parts * count, 2 * M / parts * R * slice, [&](int64_t task) {
    const int64_t part = task / count, end = M * (part + 1) / parts;
    const auto& [update, at, size, sums] = slices[task % count];
    for (int64_t t = M * part / parts; t < end; t += some) {
      const int64_t n = std::min(some, end - t);
      if (update)
        product(h.floats() + t * R + update->from, 1, R, dy.floats() + t * N + update->offset + at, N,
                sums + part * sizeB, update->o, update->r, size, n, true);
      else
        product(x.floats() + t * D + at, 1, D, g.floats() + t * R, R, sums + part * D * R, R, size, R, n, true);
    }
  });
  const auto total = [&](const std::vector<float>& sums, int64_t size, int64_t at) {
    float sum = 0;
    for (int64_t part = 0; part < parts; part++) sum += sums[part * size + at];
    return sum;
  };
  int64_t at = 0;
  for (const auto& [offset, r, o, from, dA, dB] : updates) {
    for (int64_t i = 0; i < D * r; i++) dA[i] = *scale.floats() * total(sumsA, D * R, i / r * R + from + i % r);
    for (int64_t i = 0; i < r * o; i++) dB[i] = total(sumsB, sizeB, at++);
  }
}
static Op<lowRankGradient> lowRankGradientOp("MuscLowRankGradient",
                                             {"x: float", "dy: float", "h: float", "g: float", "scale: float"},
                                             {"gradients: N * float"});
