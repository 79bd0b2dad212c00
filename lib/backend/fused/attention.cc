#include "op.h"
#include "simd.h"

// softmax(q kᵀ) v over the keys that each query may see, without ever holding the scores of all queries (Dao 2022). Queries carry
// the factor of q kᵀ already.
//
// q [B T, ≥ N H], heads in the first columns; k and v [B S, ≥ K H], heads in the last columns, or [B, K, S, H] as a cache
// keeps them. places of queries and keys [2, B, T] and [2, B, S]: positions, then segments. A query sees keys of its segment and
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
      : B(queries.shape[1]), T(queries.shape[2]), S(keys.shape[2]), N(call.settings[0]), K(call.settings[1]),
        H(v_.shape.size() == 4 ? v_.last() : v_.last() / K), G(N / K), t0(*from.ints()), window(call.settings[2]),
        padded((S + W - 1) / W * W), same(k_.data == q_.data), q(q_, T, N, H, false), k(k_, S, K, H, true),
        v(v_, S, K, H, true),
        queryPlaces(queries.ints()), keyPlaces(keys.ints()) {}

  /** Queries [first, first + count) of one row, and the keys [low, high) that one of them or more sees. */
  struct Tile {
    int64_t b, first, count, low, high;
    std::vector<float> mask;  // [count, high - low], 0 or -infinity
  };

  static constexpr int64_t tileSize = 24;
  int64_t tiles() const { return (T - t0 + tileSize - 1) / tileSize; }

  Tile tile(int64_t b, int64_t i) const {
    Tile tile{b, t0 + i * tileSize, 0, padded, 0, {}};
    tile.count = std::min(tileSize, T - tile.first);
    const int64_t end = same ? std::min((tile.first + tile.count + W - 1) / W * W, padded) : padded;
    std::vector<int32_t> position(end, std::numeric_limits<int32_t>::max()), segment(end, -2);
    std::copy_n(keyPlaces + b * S, std::min(end, S), position.begin());
    std::copy_n(keyPlaces + (B + b) * S, std::min(end, S), segment.begin());
    std::vector<float> mask(tile.count * end);
    const V none = all(-std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < tile.count; r++) {
      const int32_t at = queryPlaces[b * T + tile.first + r], own = queryPlaces[(B + b) * T + tile.first + r];
      const int32_t oldest = window ? at - static_cast<int32_t>(window) : -1;
      const I shared = own < 0 ? I{} - 2 : I{};
      for (int64_t s = 0; s < end; s += W) {
        const I p = load(&position[s]), g = load(&segment[s]);
        const I seen = ((g == own) | (g == shared)) & (p <= at) & (p > oldest) & (g != -2);
        store(&mask[r * end + s], choose(seen, V{}, none));
        bool any = false;
        for (int j = 0; j < W; j++) any |= seen[j] != 0;
        if (!any) continue;
        tile.low = std::min(tile.low, s);
        tile.high = std::max(tile.high, s + W);
      }
    }
    const int64_t width = tile.high - tile.low;
    tile.mask.resize(tile.count * width);
    for (int64_t r = 0; r < tile.count; r++)
      std::copy_n(&mask[r * end + tile.low], width, &tile.mask[r * width]);
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

  /** q kᵀ + mask of a tile and a head -> scores [count, high - low]. */
  void scores(const Tile& tile, const float* query, const float* keys, float* into) const {
    const int64_t width = tile.high - tile.low;
    product(query, q.row, 1, keys + tile.low, padded, into, width, tile.count, width, H, false);
    for (int64_t i = 0; i < tile.count * width; i += W) store(into + i, load(into + i) + load(&tile.mask[i]));
  }
};

// -> out [B (T - from), N H], and log Σ exp(scores) [B, N, T - from]
static void attention(Call& call) {
  const auto q = call.input(0), k = call.input(1), v = call.input(2), queries = call.input(3), keys = call.input(4),
             from = call.input(5);
  const Attention a(call, q, k, v, queries, keys, from);
  const int64_t T = a.T - a.t0, H = a.H, tiles = a.tiles();
  float* out = call.output(0, {a.B * T, a.N * H});
  float* sums = call.output(1, {a.B, a.N, T});
  std::vector<float> transposed(a.B * a.K * H * a.padded);
  parallel(a.B * a.K, 4 * H * a.S, [&](int64_t i) { a.transpose(a.k, i / a.K, i % a.K, &transposed[i * H * a.padded]); });
  parallel(a.B * tiles, 2 * a.tileSize * a.N * H * a.S, [&](int64_t i) {
    const Attention::Tile tile = a.tile(i / tiles, i % tiles);
    const int64_t b = tile.b, width = tile.high - tile.low, first = tile.first - a.t0;
    std::vector<float> p(tile.count * width);
    for (int64_t n = 0; n < a.N; n++) {
      const int64_t g = n / a.G;
      a.scores(tile, a.q.at(b, n) + tile.first * a.q.row, &transposed[(b * a.K + g) * H * a.padded], p.data());
      for (int64_t r = 0; r < tile.count; r++) {
        float* row = &p[r * width];
        V tops = load(row);
        for (int64_t s = W; s < width; s += W) tops = greater(tops, load(row + s));
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
      product(p.data(), width, 1, values, a.v.row, out + (b * T + first) * a.N * H + n * H, a.N * H, tile.count, H, known,
              false);
    }
  });
}
static Op<attention> attentionOp("MuscAttention",
                                 {"q: float", "k: float", "v: float", "queries: int32", "keys: int32", "from: int32"},
                                 {"out: float", "sums: float"});

// Gradients by qk [B T, (N + K) H] and v [B T, K H], of dy [B (T - from), N H]. With P = exp(scores - sums) and dP = dy vᵀ:
// dS = P (dP - Σ dy out), dq = dS k, dk = dSᵀ q, dv = Pᵀ dy.
static void attentionGradient(Call& call) {
  const auto dy = call.input(0), qk = call.input(1), v = call.input(2), places = call.input(3), from = call.input(4),
             out = call.input(5), sums = call.input(6);
  const Attention a(call, qk, qk, v, places, places, from);
  const int64_t T = a.T - a.t0, H = a.H, tiles = a.tiles(), C = (a.N + a.K) * H, wide = a.padded;
  float* dqk = call.output(0, qk.shape);
  float* dv = call.output(1, v.shape);
  const int64_t units = a.B * a.K;  // (row of the batch, key head)
  // Scores of some queries for some units at once: as many as stay in the cache.
  const int64_t chunk = std::min(tiles, std::max<int64_t>(1, (1 << 18) / (a.G * a.tileSize * wide)));
  const int64_t queries = chunk * a.tileSize;
  const int64_t together = std::min(units, std::max<int64_t>(1, (1 << 18) / (a.G * queries * wide)));
  std::vector<float> P(together * a.G * queries * wide), dS(P.size());
  std::vector<float> keys(together * H * wide), values(keys.size());
  std::vector<int64_t> ends(together * chunk);
  for (int64_t u0 = 0; u0 < units; u0 += together) {
    const int64_t some = std::min(together, units - u0);
    parallel(some, 8 * H * a.S, [&](int64_t u) {
      const int64_t b = (u0 + u) / a.K, g = (u0 + u) % a.K;
      a.transpose(a.k, b, g, &keys[u * H * wide]);
      a.transpose(a.v, b, g, &values[u * H * wide]);
      for (int64_t t = 0; t < a.T; t++) {
        std::fill_n(dv + (b * a.T + t) * a.K * H + g * H, H, 0.f);
        std::fill_n(dqk + (b * a.T + t) * C + (a.N + g) * H, H, 0.f);
        if (t < a.t0) std::fill_n(dqk + (b * a.T + t) * C + g * a.G * H, a.G * H, 0.f);
      }
    });
    for (int64_t c0 = 0; c0 < tiles; c0 += chunk) {
      const int64_t now = std::min(chunk, tiles - c0);
      parallel(some * now, 6 * a.G * a.tileSize * H * a.S, [&](int64_t i) {
        const int64_t u = i / now, b = (u0 + u) / a.K, g = (u0 + u) % a.K;
        const Attention::Tile tile = a.tile(b, c0 + i % now);
        const int64_t width = tile.high - tile.low, first = tile.first - a.t0;
        ends[u * chunk + i % now] = tile.high;
        for (int64_t j = 0; j < a.G; j++) {
          const int64_t n = g * a.G + j;
          float* p = &P[((u * a.G + j) * queries + (i % now) * a.tileSize) * wide];
          float* ds = &dS[p - P.data()];
          const float* query = a.q.at(b, n) + tile.first * a.q.row;
          const float* d = dy.floats() + (b * T + first) * a.N * H + n * H;
          const float* o = out.floats() + (b * T + first) * a.N * H + n * H;
          product(query, C, 1, &keys[u * H * wide] + tile.low, wide, p + tile.low, wide, tile.count, width, H, false);
          product(d, a.N * H, 1, &values[u * H * wide] + tile.low, wide, ds + tile.low, wide, tile.count, width, H, false);
          for (int64_t r = 0; r < tile.count; r++) {
            V along = {};
            sweep(H, [&](int64_t at, int m) { along += load(d + r * a.N * H + at, m) * load(o + r * a.N * H + at, m); });
            const float mean = sum(along), total = sums.floats()[(b * a.N + n) * T + first + r];
            float *row = p + r * wide, *slope = ds + r * wide;
            std::fill(row, row + tile.low, 0.f);
            std::fill(slope, slope + tile.low, 0.f);
            for (int64_t s = 0; s < width; s += W) {
              const V x = exp(load(row + tile.low + s) + load(&tile.mask[r * width + s]) - total);
              store(row + tile.low + s, x);
              store(slope + tile.low + s, x * (load(slope + tile.low + s) - mean));
            }
          }
          product(ds + tile.low, wide, 1, a.k.at(b, g) + tile.low * C, C, dqk + (b * a.T + tile.first) * C + n * H, C,
                  tile.count, H, std::min(width, a.S - tile.low), false);
        }
      });
      const int64_t pieces = (a.S + 31) / 32;
      parallel(some * pieces, 4 * a.G * now * a.tileSize * H * 32, [&](int64_t i) {
        const int64_t u = i / pieces, b = (u0 + u) / a.K, g = (u0 + u) % a.K, s = (i % pieces) * 32;
        const int64_t width = std::min<int64_t>(32, a.S - s);
        for (int64_t t = 0; t < now; t++) {
          if (ends[u * chunk + t] <= s) continue;
          const int64_t first = a.t0 + (c0 + t) * a.tileSize, count = std::min(a.tileSize, a.T - first);
          for (int64_t j = 0; j < a.G; j++) {
            const int64_t n = g * a.G + j, at = ((u * a.G + j) * queries + t * a.tileSize) * wide + s;
            // Beyond the keys that the tile sees there is nothing.
            const int64_t known = std::min(width, ends[u * chunk + t] - s);
            product(&dS[at], 1, wide, a.q.at(b, n) + first * C, C, dqk + (b * a.T + s) * C + (a.N + g) * H, C, known, H,
                    count, true);
            product(&P[at], 1, wide, dy.floats() + (b * T + first - a.t0) * a.N * H + n * H, a.N * H,
                    dv + (b * a.T + s) * a.K * H + g * H, a.K * H, known, H, count, true);
          }
        }
      });
    }
  }
}
static Op<attentionGradient> attentionGradientOp(
    "MuscAttentionGradient",
    {"dy: float", "qk: float", "v: float", "places: int32", "from: int32", "out: float", "sums: float"},
    {"dqk: float", "dv: float"});
