#pragma once
// Read before the binding of tfjs-node, which calls TensorFlow through what stands here.
#include <signal.h>
#include <stdlib.h>

#include <initializer_list>
#include <string>

#include "functions.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/c/eager/c_api.h"

// A signal handler runs on the stack of the thread that it interrupts, and matrix products that oneDNN compiles do not
// survive that: SIGUSR2 and a profiler's SIGPROF were seen to corrupt the heap (see data/log.md). So signals are
// blocked in every thread that computes, while it does; other threads take them, or they wait for the end of the
// operation.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t signals;
    sigfillset(&signals);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&signals, fault);
    pthread_sigmask(SIG_BLOCK, &signals, &former_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &former_, nullptr); }

 private:
  sigset_t former_;
};

template <auto function>
struct Guarded;
template <typename Result, typename... Args, Result (*function)(Args...)>
struct Guarded<function> {
  static Result call(Args... args) {
    SignalsBlocked blocked;
    return function(args...);
  }
};

// Graphs run on threads of their own, as many as there are cores. To wake one takes a fifth of a small model's decoding
// step, and where a process has one thread for its kernels, others use the other cores. So there graphs run on the
// calling thread.
template <typename... Rest>
void sessionRun(TF_Session* session, std::nullptr_t, Rest... rest) {
  static const char bytes[] = "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";  // RunOptions: inter_op_thread_pool: -1
  static const TF_Buffer onThisThread = {bytes, sizeof bytes - 1, nullptr};
  static const char* const threads = getenv("TF_NUM_INTRAOP_THREADS");
  static const bool alone = threads && threads == std::string("1");
  Guarded<&TF_SessionRun>::call(session, alone ? &onThisThread : nullptr, rest...);
}

inline TFE_Context* newContext(const TFE_ContextOptions* options, TF_Status* status) {
  return eagerContext = Guarded<&TFE_NewContext>::call(options, status);
}

#define TFE_NewContext newContext
#define TFE_Execute Guarded<&TFE_Execute>::call
#define TF_LoadSessionFromSavedModel Guarded<&TF_LoadSessionFromSavedModel>::call
#define TF_SessionRun sessionRun
