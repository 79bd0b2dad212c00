#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include <string>

// Loads the kernels beside this library that fit the processor, or those that MUSC_KERNELS names; without any
// (MUSC_KERNELS=0), TensorFlow's own do the work.

#if defined(__x86_64__)
/** Whether the processor has tiles, and the system lets this process use them: Linux wants to be asked. */
static bool hasTiles() {
  unsigned a, b, c, d;
  const unsigned bf16 = 1u << 22, tiles = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & bf16) || !(d & tiles)) return false;
  const long requestPermission = 0x1023, tileData = 18;
  return syscall(SYS_arch_prctl, requestPermission, tileData) == 0;
}
#endif

static std::string level() {
  const char* named = std::getenv("MUSC_KERNELS");
  if (named && std::string(named) != "amx") return named;  // tiles only where they can be had
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const auto has256 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (has256 && has512) {
    if (hasTiles()) return "amx";
    return __builtin_cpu_supports("avx512bf16") ? "avx512-bf16" : "x86-64-v4";
  }
  if (has256) return "x86-64-v3";
#endif
  return "plain";
}

// To start, the loader and the initialisers read half of TensorFlow's 500 MB: names of symbols, relocations, code that
// registers operations. It stays in the memory of the process though nobody looks at it again, so it is given back;
// what is needed once more comes from the file, which the system keeps for all processes.
static int giveBack(dl_phdr_info* library, size_t, void*) {
  if (std::string(library->dlpi_name).find("libtensorflow") == std::string::npos) return 0;
  const uintptr_t page = sysconf(_SC_PAGESIZE);
  for (int i = 0; i < library->dlpi_phnum; i++) {
    const auto& part = library->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || part.p_flags & PF_W) continue;
    const uintptr_t from = (library->dlpi_addr + part.p_vaddr) / page * page;
    madvise(reinterpret_cast<void*>(from), library->dlpi_addr + part.p_vaddr + part.p_memsz - from, MADV_DONTNEED);
  }
  return 0;
}

__attribute__((constructor)) static void load() {
  Dl_info here;
  if (!dladdr(reinterpret_cast<void*>(&load), &here)) return;
  const std::string file = here.dli_fname, fitting = level();
  if (fitting != "0")
    dlopen((file.substr(0, file.rfind('/') + 1) + "libmusc-kernels-" MUSC_KERNEL_SET "-" + fitting + ".so").c_str(),
           RTLD_NOW);
  dl_iterate_phdr(&giveBack, nullptr);
}
