#pragma once
#include "op.h"
#include "simd.h"

// Norms and gated activations, for operations of their own and as parts of others.

/**
 * y [rows, D] = x / sqrt(mean(x²) + eps) · weight [P, D], for P rows in turn; `scale`, if given, becomes 1 / sqrt(...)
 * of each row.
 */
inline void normRows(const float* x, int64_t rows, const float* weight, int64_t P, int64_t D, float eps, float* y,
                     float* scale = nullptr) {
  parallelRows(rows, D, [&](int64_t i) {
    const float *from = x + i * D, *w = weight + (i % P) * D;
    V squares = {};
    sweep(D, [&](int64_t at, int n) {
      V v = load(from + at, n);
      squares += v * v;
    });
    const float r = 1 / std::sqrt(sum(squares) / D + eps);
    sweep(D, [&](int64_t at, int n) { store(y + i * D + at, load(from + at, n) * r * load(w + at, n), n); });
    if (scale) scale[i] = r;
  });
}

/** y = act(gate) · up; y may be one of them. */
inline void gateBy(const float* gate, const float* up, int64_t size, bool gelu, float* y) {
  const int64_t piece = 4096;
  // An activation takes as long as some thirty operations.
  parallel((size + piece - 1) / piece, 32 * piece, [&](int64_t p) {
    const int64_t from = p * piece;
    sweep(std::min(piece, size - from), [&](int64_t at, int n) {
      const V g = load(gate + from + at, n);
      store(y + from + at, g * gateFactor(g, gelu) * load(up + from + at, n), n);
    });
  });
}
