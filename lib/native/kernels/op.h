#pragma once
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

// What the kernels need of TensorFlow's C interface.

/** One call of a kernel: its tensors, and the list of whole numbers that it was made with. */
class Call {
 public:
  Call(TF_OpKernelContext* context, const std::vector<int64_t>& settings)
      : settings(settings), context_(context), status_(TF_NewStatus()) {}
  ~Call() {
    for (TF_Tensor* tensor : held_) TF_DeleteTensor(tensor);
    TF_DeleteStatus(status_);
  }

  const std::vector<int64_t>& settings;

  struct Input {
    std::vector<int64_t> shape;
    int64_t size;
    const void* data;
    const float* floats() const { return static_cast<const float*>(data); }
    const int32_t* ints() const { return static_cast<const int32_t*>(data); }
    /** Length of the last axis, 0 for a scalar. */
    int64_t last() const { return shape.empty() ? 0 : shape.back(); }
    /** Rows of that length. */
    int64_t rows() const { return last() ? size / last() : 0; }
    bool is(std::initializer_list<int64_t> wanted) const { return shape == std::vector<int64_t>(wanted); }
  };

  Input input(int i) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_);
    held_.push_back(tensor);
    Input input;
    for (int axis = 0; axis < TF_NumDims(tensor); axis++) input.shape.push_back(TF_Dim(tensor, axis));
    input.size = TF_TensorElementCount(tensor);
    input.data = TF_TensorData(tensor);
    return input;
  }

  int inputs() { return TF_NumInputs(context_); }

  float* output(int i, const std::vector<int64_t>& shape) {
    size_t size = sizeof(float);
    for (int64_t length : shape) size *= length;
    return data(TF_AllocateOutput(context_, i, TF_FLOAT, shape.data(), shape.size(), size, status_));
  }

  int32_t* outputInts(int i, const std::vector<int64_t>& shape) {
    size_t size = sizeof(int32_t);
    for (int64_t length : shape) size *= length;
    TF_Tensor* tensor = TF_AllocateOutput(context_, i, TF_INT32, shape.data(), shape.size(), size, status_);
    if (!tensor) throw std::bad_alloc();
    held_.push_back(tensor);
    return static_cast<int32_t*>(TF_TensorData(tensor));
  }

  /** An output of the shape of an input, and where nobody else needs it any more the same memory. */
  float* outputOver(int i, int input, const std::vector<int64_t>& shape) {
    int forwarded = -1;
    return data(
        TF_ForwardInputOrAllocateOutput(context_, &input, 1, i, shape.data(), shape.size(), &forwarded, status_));
  }

  /** An output that is an input, in the same memory. */
  void outputInput(int i, int input) { TF_SetOutput(context_, i, held_[input], status_); }

  void fail(const char* message) {
    TF_SetStatus(status_, TF_INVALID_ARGUMENT, message);
    TF_OpKernelContext_Failure(context_, status_);
  }

 private:
  float* data(TF_Tensor* tensor) {
    if (!tensor) throw std::bad_alloc();
    held_.push_back(tensor);
    return static_cast<float*>(TF_TensorData(tensor));
  }

  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> held_;
};

/** Ends a kernel whose inputs do not fit, with a message of what must hold. */
#define REQUIRE(condition, message) \
  if (!(condition)) return call.fail(message)

/** Threads that a kernel may use. */
inline int64_t threads() {
  static const int64_t granted = [] {
    const char* set = std::getenv("TF_NUM_INTRAOP_THREADS");
    const int64_t number = set ? std::atoi(set) : 0;
    return number > 0 ? number : std::max<int64_t>(1, std::thread::hardware_concurrency());
  }();
  return granted;
}

/** Threads that the kernel which runs on this one may use: its part of all, where a graph computes several things side
 * by side. */
inline thread_local int64_t ownThreads = 1;

/** Whether a condition comes true soon. It is looked at again and again for .1 ms, as long as a sleeping thread takes
 * to wake. */
template <typename Condition>
bool soon(const Condition& condition) {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 32; i++) {
      if (condition()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  } while (std::chrono::steady_clock::now() - start < std::chrono::microseconds(100));
  return false;
}

/** The processor that this thread runs on, -1 where the system does not tell. */
inline int processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

/**
 * Where a thread of the pool runs. Linux sometimes wakes it on the processor of its caller, and leaves both there for
 * 10 ms while another processor is idle: in a fifth of all decoding steps on two processors.
 */
class Place {
 public:
  /** The processor that the thread worked on last. */
  std::atomic<int> at{-1};

  /** To be called by the thread itself. */
  void join() {
#if defined(__linux__)
    thread_ = pthread_self();
    known_ = true;
#endif
  }

  /** Has the thread run on other processors than its caller's, if it has been there. */
  void leave([[maybe_unused]] int callers) {
#if defined(__linux__)
    if (callers < 0 || at != callers || !known_) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    CPU_CLR(callers, &allowed);
    if (CPU_COUNT(&allowed)) pthread_setaffinity_np(thread_, sizeof allowed, &allowed);
    at = -1;
#endif
  }

 private:
#if defined(__linux__)
  pthread_t thread_{};
  std::atomic<bool> known_{false};
#endif
};

/** Threads that wait for work, as long as the process lives: to start one takes longer than most kernels do. */
class Pool {
 public:
  /**
   * `work()` on the caller and on up to `used` - 1 other threads, which share it out among themselves: one that begins
   * when the caller has ended finds nothing left. On the caller alone while the others are taken.
   */
  static void run(int64_t used, const std::function<void()>& work) {
    static Pool* const pool = new Pool;  // never destroyed, for its threads do not end
    const std::unique_lock<std::mutex> taken(pool->taken_, std::try_to_lock);
    if (taken) return pool->share(used, work);
    work();
  }

 private:
  void share(int64_t used, const std::function<void()>& work) {
    const int64_t own = std::exchange(ownThreads, 1);  // what shares its work within this does so with nobody
    const int64_t others = std::min(grown(used - 1), used - 1);
    const int here = processor();
    for (int64_t thread = 0; thread < others; thread++) places_[thread].leave(here);
    work_ = &work, inside_ = 0;
    round_ = (round_ / mostThreads + 1) * mostThreads + others;
    if (sleeping_) {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_.notify_all();
    }
    attempt();
    inside_ |= closed;
    while (!soon([&] { return inside_ == closed; })) std::this_thread::yield();
    ownThreads = own;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  /** Takes part in the work, unless it is over. */
  bool enter() {
    int64_t inside = inside_;
    while (!(inside & closed))
      if (inside_.compare_exchange_weak(inside, inside + 1)) return true;
    return false;
  }

  void attempt() {
    try {
      (*work_)();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
  }

  /** Threads there are besides the caller, made to be `wanted` where the system grants them. */
  int64_t grown(int64_t wanted) {
    try {
      while (size_ < std::min(wanted, mostThreads - 1))
        std::thread([this, thread = size_ + 1, seen = round_.load()] { serve(thread, seen); }).detach(), size_++;
    } catch (const std::system_error&) {
    }
    return size_;
  }

  void serve(int64_t thread, int64_t seen) {
    places_[thread - 1].join();
    for (;;) {
      const auto begun = [&] { return round_ != seen; };
      if (!soon(begun)) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleeping_++;
        start_.wait(lock, begun);
        sleeping_--;
      }
      seen = round_;
      if (thread > seen % mostThreads || !enter()) continue;
      places_[thread - 1].at = processor();
      attempt();
      inside_--;
    }
  }

  static constexpr int64_t mostThreads = 1024, closed = int64_t{1} << 32;
  std::mutex taken_, mutex_;
  std::condition_variable start_;
  int64_t size_ = 0;
  Place places_[mostThreads];
  const std::function<void()>* work_ = nullptr;
  /** Number of the work, times mostThreads, plus how many threads besides the caller take part in it. */
  std::atomic<int64_t> round_{0};
  /** Threads besides the caller that are at work, and `closed` from when the caller has ended. */
  std::atomic<int64_t> inside_{closed}, sleeping_{0};
  std::exception_ptr error_;
};

/** `work(i)` for i in [0, n), by all threads where it is worth waking them; `cost` of one in floating-point operations.
 */
template <typename Work>
void parallel(int64_t n, int64_t cost, const Work& work) {
  const int64_t worth = 1000000;  // takes as long as to wake a thread
  const int64_t used = std::min({ownThreads, n, n * cost / worth});
  if (used <= 1) {
    for (int64_t i = 0; i < n; i++) work(i);
    return;
  }
  // A thread takes some at a time, as it comes to them: one that starts late or is held up does less. They are few, so
  // that threads end together.
  const int64_t some = std::clamp<int64_t>(worth / std::max<int64_t>(1, cost), 1, std::max<int64_t>(1, n / (8 * used)));
  std::atomic<int64_t> next{0};
  Pool::run(used, [&] {
    for (int64_t from; (from = next.fetch_add(some)) < n;)
      for (int64_t i = from; i < std::min(n, from + some); i++) work(i);
  });
}

/** `work(i)` for rows of `width` floats each, several a piece. */
template <typename Work>
void parallelRows(int64_t rows, int64_t width, const Work& work) {
  const int64_t piece = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
  parallel((rows + piece - 1) / piece, 8 * piece * width, [&](int64_t p) {
    for (int64_t i = p * piece; i < std::min(rows, (p + 1) * piece); i++) work(i);
  });
}

/** Makes an operation known, with its kernel on the CPU. Inputs and outputs as in "x: float", or "xs: N * float" for
 * many.
 */
template <void (*compute)(Call&)>
class Op {
 public:
  Op(const char* name, std::initializer_list<const char*> inputs, std::initializer_list<const char*> outputs) {
    TF_Status* status = TF_NewStatus();
    TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
    bool many = false;
    const auto isMany = [&](const char* tensors) { many |= std::string(tensors).find("N *") != std::string::npos; };
    for (const char* input : inputs) TF_OpDefinitionBuilderAddInput(op, input), isMany(input);
    for (const char* output : outputs) TF_OpDefinitionBuilderAddOutput(op, output), isMany(output);
    TF_OpDefinitionBuilderAddAttr(op, "settings: list(int)");
    TF_OpDefinitionBuilderAddAttr(op, "beside: int = 1");
    if (many) TF_OpDefinitionBuilderAddAttr(op, "N: int");
    TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &TF_ShapeInferenceContextSetUnknownShape);
    TF_RegisterOpDefinition(op, status);
    if (TF_GetCode(status) == TF_OK)
      TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", &create, &run, &destroy), status);
    TF_DeleteStatus(status);
  }

 private:
  struct Made {
    std::vector<int64_t> settings;
    int64_t beside = 1;  // such operations that run side by side, this one included
  };

  static void* create(TF_OpKernelConstruction* construction) {
    TF_Status* status = TF_NewStatus();
    int32_t length = 0, bytes = 0;
    TF_OpKernelConstruction_GetAttrSize(construction, "settings", &length, &bytes, status);
    auto* made = new Made{std::vector<int64_t>(std::max(0, length))};
    TF_OpKernelConstruction_GetAttrInt64List(construction, "settings", made->settings.data(), length, status);
    TF_OpKernelConstruction_GetAttrInt64(construction, "beside", &made->beside, status);
    if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
    TF_DeleteStatus(status);
    return made;
  }
  static void run(void* kernel, TF_OpKernelContext* context) {
    const Made& made = *static_cast<Made*>(kernel);
    ownThreads = std::max<int64_t>(1, threads() / std::max<int64_t>(1, made.beside));
    Call call(context, made.settings);
    try {
      compute(call);
    } catch (const std::bad_alloc&) {
      call.fail("kernel: out of memory; use smaller batches");
    }
  }
  static void destroy(void* kernel) { delete static_cast<Made*>(kernel); }
};
