#include "op.h"
#include "simd.h"

// One new token a row against a cache. Turns q and k by the token's position, writes k and v into their column of the
// cache, in place, and attends: softmax(q kᵀ) v over what all rows begin with, if anything, and then over the row's own
// columns.
//
// qk [B, (N + K) H], v [B, K H], cos and sin [B, H / 2], scale of q; cached keys and values [B K S, H], all of whose
// rows but the new ones are kept; columns [B] of the new tokens, -1 for a row that is idle; shared keys [K H, P'],
// transposed, P' being whole vectors, and shared values [K P, H], both empty for none -> out [B, N H], zeros for idle
// rows. Settings: N, K, window (0 for none).
//
// A row gets the same digits whatever stands beside it, and whether its first keys are shared or its own: sums go by
// the same lanes and in the same order.

namespace {

struct Decode {
  int64_t B, N, K, G, H, S, P, padded, window;
  const float *keys, *values, *sharedKeys, *sharedValues;
  const int32_t* columns;
  int64_t width;  // of a line of scores
  float *rotated, *scores;

  /** Position of the first key that a row sees, and keys of the shared ones and of its own. */
  int64_t first(int64_t b) const { return window ? std::max<int64_t>(0, P + columns[b] - window + 1) : 0; }
  int64_t shared(int64_t b) const { return columns[b] < 0 ? 0 : std::max<int64_t>(0, P - first(b)); }
  int64_t ownFrom(int64_t b) const { return std::max<int64_t>(0, first(b) - P); }
  int64_t own(int64_t b) const { return columns[b] + 1 - ownFrom(b); }
  float* line(int64_t b, int64_t n) { return &scores[(b * N + n) * width]; }
};

/** Lanes of W vectors added up, as `sum` adds those of one. */
INLINE V foldLanes(V* lanes) {
#pragma GCC unroll 4
  for (int n = W / 2; n; n /= 2)
#pragma GCC unroll 8
    for (int l = 0; l < n; l++) lanes[l] += lanes[l + n];
  return lanes[0];
}

/** Queries that a shared key is read for at once. */
constexpr int together = 6;

/** Scores of sixteen (W) shared keys for some queries [H, together], by the lanes of `sum` over load(q) · load(key). */
INLINE void sharedScores(const float* queries, const float* keys, int64_t padded, int64_t H, V* scores) {
  constexpr int L = accumulators >= 24 ? 4 : 2;  // lanes of each query whose sums fit into the registers
  V lanes[together][W];
#pragma GCC unroll 8
  for (int from = 0; from < W; from += L) {
    V sums[together][L] = {};
    const auto add = [&](int64_t h, int l) __attribute__((always_inline)) {
      const V key = load(keys + h * padded);
#pragma GCC unroll 6
      for (int i = 0; i < together; i++) sums[i][l] += all(queries[h * together + i]) * key;
    };
    int64_t h = from;
    for (; h + L <= H; h += W)
#pragma GCC unroll 4
      for (int l = 0; l < L; l++) add(h + l, l);
#pragma GCC unroll 4
    for (int l = 0; l < L; l++)
      if (h + l < H) add(h + l, l);
#pragma GCC unroll 6
    for (int i = 0; i < together; i++)
#pragma GCC unroll 4
      for (int l = 0; l < L; l++) lanes[i][from + l] = sums[i][l];
  }
#pragma GCC unroll 6
  for (int i = 0; i < together; i++) scores[i] = foldLanes(lanes[i]);
}

/** Scores of sixteen (W) keys one below the other, as many of them as there are, by the same lanes. */
INLINE V ownScores(const float* q, const float* keys, int64_t count, int64_t H) {
  I sums[W];
#pragma GCC unroll 16
  for (int l = 0; l < W; l++) {
    V total = {};
    if (l < count) sweep(H, [&](int64_t at, int n) { total += load(q + at, n) * load(keys + l * H + at, n); });
    sums[l] = bitsOf(total);
  }
  transpose(sums);
  V lanes[W];
#pragma GCC unroll 16
  for (int l = 0; l < W; l++) lanes[l] = floatOf(sums[l]);
  return foldLanes(lanes);
}

}  // namespace

static void decode(Call& call) {
  const auto qk = call.input(0), v = call.input(1), cos = call.input(2), sin = call.input(3), scale = call.input(4),
             keys = call.input(5), values = call.input(6), columns = call.input(7), sharedKeys = call.input(8),
             sharedValues = call.input(9);
  Decode d;
  d.N = call.settings[0], d.K = call.settings[1], d.window = call.settings[2];
  REQUIRE(d.K > 0 && d.N % d.K == 0 && keys.last() > 0 && keys.last() % 2 == 0 && scale.size == 1,
          "decode: heads must come in groups and halves");
  d.B = columns.size, d.H = keys.last(), d.G = d.N / d.K;
  const int64_t B = d.B, N = d.N, K = d.K, G = d.G, H = d.H, half = H / 2;
  d.S = B ? keys.size / (B * K * H) : 0;
  d.P = sharedValues.size / (K * H), d.padded = sharedKeys.size / (K * H);
  REQUIRE(qk.size == B * (N + K) * H && v.size == B * K * H && cos.size == B * half && sin.size == B * half &&
              values.size == keys.size && d.padded % W == 0 && d.padded >= d.P,
          "decode: shapes must agree; see decode.cc");
  d.keys = keys.floats(), d.values = values.floats(), d.columns = columns.ints();
  d.sharedKeys = sharedKeys.floats(), d.sharedValues = sharedValues.floats();
  float* out = call.output(0, {B, N * H});
  int64_t longest = -1;
  for (int64_t b = 0; b < B; b++) {
    REQUIRE(d.columns[b] < d.S, "decode: a row's cache has no column left");
    longest = std::max<int64_t>(longest, d.columns[b]);
  }
  if (longest < 0) return void(std::fill_n(out, B * N * H, 0.f));
  d.width = d.padded + longest + 1 + 2 * W;
  // Kept from call to call: what a call has written is not read by the next.
  static thread_local std::vector<float> rotated, scores;
  if (rotated.size() < static_cast<size_t>(B * N * H)) rotated.resize(B * N * H);
  if (scores.size() < static_cast<size_t>(B * N * d.width)) scores.resize(B * N * d.width);
  d.rotated = rotated.data(), d.scores = scores.data();

  const auto rotate = [&](int64_t b) {
    std::vector<float> key(H);
    for (int64_t h = 0; h < N + K; h++) {
      const float* x = qk.floats() + (b * (N + K) + h) * H;
      float* to = h < N ? &d.rotated[(b * N + h) * H] : key.data();
      const float factor = h < N ? *scale.floats() : 1;
      sweep(half, [&](int64_t j, int n) {
        const V c = load(cos.floats() + b * half + j, n) * factor, s = load(sin.floats() + b * half + j, n) * factor;
        const V low = load(x + j, n), high = load(x + half + j, n);
        store(to + j, low * c - high * s, n);
        store(to + half + j, high * c + low * s, n);
      });
      if (h < N) continue;
      const int64_t g = h - N, at = ((b * K + g) * d.S + d.columns[b]) * H;
      std::copy_n(key.data(), H, const_cast<float*>(d.keys) + at);
      std::copy_n(v.floats() + (b * K + g) * H, H, const_cast<float*>(d.values) + at);
    }
  };
  /** Scores of a row's own keys, then the softmax of all. */
  const auto attend = [&](int64_t b) {
    const int64_t before = d.shared(b), from = d.ownFrom(b), own = d.own(b), count = before + own;
    for (int64_t g = 0; g < K; g++) {
      const float* k = d.keys + ((b * K + g) * d.S + from) * H;
      const float* q = &d.rotated[(b * N + g * G) * H];
      for (int64_t s = 0; s < own; s += W)
        for (int64_t j = 0; j < G; j++)
          store(d.line(b, g * G + j) + before + s, ownScores(q + j * H, k + s * H, own - s, H));
      for (int64_t j = 0; j < G; j++) {
        float* row = d.line(b, g * G + j);
        std::fill_n(row + count, W, -std::numeric_limits<float>::infinity());
        V tops = load(row), odds = {};
        for (int64_t s = W; s < count; s += W) tops = greater(load(row + s), tops);
        const float top = most(tops);
        for (int64_t s = 0; s < count; s += W) {
          const V odd = exp(load(row + s) - top);
          odds += odd;
          store(row + s, odd);
        }
        const float share = 1 / sum(odds);
        for (int64_t s = 0; s < count; s += W) store(row + s, load(row + s) * share);
      }
    }
  };
  /** Adds what a row's own values give, or begins with it. */
  const auto add = [&](int64_t b) {
    const int64_t before = d.shared(b), from = d.ownFrom(b);
    for (int64_t g = 0; g < K; g++)
      product(d.line(b, g * G) + before, d.width, 1, d.values + ((b * K + g) * d.S + from) * H, H,
              out + (b * N + g * G) * H, H, G, H, d.own(b), before > 0);
  };
  const auto idle = [&](int64_t b) {
    if (d.columns[b] >= 0) return false;
    std::fill_n(out + b * N * H, N * H, 0.f);
    return true;
  };
  // Keys and values come from memory, a number in the time of some forty operations.
  const int64_t ownCost = (4 * N + 2 * 40 * K) * H * (longest + 1);
  if (!d.P) {
    return parallel(B, ownCost, [&](int64_t b) {
      if (!idle(b)) rotate(b), attend(b), add(b);
    });
  }
  parallel(B, 8 * N * H, [&](int64_t b) {
    if (!idle(b)) rotate(b);
  });
  // Queries of active rows, some together: [K, groups, H, together].
  struct Line {
    int64_t at, skipped;  // line of the first group's head, and shared keys that the window hides
  };
  std::vector<Line> lines;
  for (int64_t b = 0; b < B; b++)
    for (int64_t j = 0; d.columns[b] >= 0 && j < G; j++) lines.push_back({b * N + j, d.P - d.shared(b)});
  const int64_t count = lines.size(), groups = (count + together - 1) / together, blocks = d.padded / W;
  static thread_local std::vector<float> packed;
  packed.assign(K * groups * H * together, 0);
  float* const queries = packed.data();
  parallel(K * groups, 8 * H * together, [&](int64_t group) {
    const int64_t g = group / groups, first = group % groups * together;
    for (int64_t i = 0; i < std::min<int64_t>(together, count - first); i++)
      for (int64_t h = 0; h < H; h++)
        queries[(group * H + h) * together + i] = d.rotated[(lines[first + i].at + g * G) * H + h];
  });
  // All of them while some of the shared keys are in the first cache.
  parallel(K * blocks, 2 * groups * together * H * W, [&](int64_t task) {
    const int64_t g = task / blocks, from = task % blocks * W;
    const float* keys = d.sharedKeys + g * H * d.padded + from;
    for (int64_t h = 0; h < H; h++) __builtin_prefetch(keys + h * d.padded + W, 0, 3);
    for (int64_t group = 0; group < groups; group++) {
      V found[together];
      sharedScores(queries + (g * groups + group) * H * together, keys, d.padded, H, found);
      for (int64_t i = 0; i < std::min<int64_t>(together, count - group * together); i++) {
        const auto [at, skipped] = lines[group * together + i];
        const int64_t low = std::max(from, skipped), high = std::min(from + W, d.P);
        float* to = d.scores + (at + g * G) * d.width - skipped;
        if (high - low == W) {
          store(to + from, found[i]);
        } else if (low < high) {
          float some[W];
          store(some, found[i]);
          std::copy_n(some + low - from, high - low, to + low);
        }
      }
    }
  });
  parallel(B, ownCost, [&](int64_t b) {
    if (d.columns[b] >= 0) attend(b);
  });
  // All rows' shares of some of the shared values, as one product where no window cuts them.
  bool whole = true;
  for (int64_t b = 0; b < B; b++) whole &= d.columns[b] < 0 || d.shared(b) == d.P;
  constexpr int64_t some = 4;  // rows at once
  parallel(K * ((B + some - 1) / some), 2 * some * G * H * d.P, [&](int64_t i) {
    const int64_t g = i % K, end = std::min(B, (i / K + 1) * some);
    const float* values = d.sharedValues + g * d.P * H;
    if (whole) {
      // Lines of a group lie N apart from row to row: side by side only where they are all there is.
      std::vector<float> sums(some * G * H), shares(some * G * d.P);
      int64_t lines = 0;
      for (int64_t b = i / K * some; b < end; b++)
        for (int64_t j = 0; d.columns[b] >= 0 && j < G; j++)
          std::copy_n(d.line(b, g * G + j), d.P, &shares[lines++ * d.P]);
      product(shares.data(), d.P, 1, values, H, sums.data(), H, lines, H, d.P, false);
      lines = 0;
      for (int64_t b = i / K * some; b < end; b++)
        for (int64_t j = 0; d.columns[b] >= 0 && j < G; j++)
          std::copy_n(&sums[lines++ * H], H, out + (b * N + g * G + j) * H);
      return;
    }
    for (int64_t b = i / K * some; b < end; b++) {
      const int64_t before = d.shared(b);
      if (d.columns[b] < 0 || !before) continue;
      product(d.line(b, g * G), d.width, 1, values + (d.P - before) * H, H, out + (b * N + g * G) * H, H, G, H, before,
              false);
    }
  });
  parallel(B, ownCost / 2, [&](int64_t b) {
    if (d.columns[b] >= 0) add(b);
  });
}
static Op<decode> decodeOp("MuscDecode",
                           {"qk: float", "v: float", "cos: float", "sin: float", "scale: float", "keys: float",
                            "values: float", "columns: int32", "shared_keys: float", "shared_values: float"},
                           {"out: float"});
