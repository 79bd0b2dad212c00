#include "op.h"
#include "simd.h"

// The optimizer's way over vectors that are as long as all that is trained.

constexpr int64_t piece = 1 << 14;

// The length of x, its squares added up piece by piece -> a scalar
static void norm(Call& call) {
  const auto x = call.input(0);
  const int64_t pieces = (x.size + piece - 1) / piece;
  std::vector<float> sums(pieces);
  parallel(pieces, 2 * piece, [&](int64_t i) {
    V squares = {};
    sweep(std::min(piece, x.size - i * piece), [&](int64_t at, int n) {
      const V some = load(x.floats() + i * piece + at, n);
      squares += some * some;
    });
    sums[i] = sum(squares);
  });
  double total = 0;
  for (float some : sums) total += some;
  *call.output(0, {}) = std::sqrt(total);
}
static Op<norm> normOp("MuscNorm", {"x: float"}, {"norm: float"});

// A step of Adam in place: p, m and v [P] are changed where they lie, and nobody else may hold them. g [P]; rates: what
// g is multiplied by, 1 - beta1, 1 - beta2, learning rate, epsilon, and what p is multiplied by first, for the decay of
// weights.
static void adam(Call& call) {
  const auto p = call.input(0), m = call.input(1), v = call.input(2), g = call.input(3), rates = call.input(4);
  REQUIRE(m.size == p.size && v.size == p.size && g.size == p.size && rates.size == 6,
          "adam: vectors must be of one length, and six rates");
  float* __restrict ps = const_cast<float*>(p.floats()), * __restrict ms = const_cast<float*>(m.floats());
  float* __restrict vs = const_cast<float*>(v.floats());
  const float* r = rates.floats();
  parallel((p.size + piece - 1) / piece, 32 * piece, [&](int64_t i) {
    for (int64_t at = i * piece; at < std::min(p.size, (i + 1) * piece); at++) {
      const float slope = g.floats()[at] * r[0];
      ms[at] += (slope - ms[at]) * r[1];
      vs[at] += (slope * slope - vs[at]) * r[2];
      ps[at] = ps[at] * r[5] - r[3] * ms[at] / (std::sqrt(vs[at]) + r[4]);
    }
  });
}
static Op<adam> adamOp("MuscAdam", {"p: float", "m: float", "v: float", "g: float", "rates: float"}, {});
