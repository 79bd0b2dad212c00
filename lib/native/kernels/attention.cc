#include "op.h"
#include "simd.h"

// softmax(q kᵀ) v over the keys that each query may see, without ever holding the scores of all queries (Dao 2022).
// Queries carry the factor of q kᵀ already.
//
// q [B T, ≥ N H], heads in the first columns; k and v [B S, ≥ K H], heads in the last columns, or [B, K, S, H] as in a
// cache. Places of queries [2, B, T] and keys [2, B, S]: positions, then segments. A query sees keys of its segment and
// of segment 0, which padding (-1) does not see, up to its own position and back to a window. Queries begin at `from`.
// Settings: N, K, window (0 for none).

struct Heads {
  const float* data;
  int64_t row, head, batch;  // steps from one token, head, and row of the batch to the next

  Heads(const Call::Input& x, int64_t tokens, int64_t heads, int64_t H, bool last) {
    const bool cached = x.shape.size() == 4;
    row = cached ? H : x.last();
    head = cached ? tokens * H : H;
    batch = cached ? heads * head : tokens * row;
    data = x.floats() + (!cached && last ? row - heads * H : 0);
  }
  const float* at(int64_t b, int64_t n) const { return data + b * batch + n * head; }
};

struct Attention {
  int64_t B, T, S, N, K, H, G, t0, window, padded;
  bool same;
  Heads q, k, v;
  const int32_t *queryPlaces, *keyPlaces;

  Attention(Call& call, const Call::Input& q_, const Call::Input& k_, const Call::Input& v_, const Call::Input& queries,
            const Call::Input& keys, const Call::Input& from)
      : B(queries.shape[1]),
        T(queries.shape[2]),
        S(keys.shape[2]),
        N(call.settings[0]),
        K(call.settings[1]),
        H(v_.shape.size() == 4 ? v_.last() : v_.last() / K),
        G(N / K),
        t0(*from.ints()),
        window(call.settings[2]),
        padded(odd((S + W - 1) / W) * W),
        same(k_.data == q_.data),
        q(q_, T, N, H, false),
        k(k_, S, K, H, true),
        v(v_, S, K, H, true),
        queryPlaces(queries.ints()),
        keyPlaces(keys.ints()) {}

  /** Whether the inputs are what stands above. */
  static bool fits(const Call& call, const Call::Input& q, const Call::Input& k, const Call::Input& v,
                   const Call::Input& queries, const Call::Input& keys, const Call::Input& from) {
    if (queries.shape.size() != 3 || keys.shape.size() != 3 || queries.shape[0] != 2 || keys.shape[0] != 2 ||
        queries.shape[1] != keys.shape[1] || from.size != 1)
      return false;
    const int64_t B = queries.shape[1], T = queries.shape[2], S = keys.shape[2], N = call.settings[0],
                  K = call.settings[1];
    if (N < 1 || K < 1 || N % K || *from.ints() < 0 || *from.ints() > T) return false;
    const bool cached = v.shape.size() == 4;
    const int64_t H = cached ? v.last() : v.last() / K;
    if (H < 1 || (!cached && v.last() != K * H) || v.size != B * S * K * H || q.last() < N * H) return false;
    return q.size == B * T * q.last() && (cached ? k.size == v.size : k.last() >= K * H && k.size == B * S * k.last());
  }

  /** Rows of an odd number of vectors do not all fall into the same places of a cache. */
  static int64_t odd(int64_t n) { return n / 2 * 2 + 1; }

  /** Queries [first, first + count) of row b, and the keys [low, high) that one of them or more sees. */
  struct Tile {
    int64_t b, first, count, low = 0, high = 0, width = 0;
    std::vector<float> mask;  // [count, width], 0 or -infinity
    const float* hidden(int64_t query) const { return &mask[query * width + low]; }
  };

  static constexpr int64_t tileSize = 24;
  int64_t tiles() const { return (T - t0 + tileSize - 1) / tileSize; }

  Tile tile(int64_t b, int64_t i) const {
    Tile tile{b, t0 + i * tileSize, std::min(tileSize, T - t0 - i * tileSize)};
    // What stands behind a token is out of its sight.
    const int64_t end = same ? std::min((tile.first + tile.count + W - 1) / W * W, padded) : padded;
    std::vector<int32_t> position(end, std::numeric_limits<int32_t>::max()), segment(end, -2), anyone(end);
    std::copy_n(keyPlaces + b * S, std::min(end, S), position.begin());
    std::copy_n(keyPlaces + (B + b) * S, std::min(end, S), segment.begin());
    tile.width = end;
    tile.mask.resize(tile.count * end);
    const V none = all(-std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < tile.count; r++) {
      const int32_t at = queryPlaces[b * T + tile.first + r], own = queryPlaces[(B + b) * T + tile.first + r];
      const int32_t oldest = window ? at - static_cast<int32_t>(window) : -1, shared = own < 0 ? own : 0;
      for (int64_t s = 0; s < end; s += W) {
        const I p = load(&position[s]), g = load(&segment[s]);
        const I seen = ((g == own) | (g == shared)) & (p <= at) & (p > oldest);
        store(&tile.mask[r * end + s], choose(seen, V{}, none));
        store(&anyone[s], load(&anyone[s]) | seen);
      }
    }
    while (tile.low < end && !anyone[tile.low]) tile.low++;
    tile.low = tile.low / W * W;
    tile.high = end;
    while (tile.high > tile.low && !anyone[tile.high - 1]) tile.high--;
    tile.high = (tile.high + W - 1) / W * W;
    return tile;
  }

  /** [H, padded] of one head's keys or values [S, H]. */
  void transpose(const Heads& x, int64_t b, int64_t head, float* to) const {
    const float* from = x.at(b, head);
    for (int64_t h = 0; h < H; h++) std::fill(to + h * padded + S, to + (h + 1) * padded, 0.f);
    for (int64_t s0 = 0; s0 < S; s0 += W)
      for (int64_t h = 0; h < H; h++)
        for (int64_t s = s0; s < std::min(s0 + W, S); s++) to[h * padded + s] = from[s * x.row + h];
  }
};

// -> out [B (T - from), N H], and log Σ exp(scores) [B, N, T - from]
static void attention(Call& call) {
  const auto q = call.input(0), k = call.input(1), v = call.input(2), queries = call.input(3), keys = call.input(4),
             from = call.input(5);
  REQUIRE(Attention::fits(call, q, k, v, queries, keys, from), "attention: shapes must agree; see attention.cc");
  const Attention a(call, q, k, v, queries, keys, from);
  const int64_t T = a.T - a.t0, H = a.H, tiles = a.tiles();
  float* out = call.output(0, {a.B * T, a.N * H});
  float* sums = call.output(1, {a.B, a.N, T});
  std::vector<float> transposed(a.B * a.K * H * a.padded);
  parallel(a.B * a.K, 4 * H * a.S,
           [&](int64_t i) { a.transpose(a.k, i / a.K, i % a.K, &transposed[i * H * a.padded]); });
  parallel(a.B * tiles, 2 * a.tileSize * a.N * H * a.S, [&](int64_t i) {
    const Attention::Tile tile = a.tile(i / tiles, i % tiles);
    const int64_t b = tile.b, width = tile.high - tile.low, first = tile.first - a.t0;
    std::vector<float> p(tile.count * width);
    for (int64_t n = 0; n < a.N; n++) {
      const int64_t g = n / a.G;
      product(a.q.at(b, n) + tile.first * a.q.row, a.q.row, 1, &transposed[(b * a.K + g) * H * a.padded + tile.low],
              a.padded, p.data(), width, tile.count, width, H, false);
      for (int64_t r = 0; r < tile.count; r++) {
        float* row = &p[r * width];
        V tops = all(-std::numeric_limits<float>::infinity());
        for (int64_t s = 0; s < width; s += W) {
          const V score = load(row + s) + load(tile.hidden(r) + s);
          tops = greater(tops, score);
          store(row + s, score);
        }
        const float top = most(tops);
        V odds = {};
        for (int64_t s = 0; s < width; s += W) {
          const V odd = exp(load(row + s) - top);
          odds += odd;
          store(row + s, odd);
        }
        const float total = sum(odds), share = 1 / total;
        for (int64_t s = 0; s < width; s += W) store(row + s, load(row + s) * share);
        sums[(b * a.N + n) * T + first + r] = top + std::log(total);
      }
      const float* values = a.v.at(b, g) + tile.low * a.v.row;
      const int64_t known = std::min(width, a.S - tile.low);
      product(p.data(), width, 1, values, a.v.row, out + (b * T + first) * a.N * H + n * H, a.N * H, tile.count, H,
              known, false);
    }
  });
}
static Op<attention> attentionOp("MuscAttention",
                                 {"q: float", "k: float", "v: float", "queries: int32", "keys: int32", "from: int32"},
                                 {"out: float", "sums: float"});

// Gradients by qk [B T, (N + K) H] and v [B T, K H], of dy [B (T - from), N H]. With P = exp(scores - sums) and dP = dy
// vᵀ: dS = P (dP - Σ dy out), dq = dS k, dk = dSᵀ q, dv = Pᵀ dy.
class AttentionGradient {
 public:
  AttentionGradient(const Attention& a, const float* dy, const float* out, const float* sums, float* dqk, float* dv)
      : a(a), dy(dy), out(out), sums(sums), dqk(dqk), dv(dv) {}

  void run() {
    for (b0 = 0; b0 < a.B; b0 += together) {
      rows = std::min(together, a.B - b0);
      parallel(rows * a.K, 8 * H * a.S, [&](int64_t i) { prepare(i / a.K, i % a.K); });
      for (int64_t first = 0; first < tiles; first += chunk) {
        now = std::min(chunk, tiles - first);
        parallel(rows * now, 4 * a.tileSize * a.S, [&](int64_t i) { seen[i] = a.tile(b0 + i / now, first + i % now); });
        for (int64_t g = 0; g < a.K; g++) {
          parallel(rows * now, 6 * a.G * a.tileSize * H * a.S, [&](int64_t i) {
            for (int64_t j = 0; j < a.G; j++) queries(g, j, i / now, i % now);
          });
          const int64_t pieces = (a.S + piece - 1) / piece;
          parallel(rows * pieces, 4 * a.G * now * a.tileSize * H * piece,
                   [&](int64_t i) { keysAndValues(g, i / pieces, i % pieces * piece); });
        }
      }
    }
  }

 private:
  const Attention& a;
  const float *dy, *out, *sums;
  float *dqk, *dv;

  const int64_t T = a.T - a.t0, H = a.H, C = (a.N + a.K) * H, tiles = a.tiles(), wide = a.padded;
  // Scores of some queries of some rows of the batch at once, for the heads of a group: as many as stay in the cache.
  static constexpr int64_t fitting = 1 << 16;
  static constexpr int64_t piece = 48;  // keys at once
  const int64_t chunk = std::min(tiles, std::max<int64_t>(1, fitting / (a.G * a.tileSize * wide)));
  const int64_t together = std::min(a.B, std::max<int64_t>(1, fitting / (a.G * chunk * a.tileSize * wide)));
  std::vector<float> P = std::vector<float>(together * a.G * chunk * a.tileSize * wide), dS = P;
  std::vector<float> keys = std::vector<float>(together * a.K * H * wide), values = keys;  // transposed
  std::vector<Attention::Tile> seen = std::vector<Attention::Tile>(together * chunk);
  int64_t b0 = 0, rows = 0, now = 0;  // rows of the batch, and tiles of each, that are at work

  /** Where scores of a tile are, of row b0 + i and head j of a group. */
  int64_t scoresAt(int64_t i, int64_t j, int64_t tile) const {
    return ((i * a.G + j) * chunk + tile) * a.tileSize * wide;
  }

  void prepare(int64_t i, int64_t g) {
    const int64_t b = b0 + i, at = (i * a.K + g) * H * wide;
    a.transpose(a.k, b, g, &keys[at]);
    a.transpose(a.v, b, g, &values[at]);
    for (int64_t t = b * a.T; t < (b + 1) * a.T; t++) {
      std::fill_n(dv + (t * a.K + g) * H, H, 0.f);
      std::fill_n(dqk + t * C + (a.N + g) * H, H, 0.f);
      if (t < b * a.T + a.t0) std::fill_n(dqk + t * C + g * a.G * H, a.G * H, 0.f);
    }
  }

  /** P, dS and dq of a tile. */
  void queries(int64_t g, int64_t j, int64_t i, int64_t number) {
    const Attention::Tile& tile = seen[i * now + number];
    const int64_t b = b0 + i, n = g * a.G + j, width = tile.high - tile.low, first = b * T + tile.first - a.t0;
    const int64_t next = std::min(wide, (tile.high + piece - 1) / piece * piece),
                  at = (i * a.K + g) * H * wide + tile.low;
    float *p = &P[scoresAt(i, j, number)], *ds = &dS[scoresAt(i, j, number)];
    const float *d = dy + (first * a.N + n) * H, *o = out + (first * a.N + n) * H;
    const float* q = a.q.at(b, n) + tile.first * C;
    product(q, C, 1, &keys[at], wide, p + tile.low, wide, tile.count, width, H, false);
    product(d, a.N * H, 1, &values[at], wide, ds + tile.low, wide, tile.count, width, H, false);
    for (int64_t r = 0; r < tile.count; r++) {
      V along = {};
      sweep(H, [&](int64_t h, int m) { along += load(d + r * a.N * H + h, m) * load(o + r * a.N * H + h, m); });
      const float mean = sum(along), total = sums[(b * a.N + n) * T + tile.first - a.t0 + r];
      float *row = p + r * wide, *slope = ds + r * wide;
      for (float* x : {row, slope}) {
        std::fill(x, x + tile.low, 0.f);
        std::fill(x + tile.high, x + next, 0.f);
      }
      for (int64_t s = tile.low; s < tile.high; s += W) {
        const V x = exp(load(row + s) + load(&tile.mask[r * tile.width + s]) - total);
        store(row + s, x);
        store(slope + s, x * (load(slope + s) - mean));
      }
    }
    product(ds + tile.low, wide, 1, a.k.at(b, g) + tile.low * C, C, dqk + (b * a.T + tile.first) * C + n * H, C,
            tile.count, H, std::min(width, a.S - tile.low), false);
  }

  /** Adds what the queries at work give to dk and dv of the keys from s on. */
  void keysAndValues(int64_t g, int64_t i, int64_t s) {
    const int64_t b = b0 + i, width = std::min(piece, a.S - s);
    const Attention::Tile* tile = &seen[i * now];
    int64_t skipped = 0;
    while (skipped < now && tile[skipped].high <= s) skipped++;
    if (skipped == now) return;
    const int64_t first = tile[skipped].first, count = tile[now - 1].first + tile[now - 1].count - first;
    for (int64_t j = 0; j < a.G; j++) {
      const int64_t n = g * a.G + j, at = scoresAt(i, j, skipped) + s, token = b * a.T + s;
      const float* d = dy + ((b * T + first - a.t0) * a.N + n) * H;
      product(&dS[at], 1, wide, a.q.at(b, n) + first * C, C, dqk + token * C + (a.N + g) * H, C, width, H, count, true);
      product(&P[at], 1, wide, d, a.N * H, dv + (token * a.K + g) * H, a.K * H, width, H, count, true);
    }
  }
};

static void attentionGradient(Call& call) {
  const auto dy = call.input(0), qk = call.input(1), v = call.input(2), places = call.input(3), from = call.input(4),
             out = call.input(5), sums = call.input(6);
  REQUIRE(Attention::fits(call, qk, qk, v, places, places, from) && v.shape.size() == 2 &&
              qk.last() == (call.settings[0] + call.settings[1]) * v.last() / call.settings[1] && dy.size == out.size &&
              dy.size ==
                  places.shape[1] * (places.shape[2] - *from.ints()) * call.settings[0] * v.last() / call.settings[1] &&
              sums.size == places.shape[1] * call.settings[0] * (places.shape[2] - *from.ints()),
          "attention's gradient: shapes must agree; see attention.cc");
  const Attention a(call, qk, qk, v, places, places, from);
  float *dqk = call.output(0, qk.shape), *dv = call.output(1, v.shape);
  if (!a.B || !a.tiles()) {  // nobody attends
    std::fill_n(dqk, qk.size, 0.f);
    std::fill_n(dv, v.size, 0.f);
    return;
  }
  AttentionGradient(a, dy.floats(), out.floats(), sums.floats(), dqk, dv).run();
}
static Op<attentionGradient> attentionGradientOp("MuscAttentionGradient",
                                                 {"dy: float", "qk: float", "v: float", "places: int32", "from: int32",
                                                  "out: float", "sums: float"},
                                                 {"dqk: float", "dv: float"});
