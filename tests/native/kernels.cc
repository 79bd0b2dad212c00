// Runs every kernel of lib/native/kernels at odd sizes, with as much of TensorFlow's C interface as they need: built
// with AddressSanitizer and UndefinedBehaviorSanitizer, so that a read or write outside of a tensor, or a division by
// zero, ends it. Each call is repeated with one input at a time made too small or too large, which a kernel must refuse
// or survive.
#include "tensorflow/c/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

struct TF_Tensor {
  std::vector<int64_t> shape;
  std::shared_ptr<std::vector<char>> data;  // as large as the values are, so that nothing lies behind them
  bool ints = false;
  int64_t size() const {
    int64_t n = 1;
    for (int64_t length : shape) n *= length;
    return n;
  }
};
struct TF_OpDefinitionBuilder {};
struct TF_OpKernelConstruction {
  std::vector<int64_t> settings;
};
struct TF_OpKernelContext {
  std::vector<TF_Tensor> inputs;
  std::map<int, TF_Tensor> outputs;
  bool failed = false;
};
struct TF_KernelBuilder {
  std::string name;
  void* (*create)(TF_OpKernelConstruction*);
  void (*run)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};
static std::map<std::string, TF_KernelBuilder>& kernels() {
  static auto* all = new std::map<std::string, TF_KernelBuilder>;
  return *all;
}

static TF_Tensor made(std::vector<int64_t> shape) {
  TF_Tensor tensor{std::move(shape), nullptr};
  tensor.data = std::make_shared<std::vector<char>>(4 * tensor.size());
  return tensor;
}

extern "C" {
TF_Status* TF_NewStatus() { return reinterpret_cast<TF_Status*>(new TF_Code(TF_OK)); }
void TF_DeleteStatus(TF_Status* status) { delete reinterpret_cast<TF_Code*>(status); }
void TF_SetStatus(TF_Status* status, TF_Code code, const char*) { *reinterpret_cast<TF_Code*>(status) = code; }
TF_Code TF_GetCode(const TF_Status* status) { return *reinterpret_cast<const TF_Code*>(status); }
void TF_GetInput(TF_OpKernelContext* context, int i, TF_Tensor** tensor, TF_Status*) {
  *tensor = new TF_Tensor(context->inputs.at(i));
}
int TF_NumInputs(TF_OpKernelContext* context) { return context->inputs.size(); }
int TF_NumDims(const TF_Tensor* tensor) { return tensor->shape.size(); }
int64_t TF_Dim(const TF_Tensor* tensor, int axis) { return tensor->shape.at(axis); }
int64_t TF_TensorElementCount(const TF_Tensor* tensor) { return tensor->size(); }
void* TF_TensorData(const TF_Tensor* tensor) { return tensor->data->data(); }
void TF_DeleteTensor(TF_Tensor* tensor) { delete tensor; }
TF_Tensor* TF_AllocateOutput(TF_OpKernelContext* context, int i, TF_DataType, const int64_t* dims, int rank, size_t,
                             TF_Status*) {
  TF_Tensor tensor = made(std::vector<int64_t>(dims, dims + rank));
  std::fill_n(reinterpret_cast<float*>(tensor.data->data()), tensor.size(), std::numeric_limits<float>::quiet_NaN());
  context->outputs[i] = tensor;
  return new TF_Tensor(tensor);
}
TF_Tensor* TF_ForwardInputOrAllocateOutput(TF_OpKernelContext* context, const int* candidates, int, int i,
                                           const int64_t* dims, int rank, int* forwarded, TF_Status* status) {
  static bool forwards = false;
  const TF_Tensor& input = context->inputs.at(candidates[0]);
  const std::vector<int64_t> shape(dims, dims + rank);
  if ((forwards = !forwards) &&
      input.shape == shape) {  // every other time, as TensorFlow does where nobody else needs it
    *forwarded = candidates[0];
    return new TF_Tensor(context->outputs[i] = input);
  }
  return TF_AllocateOutput(context, i, TF_FLOAT, dims, rank, 0, status);
}
void TF_SetOutput(TF_OpKernelContext* context, int i, const TF_Tensor* tensor, TF_Status*) {
  context->outputs[i] = *tensor;
}
void TF_OpKernelContext_Failure(TF_OpKernelContext* context, TF_Status*) { context->failed = true; }
TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char*) { return new TF_OpDefinitionBuilder; }
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder*, const char*) {}
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder*, const char*) {}
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder*, const char*) {}
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder*,
                                                     void (*)(TF_ShapeInferenceContext*, TF_Status*)) {}
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext*, TF_Status*) {}
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder* builder, TF_Status*) { delete builder; }
TF_KernelBuilder* TF_NewKernelBuilder(const char* name, const char*, void* (*create)(TF_OpKernelConstruction*),
                                      void (*run)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  return new TF_KernelBuilder{name, create, run, destroy};
}
void TF_RegisterKernelBuilder(const char* name, TF_KernelBuilder* builder, TF_Status*) {
  kernels()[name] = *builder;
  delete builder;
}
void TF_OpKernelConstruction_GetAttrSize(TF_OpKernelConstruction* c, const char*, int32_t* length, int32_t* bytes,
                                         TF_Status*) {
  *length = c->settings.size(), *bytes = -1;
}
void TF_OpKernelConstruction_GetAttrInt64List(TF_OpKernelConstruction* c, const char*, int64_t* values, int length,
                                              TF_Status*) {
  std::copy_n(c->settings.begin(), length, values);
}
void TF_OpKernelConstruction_GetAttrInt64(TF_OpKernelConstruction*, const char*, int64_t* value, TF_Status*) {
  *value = 1;
}
void TF_OpKernelConstruction_Failure(TF_OpKernelConstruction*, TF_Status*) {}
}

// ---- inputs ----

static uint64_t state = 1;
static float next() {  // in [-1, 1)
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(state >> 40) / (1 << 23) - 1;
}
static TF_Tensor floats(std::vector<int64_t> shape, float scale = 1) {
  TF_Tensor tensor = made(std::move(shape));
  float* values = reinterpret_cast<float*>(tensor.data->data());
  for (int64_t i = 0; i < tensor.size(); i++) values[i] = scale * next();
  return tensor;
}
static TF_Tensor positive(std::vector<int64_t> shape) {
  TF_Tensor tensor = floats(std::move(shape));
  float* values = reinterpret_cast<float*>(tensor.data->data());
  for (int64_t i = 0; i < tensor.size(); i++) values[i] = std::fabs(values[i]) + .1f;
  return tensor;
}
static TF_Tensor ints(std::vector<int64_t> shape, const std::vector<int32_t>& values) {
  TF_Tensor tensor = made(std::move(shape));
  tensor.ints = true;
  std::copy_n(values.begin(), tensor.size(), reinterpret_cast<int32_t*>(tensor.data->data()));
  return tensor;
}
static TF_Tensor number(float value) {
  TF_Tensor tensor = made({});
  *reinterpret_cast<float*>(tensor.data->data()) = value;
  return tensor;
}
/** Numbers of bf16. */
static TF_Tensor halves(std::vector<int64_t> shape) {
  TF_Tensor tensor = floats(std::move(shape));
  uint32_t* words = reinterpret_cast<uint32_t*>(tensor.data->data());
  for (int64_t i = 0; i < tensor.size(); i++) words[i] &= ~0xffffu;
  return tensor;
}
static TF_Tensor resized(const TF_Tensor& tensor, size_t axis, int64_t by) {
  TF_Tensor other = tensor;
  if (other.shape.empty()) other.shape = {1};
  other.shape[axis] = std::max<int64_t>(0, other.shape[axis] + by);
  const auto old = tensor.data;
  other.data = std::make_shared<std::vector<char>>(4 * other.size());
  for (size_t i = 0; i < other.data->size(); i++) (*other.data)[i] = old->empty() ? 0 : (*old)[i % old->size()];
  return other;
}

static int64_t calls = 0;

static bool run(const std::string& name, const std::vector<int64_t>& settings, const std::vector<TF_Tensor>& inputs,
                bool valid) {
  const TF_KernelBuilder& kernel = kernels().at(name);
  TF_OpKernelConstruction construction{settings};
  TF_OpKernelContext context;
  // Copies, as some kernels write into their inputs.
  for (const TF_Tensor& input : inputs) {
    context.inputs.push_back(input);
    context.inputs.back().data = std::make_shared<std::vector<char>>(*input.data);
  }
  void* made = kernel.create(&construction);
  kernel.run(made, &context);
  kernel.destroy(made);
  calls++;
  if (!valid) return !context.failed;
  std::string shapes;
  for (const TF_Tensor& input : inputs) {
    shapes += " [";
    for (int64_t length : input.shape) shapes += std::to_string(length) + " ";
    shapes += "]";
  }
  if (context.failed) {
    std::fprintf(stderr, "%s refused%s\n", name.c_str(), shapes.c_str());
    std::exit(1);
  }
  for (const auto& [i, output] : context.outputs) {
    const float* values = reinterpret_cast<const float*>(output.data->data());
    for (int64_t at = 0; at < output.size(); at++)
      if (!std::isfinite(values[at])) {
        std::fprintf(stderr, "%s left value %ld of output %d unwritten, or it is no number:%s\n", name.c_str(),
                     static_cast<long>(at), i, shapes.c_str());
        std::exit(1);
      }
  }
  return true;
}

/** A call as it should be, then with each input too small and too large along each axis. */
static void check(const std::string& name, const std::vector<int64_t>& settings, const std::vector<TF_Tensor>& inputs) {
  if (!kernels().count(name)) return;  // one for a processor that this is not built for
  run(name, settings, inputs, true);
  for (size_t i = 0; i < inputs.size(); i++)
    for (size_t axis = 0; axis < std::max<size_t>(1, inputs[i].shape.size()); axis++)
      for (int64_t by : {-1, 1, 17}) {
        auto wrong = inputs;
        wrong[i] = resized(inputs[i], axis, by);
        run(name, settings, wrong, false);
      }
}

/** Sequences padded to T tokens, or laid end to end with lengths from 0 to T. */
static void attention(int64_t B, int64_t T, int64_t N, int64_t K, int64_t H, int64_t window, int64_t from,
                      bool padded) {
  std::vector<int32_t> bounds{0}, positions, segments;
  int64_t attended = 0;
  for (int64_t b = 0; b < B; b++) {
    const int64_t length = padded ? T : T * b / std::max<int64_t>(1, B - 1);
    for (int64_t t = 0; t < length; t++) {
      const bool padding = padded && t == T - 1;
      positions.push_back(padding ? 0 : t);
      segments.push_back(padding ? -1 : t < length / 2 ? 0 : 1);  // a prompt, an answer, padding
    }
    bounds.push_back(positions.size());
    attended += std::max<int64_t>(0, length - from);
  }
  const int64_t M = positions.size();
  positions.insert(positions.end(), segments.begin(), segments.end());
  const TF_Tensor qk = floats({M, (N + K) * H}), v = floats({M, K * H}), at = ints({2, M}, positions);
  const TF_Tensor first = ints({}, {static_cast<int32_t>(from)}), sequences = ints({B + 1}, bounds);
  const std::vector<int64_t> settings{N, K, window};
  check("MuscAttention", settings, {qk, qk, v, at, at, first, sequences});
  if (padded) {
    const TF_Tensor none = floats({B, K, 0, H});  // a cache without keys
    run("MuscAttention", settings, {qk, none, none, at, ints({2, 0}, {}), first, sequences}, false);
    check("MuscAttention", settings, {qk, floats({B, K, T, H}), floats({B, K, T, H}), at, at, first, sequences});
  }
  for (int64_t P : {0, 1, 15, 16, 37}) {
    const TF_Tensor keys = floats({K, H, (P + 15) / 16 * 16}), values = floats({K, P, H});
    check("MuscSharedAttention", settings, {qk, qk, v, at, at, first, sequences, keys, values});
  }
  const TF_Tensor dy = floats({attended, N * H}), out = floats({attended, N * H}), sums = positive({attended * N});
  check("MuscAttentionGradient", settings, {dy, qk, v, at, first, sequences, out, sums});
}

static void frozen(int64_t M, int64_t D, int64_t O) {
#if defined(__AVX512F__)
  constexpr int64_t W = 16;
#elif defined(__AVX__)
  constexpr int64_t W = 8;
#else
  constexpr int64_t W = 4;
#endif
  const TF_Tensor packed = halves({(O + 2 * W - 1) / (2 * W), (D + 1) / 2, 2 * W});
  std::vector<int32_t> ids(M);
  for (int64_t i = 0; i < M; i++) ids[i] = i % O;
  check("MuscPack", {0}, {halves({D, O})});
  check("MuscPack", {1}, {halves({O, D})});
  check("MuscUnpack", {D, O}, {packed});
  check("MuscFrozenRows", {D, O}, {packed, ints({M}, ids)});
  const TF_Tensor weight = floats({D}), eps = number(1e-5f);
  for (int64_t bf16 : {0, 1}) {
    check("MuscNormedProducts", {O, O, bf16}, {floats({M, D}), weight, eps, packed, packed});
    check("MuscFrozenSum", {O, bf16}, {floats({M, D}), packed, floats({M, O})});
    for (int64_t gelu : {0, 1}) {
      check("MuscNormedGated", {O, gelu, bf16}, {floats({M, D}), weight, eps, packed, packed});
    }
    for (int64_t turned : {0, 1}) {
      const auto x = [&](int64_t n) { return floats({M, turned ? n : D}); };
      check("MuscFrozenProduct", {D, O, 0, O, turned, bf16}, {x(O), packed});
      if (O > 2 * W) check("MuscFrozenProduct", {D, O, 2 * W, O - 2 * W, turned, bf16}, {x(O - 2 * W), packed});
      for (int64_t R : {1, 16, 65}) {
        const TF_Tensor down = floats({D, R}), up = floats({R, O});
        check("MuscFrozenLora", {D, O, turned, bf16}, {x(O), packed, turned ? up : down, turned ? down : up});
      }
    }
  }
}

static void table(int64_t R, int64_t H) {
  for (int64_t K : {1, 3}) {
    std::vector<int32_t> at(K * R);
    for (int64_t i = 0; i < K * R; i++) at[i] = K * R - i;
    for (int64_t more : {0, 2}) {
      const TF_Tensor table = floats({K * R + 1, H}), rows = floats({R, (K + more) * H});
      check("MuscWriteRows", {K}, {table, ints({K * R}, at), rows});
    }
    if (!R) continue;
    at[0] = K * R + 1;
    run("MuscWriteRows", {K}, {floats({K * R + 1, H}), ints({K * R}, at), floats({R, K * H})}, false);
  }
}

static void decode(int64_t B, int64_t N, int64_t K, int64_t H, int64_t S, int64_t P, int64_t window) {
  std::vector<int32_t> columns(B);
  for (int64_t b = 0; b < B; b++) columns[b] = b % 3 == 1 ? -1 : b % S;
  const int64_t padded = (P + 15) / 16 * 16;
  check(
      "MuscDecode", {N, K, window},
      {floats({B, (N + K) * H}), floats({B, K * H}), floats({B, H / 2}), floats({B, H / 2}), number(.5f),
       floats({B * K * S, H}), floats({B * K * S, H}), ints({B}, columns), floats({K, H, padded}), floats({K, P, H})});
}

static void draw(int64_t B, int64_t V) {
  std::vector<double> choices;
  for (int64_t b = 0; b < B; b++) {
    const double k = b % 4 == 3 ? 2 : 0, p = b % 3 == 2 ? .7 : 1;
    choices.insert(choices.end(), {b % 5 * .4, p, k, b / (1. + B)});
  }
  std::vector<int32_t> words(2 * choices.size());
  if (B) std::memcpy(words.data(), choices.data(), 8 * choices.size());
  check("MuscDraw", {0}, {floats({B, V}, 9), ints({B, 8}, words)});
}

int main() {
  const std::vector<int64_t> sizes{0, 1, 2, 3, 7, 16, 17, 31, 67}, few{0, 1, 5, 33};
  for (int64_t M : sizes)
    for (int64_t D : sizes) {
      if (D) {
        check("MuscRmsNorm", {0}, {floats({M, D}), floats({D}), number(1e-5f)});
        check("MuscRmsNorm", {0}, {floats({M, 3, D}), floats({3, D}), number(1e-5f)});
        for (int64_t trained : {0, 1})
          check("MuscRmsNormGradient", {trained}, {floats({M, D}), floats({M, D}), floats({D}), positive({M})});
        draw(M, D), draw(M, 256 * D), table(M, D);
        std::vector<int32_t> targets(M);
        for (int64_t i = 0; i < M; i++) targets[i] = i % D;
        for (int64_t wanted : {0, 1}) {
          check("MuscTargetLogProb", {wanted}, {floats({M, D}, 9), ints({M}, targets)});
          check("MuscOnlineSoftmax", {wanted}, {floats({M, D}), floats({M, 1}), positive({M, 1})});
        }
        check("MuscContrast", {0}, {floats({M, D}), floats({M, D}), floats({0, 8})});
        check("MuscContrast", {0}, {floats({M, D}), floats({M, D}), positive({M, 8})});
        check("MuscRotate", {2, 0}, {floats({M, 5 * 2 * D}), floats({M, D}), floats({M, D}), number(.3f)});
        check("MuscRotate", {2, 1}, {floats({M, 5 * 2 * D}), floats({M, D}), floats({M, D}), number(.3f)});
      }
      for (int64_t gelu : {0, 1}) {
        check("MuscGated", {gelu}, {floats({M, D}, 9), floats({M, D})});
        check("MuscGatedGradient", {gelu}, {floats({M, D}), floats({M, D}, 9), floats({M, D})});
      }
      if (M && D) frozen(M, D, 1 + M % 5 * 13), frozen(M, 641 + D, D);
      check("MuscFlatten", {0}, {floats({M, D}), floats({D}), floats({M})});
      check("MuscUnflatten", {2, M, D, 1, D}, {floats({M * D + D})});
      for (int64_t K : few) {
        for (int64_t parts : {1, 3}) {
          for (int64_t turned : {0, 1, 2, 3}) {
            const bool a = turned & 1, b = turned & 2;
            check("MuscProduct", {a, b, parts},
                  {a ? floats({K, M}) : floats({M, K}), b ? floats({D, K}) : floats({K, D})});
          }
          if (K && D) check("MuscGatedProduct", {1, parts}, {floats({M, K}), floats({K, D}), floats({K, D})});
          if (K && D)
            check("MuscLowRankProduct", {0, parts}, {floats({M, K}), floats({K, D}), floats({K, 16}), floats({16, D})});
        }
        if (!K || !D) continue;
        for (int64_t r : {1, 16, 65}) {
          check("MuscLoraGradient", {2}, {floats({M, K}), floats({M, D + 3}), floats({K, r}), floats({r, D})});
          check("MuscEffective", {1}, {floats({K, D + 2}), number(2), floats({K, r}), floats({r, D})});
          check("MuscLowRank", {D + 2, 1}, {number(2), floats({K, r}), floats({r, D})});
          check("MuscLowRankGradient", {1, r, D},
                {floats({M, K}), floats({M, D + 2}), floats({M, r + 3}), floats({M, r + 3}), number(2)});
        }
      }
    }
  frozen(31, 5, 700);
  for (int64_t P : {0, 1, 13, 16385, 40003}) {
    check("MuscNorm", {0}, {floats({P})});
    check("MuscAdam", {0}, {floats({P}), floats({P}), positive({P}), floats({P}), floats({6})});
  }
  for (int64_t B : {0, 1, 3})
    for (int64_t T : {1, 2, 23, 25, 53})
      for (int64_t H : {2, 6, 16, 34})
        for (int64_t window : {0, 7})
          for (int64_t from : {int64_t{0}, T / 2, T})
            for (bool padded : {true, false}) attention(B, T, 4, 2, H, window, from, padded);
  for (int64_t B : {0, 1, 5, 9})
    for (int64_t H : {2, 6, 16, 34})
      for (int64_t P : {0, 1, 16, 35})
        for (int64_t window : {0, 1, 9}) decode(B, 6, 2, H, 11, P, window), decode(B, 3, 3, H, 4, P, window);
  std::printf("%zu kernels, %ld calls\n", kernels().size(), static_cast<long>(calls));
}
