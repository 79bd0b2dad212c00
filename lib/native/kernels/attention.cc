#include <numeric>

#include "op.h"
#include "simd.h"

// softmax(q kᵀ) v over the keys that each query may see, without ever holding the scores of all queries (Dao 2022).
// Queries carry the factor of q kᵀ already.
//
// M tokens of B sequences, one sequence after another: sequence b has tokens [bounds[b], bounds[b + 1]).
// q [M, ≥ N H], heads in the first columns; k and v [M, ≥ K H], heads in the last columns, or [B, K, S, H] as in a
// cache. Places of queries [2, …] and keys [2, …], M or B S of each: positions, then segments. A query sees keys of its
// sequence and segment and of segment 0, which padding (-1) does not see, up to its own position and back to a window.
// Queries begin at `from` in each sequence. Settings: N, K, window (0 for none).
//
// Sequences may also begin with P tokens that all share, at positions from 0 on: shared keys [K, H, P'], transposed, P'
// being whole vectors, and shared values [K, P, H]. A row gets the same digits whether its first keys are shared or its
// own: sums go by the same lanes and in the same order.

struct Heads {
  const float* data;
  int64_t row, head, batch;  // steps from one token and head to the next, and from one sequence of a cache to the next

  Heads(const Call::Input& x, int64_t heads, int64_t H, bool last) {
    const bool cached = x.shape.size() == 4;
    const int64_t tokens = cached ? x.shape[2] : 0;
    row = cached ? H : x.last();
    head = cached ? tokens * H : H;
    batch = heads * tokens * H;
    data = x.floats() + (!cached && last ? row - heads * H : 0);
  }
};

struct Attention {
  const int32_t* bounds;
  int64_t B, M, N, K, H, G, t0, window;
  bool same, cached;  // whether keys are those of the queries, and whether they come from a cache
  Heads q, k, v;
  int64_t S;  // of the cache
  const int32_t *queryPlaces, *keyPlaces;
  int64_t P = 0, sharedLine = 0;  // shared keys, and the length of a line of them
  const float *sharedKeys = nullptr, *sharedValues = nullptr;
  int64_t base = 0;                     // shared keys in whole vectors; the others stand before each sequence's own
  int64_t longest = 0, padded;          // keys of the longest sequence, and as whole vectors
  int64_t line;                         // of transposed keys of one sequence, which begin with key `base`
  std::vector<int64_t> attended = {0};  // queries that attend, of the sequences before each and of all

  Attention(Call& call, const Call::Input& q_, const Call::Input& k_, const Call::Input& v_, const Call::Input& queries,
            const Call::Input& keys, const Call::Input& from, const Call::Input& bounds_,
            const std::vector<Call::Input>& shared = {})
      : bounds(bounds_.ints()),
        B(bounds_.size - 1),
        M(queries.size / 2),
        N(call.settings[0]),
        K(call.settings[1]),
        H(v_.shape.size() == 4 ? v_.last() : v_.last() / K),
        G(N / K),
        t0(*from.ints()),
        window(call.settings[2]),
        same(k_.data == q_.data),
        cached(v_.shape.size() == 4),
        q(q_, N, H, false),
        k(k_, K, H, true),
        v(v_, K, H, true),
        S(cached ? v_.shape[2] : 0),
        queryPlaces(queries.ints()),
        keyPlaces(keys.ints()) {
    if (!shared.empty()) {
      sharedKeys = shared[0].floats(), sharedLine = shared[0].last();
      sharedValues = shared[1].floats(), P = shared[1].shape[1];
      base = P / W * W;
    }
    for (int64_t b = 0; b < B; b++) {
      attended.push_back(attended.back() + std::max<int64_t>(0, length(b) - t0));
      longest = std::max(longest, keysOf(b));
    }
    padded = odd((longest + W - 1) / W) * W;
    line = odd((longest - base + W - 1) / W) * W;
  }

  int64_t length(int64_t b) const { return bounds[b + 1] - bounds[b]; }
  int64_t keysOf(int64_t b) const { return cached ? S : P + length(b); }
  /** Queries of a sequence that attend. */
  int64_t attending(int64_t b) const { return attended[b + 1] - attended[b]; }
  const float* query(int64_t b, int64_t n) const { return q.data + bounds[b] * q.row + n * q.head; }
  const float* keysAt(const Heads& x, int64_t b, int64_t g) const {
    return x.data + (cached ? b * x.batch : bounds[b] * x.row) + g * x.head;
  }

  /** Whether the inputs are what stands above. */
  static bool fits(const Call& call, const Call::Input& q, const Call::Input& k, const Call::Input& v,
                   const Call::Input& queries, const Call::Input& keys, const Call::Input& from,
                   const Call::Input& bounds) {
    const int64_t M = queries.size / 2, B = bounds.size - 1, N = call.settings[0], K = call.settings[1];
    if (queries.shape.empty() || keys.shape.empty() || queries.shape[0] != 2 || keys.shape[0] != 2 || from.size != 1)
      return false;
    if (B < 0 || bounds.ints()[0] != 0 || bounds.ints()[B] != M) return false;
    for (int64_t b = 0; b < B; b++)
      if (bounds.ints()[b] > bounds.ints()[b + 1]) return false;
    if (N < 1 || K < 1 || N % K || *from.ints() < 0) return false;
    const bool cached = v.shape.size() == 4;
    const int64_t H = cached ? v.last() : v.last() / K;
    if (H < 1 || q.last() < N * H || q.size != M * q.last()) return false;
    if (cached)
      return v.shape[2] > 0 && v.is({B, K, v.shape[2], H}) && k.shape == v.shape && keys.size == 2 * B * v.shape[2];
    return v.last() == K * H && v.size == M * K * H && keys.size == 2 * M && k.last() >= K * H &&
           k.size == M * k.last();
  }

  /** Whether shared keys and values are what stands above; `fits` holds. */
  static bool fitShared(const Call& call, const Call::Input& k, const Call::Input& v, const Call::Input& keys,
                        const Call::Input& values) {
    const int64_t K = call.settings[1], H = v.last() / K;
    if (v.shape.size() != 2 || values.shape.size() != 3 || keys.shape.size() != 3) return false;
    const int64_t P = values.shape[1], whole = keys.last();
    return values.is({K, P, H}) && keys.is({K, H, whole}) && whole >= P && whole % W == 0;
  }

  /** Rows of an odd number of vectors do not all fall into the same places of a cache. */
  static int64_t odd(int64_t n) { return n / 2 * 2 + 1; }

  /** Queries [first, first + count) of sequence b, and the keys [low, high) that one of them or more sees. */
  struct Tile {
    int64_t b = 0, first = 0, count = 0, low = 0, high = 0, width = 0;
    std::vector<float> mask;  // [count, width], 0 or -infinity
    const float* hidden(int64_t query) const { return &mask[query * width + low]; }
  };

  static constexpr int64_t tileSize = 24;
  int64_t tiles(int64_t b) const { return (attending(b) + tileSize - 1) / tileSize; }

  Tile tile(int64_t b, int64_t i) const {
    Tile tile{b, t0 + i * tileSize, std::min(tileSize, attending(b) - i * tileSize)};
    // What stands behind a token is out of its sight.
    const int64_t own = keysOf(b) - P, from = cached ? b * S : bounds[b], allKeys = cached ? B * S : M;
    const int64_t end = same ? std::min((P + tile.first + tile.count + W - 1) / W * W, padded) : padded;
    const int64_t first = std::min(end, P), known = std::min(end - first, own);
    std::vector<int32_t> position(end, std::numeric_limits<int32_t>::max()), segment(end, -2), anyone(end);
    std::iota(position.begin(), position.begin() + first, 0);
    std::fill_n(segment.begin(), first, 0);
    std::copy_n(keyPlaces + from, known, position.begin() + first);
    std::copy_n(keyPlaces + allKeys + from, known, segment.begin() + first);
    tile.width = end;
    tile.mask.resize(tile.count * end);
    const V none = all(-std::numeric_limits<float>::infinity());
    for (int64_t r = 0; r < tile.count; r++) {
      const int64_t token = bounds[b] + tile.first + r;
      const int32_t at = queryPlaces[token], group = queryPlaces[M + token];
      const int32_t oldest = window ? at - static_cast<int32_t>(window) : -1, shared = group < 0 ? group : 0;
      for (int64_t s = 0; s < end; s += W) {
        const I p = load(&position[s]), g = load(&segment[s]);
        const I seen = ((g == group) | (g == shared)) & (p <= at) & (p > oldest);
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

  /** [H, line] of one head's keys or values [S, H]: shared ones from `base` on, then the sequence's own. */
  void transpose(const Heads& x, int64_t b, int64_t head, float* to) const {
    const int64_t before = P - base, count = keysOf(b) - P;
    const float* from = keysAt(x, b, head);
    for (int64_t h = 0; h < H; h++) {
      if (before) std::copy_n(sharedKeys + (head * H + h) * sharedLine + base, before, to + h * line);
      std::fill(to + h * line + before + count, to + (h + 1) * line, 0.f);
    }
    for (int64_t s0 = 0; s0 < count; s0 += W)
      for (int64_t h = 0; h < H; h++)
        for (int64_t s = s0; s < std::min(s0 + W, count); s++) to[h * line + before + s] = from[s * x.row + h];
  }

  /** p [count, width] = q kᵀ of a tile; `own` are the transposed keys of its sequence. */
  void scores(const Tile& tile, int64_t n, const float* own, float* p) const {
    const int64_t width = tile.high - tile.low, shared = std::clamp<int64_t>(base - tile.low, 0, width);
    const float* rows = query(tile.b, n) + tile.first * q.row;
    if (shared) {
      const float* keys = sharedKeys + n / G * H * sharedLine + tile.low;
      product(rows, q.row, 1, keys, sharedLine, p, width, tile.count, shared, H, false);
    }
    product(rows, q.row, 1, own + tile.low + shared - base, line, p + shared, width, tile.count, width - shared, H,
            false);
  }

  /** to [count, ldc] = p [count, width] · v of a tile. */
  void values(const Tile& tile, int64_t n, const float* p, float* to, int64_t ldc) const {
    const int64_t width = tile.high - tile.low, shared = std::clamp<int64_t>(P - tile.low, 0, width);
    const int64_t first = tile.low + shared - P, known = std::min(width, keysOf(tile.b) - tile.low) - shared;
    if (shared) {
      const float* before = sharedValues + (n / G * P + tile.low) * H;
      product(p, width, 1, before, H, to, ldc, tile.count, H, shared, false);
    }
    product(p + shared, width, 1, keysAt(v, tile.b, n / G) + first * v.row, v.row, to, ldc, tile.count, H, known,
            shared > 0);
  }
};

// -> out [M', N H] of the M' queries that attend, and log Σ exp(scores) [M' N]: by sequence, head, and query
static void attention(Call& call) {
  const auto q = call.input(0), k = call.input(1), v = call.input(2), queries = call.input(3), keys = call.input(4),
             from = call.input(5), bounds = call.input(6);
  REQUIRE(Attention::fits(call, q, k, v, queries, keys, from, bounds),
          "attention: shapes must agree; see attention.cc");
  std::vector<Call::Input> shared;
  for (int i = 7; i < call.inputs(); i++) shared.push_back(call.input(i));
  REQUIRE(shared.empty() || Attention::fitShared(call, k, v, shared[0], shared[1]),
          "attention: shared keys and values must fit the others; see attention.cc");
  const Attention a(call, q, k, v, queries, keys, from, bounds, shared);
  const int64_t H = a.H;
  float* out = call.output(0, {a.attended.back(), a.N * H});
  float* sums = call.output(1, {a.attended.back() * a.N});
  std::vector<float> transposed(a.B * a.K * H * a.line);
  parallel(a.B * a.K, 4 * H * a.line,
           [&](int64_t i) { a.transpose(a.k, i / a.K, i % a.K, &transposed[i * H * a.line]); });
  std::vector<std::pair<int64_t, int64_t>> tiles;  // sequence, and number in it
  for (int64_t b = 0; b < a.B; b++)
    for (int64_t i = 0; i < a.tiles(b); i++) tiles.emplace_back(b, i);
  parallel(tiles.size(), 2 * a.tileSize * a.N * H * a.longest, [&](int64_t i) {
    const Attention::Tile tile = a.tile(tiles[i].first, tiles[i].second);
    const int64_t b = tile.b, width = tile.high - tile.low, first = tile.first - a.t0;
    std::vector<float> p(tile.count * width);
    for (int64_t n = 0; n < a.N; n++) {
      a.scores(tile, n, &transposed[(b * a.K + n / a.G) * H * a.line], p.data());
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
        sums[a.attended[b] * a.N + n * a.attending(b) + first + r] = top + std::log(total);
      }
      a.values(tile, n, p.data(), out + (a.attended[b] + first) * a.N * H + n * H, a.N * H);
    }
  });
}
static Op<attention> attentionOp("MuscAttention",
                                 {"q: float", "k: float", "v: float", "queries: int32", "keys: int32", "from: int32",
                                  "bounds: int32"},
                                 {"out: float", "sums: float"});
static Op<attention> sharedAttentionOp("MuscSharedAttention",
                                       {"q: float", "k: float", "v: float", "queries: int32", "keys: int32",
                                        "from: int32", "bounds: int32", "shared_k: float", "shared_v: float"},
                                       {"out: float", "sums: float"});

// Gradients by qk [M, (N + K) H] and v [M, K H], of dy [M', N H]. With P = exp(scores - sums) and dP = dy vᵀ:
// dS = P (dP - Σ dy out), dq = dS k, dk = dSᵀ q, dv = Pᵀ dy.
class AttentionGradient {
 public:
  AttentionGradient(const Attention& a, const float* dy, const float* out, const float* sums, float* dqk, float* dv)
      : a(a), dy(dy), out(out), sums(sums), dqk(dqk), dv(dv) {}

  void run() {
    for (b0 = 0; b0 < a.B; b0 += together) {
      rows = std::min(together, a.B - b0);
      parallel(rows * a.K, 8 * H * a.longest, [&](int64_t i) { prepare(i / a.K, i % a.K); });
      for (int64_t first = 0; first < tiles; first += chunk) {
        now = std::min(chunk, tiles - first);
        parallel(rows * now, 4 * a.tileSize * a.longest, [&](int64_t i) {
          const int64_t b = b0 + i / now, number = first + i % now;
          seen[i] = number < a.tiles(b) ? a.tile(b, number) : Attention::Tile{b};
        });
        for (int64_t g = 0; g < a.K; g++) {
          parallel(rows * now, 6 * a.G * a.tileSize * H * a.longest, [&](int64_t i) {
            for (int64_t j = 0; j < a.G && seen[i].count; j++) queries(g, j, i / now, i % now);
          });
          const int64_t pieces = (a.longest + piece - 1) / piece;
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

  const int64_t H = a.H, C = (a.N + a.K) * H, tiles = (a.longest - a.t0 + a.tileSize - 1) / a.tileSize, wide = a.padded;
  // Scores of some queries of some sequences at once, for the heads of a group: as many as stay in the cache.
  static constexpr int64_t fitting = 1 << 16;
  static constexpr int64_t piece = 48;  // keys at once
  const int64_t chunk = std::min(tiles, std::max<int64_t>(1, fitting / (a.G * a.tileSize * wide)));
  const int64_t together = std::min(a.B, std::max<int64_t>(1, fitting / (a.G * chunk * a.tileSize * wide)));
  std::vector<float> P = std::vector<float>(together * a.G * chunk * a.tileSize * wide), dS = P;
  std::vector<float> keys = std::vector<float>(together * a.K * H * wide), values = keys;  // transposed
  std::vector<Attention::Tile> seen = std::vector<Attention::Tile>(together * chunk);
  int64_t b0 = 0, rows = 0, now = 0;  // sequences, and tiles of each, that are at work

  /** Where scores of a tile are, of sequence b0 + i and head j of a group. */
  int64_t scoresAt(int64_t i, int64_t j, int64_t tile) const {
    return ((i * a.G + j) * chunk + tile) * a.tileSize * wide;
  }

  void prepare(int64_t i, int64_t g) {
    const int64_t b = b0 + i, at = (i * a.K + g) * H * wide;
    a.transpose(a.k, b, g, &keys[at]);
    a.transpose(a.v, b, g, &values[at]);
    for (int64_t t = a.bounds[b]; t < a.bounds[b + 1]; t++) {
      std::fill_n(dv + (t * a.K + g) * H, H, 0.f);
      std::fill_n(dqk + t * C + (a.N + g) * H, H, 0.f);
      if (t < a.bounds[b] + a.t0) std::fill_n(dqk + t * C + g * a.G * H, a.G * H, 0.f);
    }
  }

  /** P, dS and dq of a tile. */
  void queries(int64_t g, int64_t j, int64_t i, int64_t number) {
    const Attention::Tile& tile = seen[i * now + number];
    const int64_t b = b0 + i, n = g * a.G + j, width = tile.high - tile.low, first = a.attended[b] + tile.first - a.t0;
    const int64_t next = std::min(wide, (tile.high + piece - 1) / piece * piece),
                  at = (i * a.K + g) * H * wide + tile.low;
    float *p = &P[scoresAt(i, j, number)], *ds = &dS[scoresAt(i, j, number)];
    const float *d = dy + (first * a.N + n) * H, *o = out + (first * a.N + n) * H;
    const float* q = a.query(b, n) + tile.first * C;
    const float* sumsOf = sums + a.attended[b] * a.N + n * a.attending(b) + tile.first - a.t0;
    product(q, C, 1, &keys[at], wide, p + tile.low, wide, tile.count, width, H, false);
    product(d, a.N * H, 1, &values[at], wide, ds + tile.low, wide, tile.count, width, H, false);
    for (int64_t r = 0; r < tile.count; r++) {
      V along = {};
      sweep(H, [&](int64_t h, int m) { along += load(d + r * a.N * H + h, m) * load(o + r * a.N * H + h, m); });
      const float mean = sum(along), total = sumsOf[r];
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
    product(ds + tile.low, wide, 1, a.keysAt(a.k, b, g) + tile.low * C, C, dqk + (a.bounds[b] + tile.first) * C + n * H,
            C, tile.count, H, std::min(width, a.keysOf(b) - tile.low), false);
  }

  /** Adds what the queries at work give to dk and dv of the keys from s on. */
  void keysAndValues(int64_t g, int64_t i, int64_t s) {
    const int64_t b = b0 + i, width = std::min(piece, a.keysOf(b) - s);
    const Attention::Tile* tile = &seen[i * now];
    int64_t skipped = 0, end = now;
    while (end && !tile[end - 1].count) end--;
    while (skipped < end && tile[skipped].high <= s) skipped++;
    if (skipped == end) return;
    const int64_t first = tile[skipped].first, count = tile[end - 1].first + tile[end - 1].count - first;
    for (int64_t j = 0; j < a.G; j++) {
      const int64_t n = g * a.G + j, at = scoresAt(i, j, skipped) + s, token = a.bounds[b] + s;
      const float* d = dy + ((a.attended[b] + first - a.t0) * a.N + n) * H;
      product(&dS[at], 1, wide, a.query(b, n) + first * C, C, dqk + token * C + (a.N + g) * H, C, width, H, count,
              true);
      product(&P[at], 1, wide, d, a.N * H, dv + (token * a.K + g) * H, a.K * H, width, H, count, true);
    }
  }
};

static void attentionGradient(Call& call) {
  const auto dy = call.input(0), qk = call.input(1), v = call.input(2), places = call.input(3), from = call.input(4),
             bounds = call.input(5), out = call.input(6), sums = call.input(7);
  REQUIRE(Attention::fits(call, qk, qk, v, places, places, from, bounds) && v.shape.size() == 2 &&
              qk.last() == (call.settings[0] + call.settings[1]) * v.last() / call.settings[1],
          "attention's gradient: shapes must agree; see attention.cc");
  const Attention a(call, qk, qk, v, places, places, from, bounds);
  const int64_t attended = a.attended.back() * a.N;
  REQUIRE(dy.size == attended * a.H && out.size == dy.size && sums.size == attended,
          "attention's gradient: shapes must agree; see attention.cc");
  float *dqk = call.output(0, qk.shape), *dv = call.output(1, v.shape);
  if (!attended) {  // nobody attends
    std::fill_n(dqk, qk.size, 0.f);
    std::fill_n(dv, v.size, 0.f);
    return;
  }
  AttentionGradient(a, dy.floats(), out.floats(), sums.floats(), dqk, dv).run();
}
static Op<attentionGradient> attentionGradientOp("MuscAttentionGradient",
                                                 {"dy: float", "qk: float", "v: float", "places: int32", "from: int32",
                                                  "bounds: int32", "out: float", "sums: float"},
                                                 {"dqk: float", "dv: float"});
