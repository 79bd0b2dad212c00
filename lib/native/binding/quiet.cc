#include "absl/log/globals.h"

// libtensorflow logs two lines while it is being loaded, before it reads TF_CPP_MIN_LOG_LEVEL. A library whose
// initialiser runs first (-z initfirst) lifts the threshold; libtensorflow then sets it as the variable says.
__attribute__((constructor)) static void quiet() { absl::SetMinLogLevel(absl::LogSeverityAtLeast::kWarning); }
