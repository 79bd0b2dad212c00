#include "op.h"

// Many tensors as one vector and back, each number copied once.

// xs, one after another -> vector
static void flatten(Call& call) {
  std::vector<Call::Input> xs;
  int64_t total = 0;
  for (int i = 0; i < call.inputs(); i++) {
    xs.push_back(call.input(i));
    total += xs.back().size;
  }
  float* to = call.output(0, {total});
  for (const auto& x : xs) to = std::copy_n(x.floats(), x.size, to);
}
static Op<flatten> flattenOp("MuscFlatten", {"xs: N * float"}, {"vector: float"});

// vector -> tensors whose shapes are in the settings, each after its number of axes
static void unflatten(Call& call) {
  const auto vector = call.input(0);
  const float* from = vector.floats();
  const auto& numbers = call.settings;
  int i = 0;
  for (size_t at = 0; at < numbers.size(); at += 1 + numbers[at]) {
    const std::vector<int64_t> shape(&numbers[at + 1], &numbers[at + 1] + numbers[at]);
    int64_t size = 1;
    for (int64_t length : shape) size *= length;
    REQUIRE(from + size <= vector.floats() + vector.size, "unflatten: the vector must hold all tensors, got less");
    std::copy_n(from, size, call.output(i++, shape));
    from += size;
  }
}
static Op<unflatten> unflattenOp("MuscUnflatten", {"vector: float"}, {"ys: N * float"});
