#include "op.h"
#include "simd.h"

// One token a row against a cache. Turns q and k by the token's position, writes k and v into their column of the cache, in place,
// and attends: softmax(q kᵀ) v over the columns from the row's first on.
//
// qk [B, (N + K) H], v [B, K H], cos and sin [B, H / 2], scale of q; cached keys and values [B K S, H], all of whose rows but the
// column's are kept; column (the same for all rows); first [B] -> out [B, N H]. Settings: N, K, window (0 for none).
static void decode(Call& call) {
  const auto qk = call.input(0), v = call.input(1), cos = call.input(2), sin = call.input(3), scale = call.input(4),
             keys = call.input(5), values = call.input(6), column = call.input(7), firsts = call.input(8);
  const int64_t N = call.settings[0], K = call.settings[1], window = call.settings[2];
  const int64_t B = firsts.size, H = keys.last(), half = H / 2, S = keys.size / (B * K * H), G = N / K;
  const int64_t now = *column.ints();
  float* out = call.output(0, {B, N * H});
  parallel(B, 4 * N * H * (now + 1), [&](int64_t b) {
    std::vector<float> turned((N + K) * H), scores(G * (S + W));
    for (int64_t h = 0; h < N + K; h++) {
      const float* x = qk.floats() + (b * (N + K) + h) * H;
      float* to = &turned[h * H];
      const float factor = h < N ? *scale.floats() : 1;
      sweep(half, [&](int64_t j, int n) {
        const V c = load(cos.floats() + b * half + j, n) * factor, s = load(sin.floats() + b * half + j, n) * factor;
        const V low = load(x + j, n), high = load(x + half + j, n);
        store(to + j, low * c - high * s, n);
        store(to + half + j, high * c + low * s, n);
      });
    }
    const int64_t first = std::max<int64_t>(firsts.ints()[b], window ? now - window + 1 : 0), count = now - first + 1;
    for (int64_t g = 0; g < K; g++) {
      float* k = const_cast<float*>(keys.floats()) + (b * K + g) * S * H;
      float* w = const_cast<float*>(values.floats()) + (b * K + g) * S * H;
      std::copy_n(&turned[(N + g) * H], H, k + now * H);
      std::copy_n(v.floats() + (b * K + g) * H, H, w + now * H);
      const float* q = &turned[g * G * H];
      for (int64_t s = 0; s < count; s++) {
        const float* key = k + (first + s) * H;
        for (int64_t j = 0; j < G; j++) {
          V total = {};
          sweep(H, [&](int64_t at, int n) { total += load(q + j * H + at, n) * load(key + at, n); });
          scores[j * (S + W) + s] = sum(total);
        }
      }
      for (int64_t j = 0; j < G; j++) {
        float* row = &scores[j * (S + W)];
        const float top = *std::max_element(row, row + count);
        std::fill_n(row + count, W, -std::numeric_limits<float>::infinity());
        V odds = {};
        for (int64_t s = 0; s < count; s += W) {
          const V odd = exp(load(row + s) - top);
          odds += odd;
          store(row + s, odd);
        }
        const float share = 1 / sum(odds);
        for (int64_t s = 0; s < count; s += W) store(row + s, load(row + s) * share);
      }
      product(scores.data(), S + W, 1, w + first * H, H, out + b * N * H + g * G * H, H, G, H, count, false);
    }
  });
}
static Op<decode> decodeOp("MuscDecode",
                           {"qk: float", "v: float", "cos: float", "sin: float", "scale: float", "keys: float",
                            "values: float", "column: int32", "first: int32"},
                           {"out: float"});
