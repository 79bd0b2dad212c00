#include <dlfcn.h>
#include <cstdlib>
#include <string>

// Loads the kernels beside this library that fit the processor, or those that MUSC_FUSED names; without any (MUSC_FUSED=0),
// TensorFlow's own do the work.

static std::string level() {
  if (const char* wished = std::getenv("MUSC_FUSED")) return wished;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const auto has256 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (has256) return has512 ? "x86-64-v4" : "x86-64-v3";
#endif
  return "plain";
}

__attribute__((constructor)) static void load() {
  Dl_info here;
  if (!dladdr(reinterpret_cast<void*>(&load), &here)) return;
  const std::string file = here.dli_fname;
  if (level() == "0") return;
  dlopen((file.substr(0, file.rfind('/') + 1) + "libfused-" + level() + ".so").c_str(), RTLD_NOW);
}
