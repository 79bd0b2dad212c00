#include "op.h"
#include "simd.h"

// Draws a token for each row of logits [B, V] by the rules of model/sampler.ts: temperature, then top-k, then top-p.
// choices [B, 8] are four doubles a row, two words each: temperature (0 for the likeliest), top p, top k, and u in
// [0, 1) -> ids [B], -1 where the largest logit is not a number.

namespace {

// Half as many doubles as floats fit into a register.
constexpr int half = W / 2;
typedef double D __attribute__((vector_size(4 * W)));
typedef int64_t L __attribute__((vector_size(4 * W)));
typedef float Floats __attribute__((vector_size(2 * W), aligned(4), may_alias));

INLINE D doubles(const float* p) { return __builtin_convertvector(*reinterpret_cast<const Floats*>(p), D); }
INLINE D all(double x) { return x - D{}; }

/** e^x to about one unit in the last place, for x in [-700, 0]. */
INLINE D exp(D x) {
  const double magic = 6755399441055744.0;  // 1.5 · 2^52: adding it rounds to a whole number, which its last bits hold
  const D whole = x * 1.4426950408889634074 + magic;
  const D n = whole - magic;
  const D r = (x - n * 6.93147180369123816490e-1) - n * 1.90821492927058770002e-10;
  D p = all(1.0 / 6227020800);  // Taylor's series up to r^13: what is left out is below 2^-57
  for (double factor : {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                        1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1.0, 1.0})
    p = p * r + factor;
  L bits;
  std::memcpy(&bits, &whole, sizeof bits);
  bits = (bits + 1023) << 52;
  D power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

struct Choice {
  double temperature, topP, topK, u;
};

/** Logits this far (in units of temperature) below the best have probability < 1e-9 and are left out. */
constexpr double negligible = 21;

class Row {
 public:
  Row(const float* logits, int64_t size, const Choice& choice) : logits(logits), size(size), choice(choice) {}

  int32_t draw() {
    const int32_t first = likeliest();
    if (first < 0 || !(choice.temperature > 0) || choice.topK == 1) return first;
    best = logits[first];
    floor = best - negligible * choice.temperature;
    if (choice.topP < 1 || (choice.topK >= 1 && choice.topK < size)) return ofTheTop();
    return ofAll();
  }

 private:
  static constexpr int64_t block = 256;
  const float* const logits;
  const int64_t size;
  const Choice choice;
  double best = 0, floor = 0;

  int32_t likeliest() const {
    V tops = ::all(-std::numeric_limits<float>::infinity());
    int64_t i = 0;
    for (; i + W <= size; i += W) tops = greater(::load(logits + i), tops);
    float top = most(tops);
    for (; i < size; i++) top = logits[i] > top ? logits[i] : top;
    if (!std::isfinite(top)) return -1;
    return std::find(logits, logits + size, top) - logits;
  }

  double odds(int64_t id) const { return std::exp((logits[id] - best) / choice.temperature); }

  /** Odds of the ids [from, from + n) to `to`, whole vectors of them; 0 for those that are left out. Returns their sum.
   */
  double oddsOf(int64_t from, int64_t n, double* to) const {
    alignas(64) float padded[block];
    const float* some = logits + from;
    if (n % half) {
      std::copy_n(some, n, padded);
      std::fill(padded + n, padded + (n + half - 1) / half * half, -std::numeric_limits<float>::infinity());
      some = padded;
    }
    D sums = {};
    for (int64_t i = 0; i < n; i += half) {
      const D logit = doubles(some + i);
      const D kept = logit >= floor ? logit : all(best);
      const D odd = logit >= floor ? exp((kept - best) / choice.temperature) : D{};
      std::memcpy(to + i, &odd, sizeof odd);
      sums += odd;
    }
    double total = 0;
    for (int i = 0; i < half; i++) total += sums[i];
    return total;
  }

  /** By one pass for the sums of blocks, and another over the block that u falls into. */
  int32_t ofAll() const {
    alignas(64) double weights[block];
    std::vector<double> sums;
    double total = 0;
    for (int64_t from = 0; from < size; from += block) {
      sums.push_back(oddsOf(from, std::min(block, size - from), weights));
      total += sums.back();
    }
    double left = choice.u * total;
    int64_t from = 0;
    for (size_t b = 0; b + 1 < sums.size() && left >= sums[b]; b++, from += block) left -= sums[b];
    int32_t last = 0;
    for (; from < size; from += block) {
      const int64_t n = std::min(block, size - from);
      oddsOf(from, n, weights);
      for (int64_t i = 0; i < n; i++) {
        if (weights[i] <= 0) continue;
        last = from + i;
        if ((left -= weights[i]) < 0) return last;
      }
    }
    return last;
  }

  int32_t ofTheTop() const {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < size; i++)
      if (logits[i] >= floor) ids.push_back(i);
    const auto before = [&](int32_t a, int32_t b) {
      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    if (choice.topK >= 1 && choice.topK < ids.size()) {
      std::nth_element(ids.begin(), ids.begin() + static_cast<int64_t>(choice.topK), ids.end(), before);
      ids.resize(choice.topK);
    }
    double total = 0;
    for (int32_t id : ids) total += odds(id);
    // The best come out of a heap one after another: few are asked for as a rule.
    const auto after = [&](int32_t a, int32_t b) { return before(b, a); };
    std::make_heap(ids.begin(), ids.end(), after);
    std::vector<int32_t> kept;
    std::vector<double> weights;
    double sum = 0;
    while (!ids.empty() && (kept.empty() || sum < choice.topP * total)) {
      std::pop_heap(ids.begin(), ids.end(), after);
      kept.push_back(ids.back());
      ids.pop_back();
      weights.push_back(odds(kept.back()));
      sum += weights.back();
    }
    double left = choice.u * sum;
    for (size_t i = 0; i < kept.size(); i++)
      if ((left -= weights[i]) < 0) return kept[i];
    return kept.back();
  }
};

}  // namespace

static void draw(Call& call) {
  const auto logits = call.input(0), choices = call.input(1);
  const int64_t B = logits.rows(), V = logits.last();
  REQUIRE(logits.shape.size() == 2 && choices.is({logits.shape[0], 8}), "draw: each row needs its choice");
  REQUIRE(V > 0 || !logits.shape[0], "draw: there must be a token to draw");
  int32_t* ids = call.outputInts(0, {logits.shape[0]});
  parallel(B, 40 * V, [&](int64_t b) {
    Choice choice;
    std::memcpy(&choice, choices.ints() + 8 * b, sizeof choice);
    ids[b] = Row(logits.floats() + b * V, V, choice).draw();
  });
}
static Op<draw> drawOp("MuscDraw", {"logits: float", "choices: int32"}, {"ids: int32"});
