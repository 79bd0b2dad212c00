#include "elementwise.h"

// Operations that go over memory once: norms, gated activations, rotary positions, softmax with cross-entropy.

// x / sqrt(mean(x²) + eps) · weight. x [..., D], weight [P, D] for P rows in turn; also 1 / sqrt(...) of each row.
static void rmsNorm(Call& call) {
  const auto x = call.input(0), weight = call.input(1), eps = call.input(2);
  const int64_t D = weight.last(), P = weight.rows();
  REQUIRE(D > 0 && P > 0 && x.size % (P * D) == 0 && eps.size == 1,
          "norm: x must be whole rows of the weight, eps a number");
  const int64_t rows = x.size / D;
  float* y = call.output(0, x.shape);
  float* scale = call.output(1, {rows});
  normRows(x.floats(), rows, weight.floats(), P, D, *eps.floats(), y, scale);
}
static Op<rmsNorm> rmsNormOp("MuscRmsNorm", {"x: float", "weight: float", "eps: float"}, {"y: float", "scale: float"});

// With g = dy · weight and u = x · scale: dx = scale (g - u mean(g u)), dweight = Σ dy u. Settings: whether the weight
// is trained.
static void rmsNormGradient(Call& call) {
  const auto dy = call.input(0), x = call.input(1), weight = call.input(2), scale = call.input(3);
  const int64_t D = weight.last(), P = weight.rows();
  REQUIRE(D > 0 && P > 0 && x.size % (P * D) == 0 && dy.size == x.size && scale.size == x.size / D,
          "norm's gradient: dy and x must be whole rows of the weight, with a scale each");
  const int64_t rows = x.size / D;
  float* dx = call.outputOver(0, 0, x.shape);
  const bool trained = call.settings[0];
  float* dw = call.output(1, trained ? weight.shape : std::vector<int64_t>{0});
  if (trained) {
    std::fill(dw, dw + weight.size, 0.f);
    for (int64_t i = 0; i < rows; i++) {
      float* into = dw + (i % P) * D;
      const float r = scale.floats()[i];
      sweep(D, [&](int64_t at, int n) {
        const V term = load(dy.floats() + i * D + at, n) * load(x.floats() + i * D + at, n) * r;
        store(into + at, load(into + at, n) + term, n);
      });
    }
  }
  parallelRows(rows, D, [&](int64_t i) {
    const float *from = x.floats() + i * D, *d = dy.floats() + i * D, *w = weight.floats() + (i % P) * D;
    const float r = scale.floats()[i];
    V along = {};
    sweep(D, [&](int64_t at, int n) { along += load(d + at, n) * load(w + at, n) * load(from + at, n); });
    const float mean = sum(along) * r / D;
    sweep(D, [&](int64_t at, int n) {
      const V g = load(d + at, n) * load(w + at, n);
      store(dx + i * D + at, (g - load(from + at, n) * r * mean) * r, n);
    });
  });
}
static Op<rmsNormGradient> rmsNormGradientOp("MuscRmsNormGradient",
                                             {"dy: float", "x: float", "weight: float", "scale: float"},
                                             {"dx: float", "dweight: float"});

// act(gate) · up. Settings: 0 for SiLU, 1 for the tanh form of GELU.
static void gated(Call& call) {
  const auto gate = call.input(0), up = call.input(1);
  REQUIRE(gate.size == up.size, "gated: gate and up must be of one size");
  float* y = call.output(0, gate.shape);
  const bool gelu = call.settings[0];
  gateBy(gate.floats(), up.floats(), gate.size, gelu, y);
}
static Op<gated> gatedOp("MuscGated", {"gate: float", "up: float"}, {"y: float"});

static void gatedGradient(Call& call) {
  const auto dy = call.input(0), gate = call.input(1), up = call.input(2);
  REQUIRE(gate.size == up.size && gate.size == dy.size, "gated's gradient: dy, gate and up must be of one size");
  float* dGate = call.output(0, gate.shape);
  float* dUp = call.outputOver(1, 0, gate.shape);
  const bool gelu = call.settings[0];
  const int64_t piece = 4096;
  parallelRows((gate.size + piece - 1) / piece, 6 * piece, [&](int64_t p) {
    const int64_t from = p * piece;
    sweep(std::min(piece, gate.size - from), [&](int64_t at, int n) {
      const V g = load(gate.floats() + from + at, n), d = load(dy.floats() + from + at, n);
      const V share = gateFactor(g, gelu);
      const V inner = gelu ? 2 * geluSlope * (1 + 3 * geluCube * g * g) : all(1);
      store(dGate + from + at, d * load(up.floats() + from + at, n) * (share + g * share * (1 - share) * inner), n);
      store(dUp + from + at, d * g * share, n);
    });
  });
}
static Op<gatedGradient> gatedGradientOp("MuscGatedGradient", {"dy: float", "gate: float", "up: float"},
                                         {"dgate: float", "dup: float"});

// Turns each head's halves by its token's angles. x [M, heads · H], cos and sin [M, H / 2]; the first heads are also
// scaled. Settings: how many those are, and 1 to rotate back (which is the gradient).
static void rotate(Call& call) {
  const auto x = call.input(0), cos = call.input(1), sin = call.input(2), scale = call.input(3);
  const int64_t half = cos.last(), M = cos.rows(), scaled = call.settings[0];
  REQUIRE(half > 0 && sin.size == cos.size && scale.size == 1 && (M ? x.size % (M * 2 * half) == 0 : x.size == 0),
          "rotate: each token must have a cos and sin for half of each head");
  const int64_t heads = M ? x.size / M / (2 * half) : 0;
  float* y = call.outputOver(0, 0, x.shape);
  const float sign = call.settings[1] ? -1 : 1;
  parallelRows(M, heads * 2 * half, [&](int64_t i) {
    for (int64_t h = 0; h < heads; h++) {
      const int64_t at = (i * heads + h) * 2 * half;
      const float factor = h < scaled ? *scale.floats() : 1;
      sweep(half, [&](int64_t j, int n) {
        const V c = load(cos.floats() + i * half + j, n) * factor,
                s = load(sin.floats() + i * half + j, n) * (sign * factor);
        const V a = load(x.floats() + at + j, n), b = load(x.floats() + at + half + j, n);
        store(y + at + j, a * c - b * s, n);
        store(y + at + half + j, b * c + a * s, n);
      });
    }
  });
}
static Op<rotate> rotateOp("MuscRotate", {"x: float", "cos: float", "sin: float", "scale: float"}, {"y: float"});

// log softmax(logits)[target] of each row, and its slope softmax(logits) - onehot(target) (of the opposite sign) if it
// is wanted. logits [M, V], targets [M]. Settings: whether the slope is wanted.
static void targetLogProb(Call& call) {
  const auto logits = call.input(0), targets = call.input(1);
  const int64_t V_ = logits.last(), M = targets.size;
  REQUIRE(logits.size == M * V_, "log-prob: logits must have a row a target");
  for (int64_t i = 0; i < M; i++)
    REQUIRE(targets.ints()[i] >= 0 && targets.ints()[i] < V_, "log-prob: targets must be entries of the vocabulary");
  float* logp = call.output(0, {M});
  const bool wanted = call.settings[0];
  float* slope = wanted ? call.outputOver(1, 0, logits.shape) : call.output(1, {0});
  parallelRows(M, 4 * V_, [&](int64_t i) {
    const float* x = logits.floats() + i * V_;
    const int32_t target = targets.ints()[i];
    const float own = x[target];
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    V tops = all(lowest);
    sweep(V_, [&](int64_t at, int n) { tops = greater(tops, firstOf(load(x + at, n), n, lowest)); });
    const float top = most(tops);
    V odds = {};
    if (!wanted) {
      sweep(V_, [&](int64_t at, int n) { odds += firstOf(exp(load(x + at, n) - top), n, 0); });
      logp[i] = own - top - std::log(sum(odds));
      return;
    }
    float* to = slope + i * V_;
    sweep(V_, [&](int64_t at, int n) {
      const V odd = firstOf(exp(load(x + at, n) - top), n, 0);
      odds += odd;
      store(to + at, odd, n);
    });
    const float total = sum(odds);
    const float share = 1 / total;
    sweep(V_, [&](int64_t at, int n) { store(to + at, load(to + at, n) * share, n); });
    to[target] -= 1;
    logp[i] = own - top - std::log(total);
  });
}
static Op<targetLogProb> targetLogProbOp("MuscTargetLogProb", {"logits: float", "targets: int32"},
                                         {"logp: float", "slope: float"});

// Sums over a block of words of two distributions that are compared, added to those of the blocks before: for p and
// then q the largest logit, and with x = logit - largest Σ e^x, Σ e^x x and Σ e^x x' (x' of the other one). p and q [M,
// n], former [M, 8] or empty -> sums [M, 8].
static void contrast(Call& call) {
  const auto p = call.input(0), q = call.input(1), former = call.input(2);
  const int64_t n_ = p.last(), M = p.rows();
  REQUIRE(n_ > 0 && q.size == p.size && (!former.size || former.size == 8 * M),
          "contrast: logits must be of one shape, and sums before of as many rows");
  float* sums = call.output(0, {M, 8});
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  parallelRows(M, 8 * n_, [&](int64_t i) {
    const float* logits[] = {p.floats() + i * n_, q.floats() + i * n_};
    float top[2], risen[2];
    const float* old = former.size ? former.floats() + i * 8 : nullptr;
    for (int d = 0; d < 2; d++) {
      V tops = all(lowest);
      sweep(n_, [&](int64_t at, int n) { tops = greater(tops, firstOf(load(logits[d] + at, n), n, lowest)); });
      top[d] = old ? std::max(old[4 * d], most(tops)) : most(tops);
      risen[d] = old ? old[4 * d] - top[d] : 0;
    }
    V odds[2] = {}, own[2] = {}, cross[2] = {};
    sweep(n_, [&](int64_t at, int n) {
      const V x[] = {load(logits[0] + at, n) - top[0], load(logits[1] + at, n) - top[1]};
      for (int d = 0; d < 2; d++) {
        const V odd = firstOf(exp(x[d]), n, 0);
        odds[d] += odd;
        own[d] += odd * x[d];
        cross[d] += odd * x[1 - d];
      }
    });
    for (int d = 0; d < 2; d++) {
      float* to = sums + i * 8 + 4 * d;
      const float fresh[] = {sum(odds[d]), sum(own[d]), sum(cross[d])};
      to[0] = top[d];
      if (!old) {
        std::copy_n(fresh, 3, to + 1);
        continue;
      }
      // Under the new largest x is less by what that has risen: Σ e^(x + r) (x + r) = e^r (Σ e^x x + r Σ e^x).
      const float* was = old + 4 * d;
      const float decay = std::exp(risen[d]);
      to[1] = fresh[0] + decay * was[1];
      to[2] = fresh[1] + decay * (was[2] + risen[d] * was[1]);
      to[3] = fresh[2] + decay * (was[3] + risen[1 - d] * was[1]);
    }
  });
}
static Op<contrast> contrastOp("MuscContrast", {"p: float", "q: float", "former: float"}, {"sums: float"});

// Online softmax (Milakov & Gimelshein 2018) over a block of words. logits [M, n], largest logit and Σ e^(logit -
// largest) of the blocks before [M, 1] each -> the same with this block, what the sums before must be multiplied by [M,
// 1], and, if they are wanted, e^(logit - largest) [M, n]. Settings: whether they are.
static void onlineSoftmax(Call& call) {
  const auto logits = call.input(0), top = call.input(1), total = call.input(2);
  const int64_t n_ = logits.last(), M = logits.rows();
  REQUIRE(n_ > 0 && top.size == M && total.size == M, "online softmax: logits must have a maximum and sum a row");
  float *tops = call.output(0, top.shape), *totals = call.output(1, top.shape), *decays = call.output(2, top.shape);
  const bool wanted = call.settings[0];
  float* odds = wanted ? call.outputOver(3, 0, logits.shape) : call.output(3, {0});
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  parallelRows(M, 2 * n_, [&](int64_t i) {
    const float* x = logits.floats() + i * n_;
    V largest = all(lowest);
    sweep(n_, [&](int64_t at, int n) { largest = greater(largest, firstOf(load(x + at, n), n, lowest)); });
    tops[i] = std::max(top.floats()[i], most(largest));
    decays[i] = std::exp(top.floats()[i] - tops[i]);
    V sums = {};
    sweep(n_, [&](int64_t at, int n) {
      const V odd = firstOf(exp(load(x + at, n) - tops[i]), n, 0);
      sums += odd;
      if (wanted) store(odds + i * n_ + at, odd, n);
    });
    totals[i] = total.floats()[i] * decays[i] + sum(sums);
  });
}
static Op<onlineSoftmax> onlineSoftmaxOp("MuscOnlineSoftmax", {"logits: float", "top: float", "total: float"},
                                         {"tops: float", "totals: float", "decay: float", "odds: float"});
