#pragma once
// One more function for the binding: a graph of operations becomes an operation of the eager context, which is called
// by its name like any other. Its inputs and outputs are ordinary tensors of that context, so nothing is copied, on a
// CPU or on a GPU.
#include <node_api.h>

#include <memory>
#include <string>
#include <vector>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/eager/c_api.h"

/** The context of this process, once the binding has made it. */
inline TFE_Context* eagerContext = nullptr;

namespace graphFunctions {

inline std::string text(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string string(length, '\0');
  napi_get_value_string_utf8(env, value, &string[0], length + 1, &length);
  return string;
}

/** The outputs of nodes that a list names, as "node" or "node:1". */
inline std::vector<TF_Output> outputs(napi_env env, napi_value list, TF_Graph* graph) {
  uint32_t length = 0;
  napi_get_array_length(env, list, &length);
  std::vector<TF_Output> found;
  for (uint32_t i = 0; i < length; i++) {
    napi_value value;
    napi_get_element(env, list, i, &value);
    const std::string name = text(env, value);
    const size_t colon = name.find(':');
    TF_Operation* node = TF_GraphOperationByName(graph, name.substr(0, colon).c_str());
    found.push_back({node, colon == std::string::npos ? 0 : std::stoi(name.substr(colon + 1))});
  }
  return found;
}

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

/** addGraphFunction(name, graph, inputs, outputs, attributes): attributes are names and values (AttrValue) one after
 * another. */
inline napi_value add(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value args[5];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  void* bytes = nullptr;
  size_t length = 0;
  napi_get_buffer_info(env, args[1], &bytes, &length);
  const Owned<TF_Status> status(TF_NewStatus(), TF_DeleteStatus);
  const Owned<TF_Graph> graph(TF_NewGraph(), TF_DeleteGraph);
  const Owned<TF_ImportGraphDefOptions> options(TF_NewImportGraphDefOptions(), TF_DeleteImportGraphDefOptions);
  const TF_Buffer definition = {bytes, length, nullptr};
  const auto failed = [&] {
    if (TF_GetCode(status.get()) == TF_OK) return false;
    napi_throw_error(env, nullptr, TF_Message(status.get()));
    return true;
  };
  TF_GraphImportGraphDef(graph.get(), &definition, options.get(), status.get());
  if (failed()) return nullptr;
  const auto in = outputs(env, args[2], graph.get()), out = outputs(env, args[3], graph.get());
  const Owned<TF_Function> function(
      TF_GraphToFunction(graph.get(), text(env, args[0]).c_str(), 0, -1, nullptr, in.size(), in.data(), out.size(),
                         out.data(), nullptr, nullptr, "", status.get()),
      TF_DeleteFunction);
  if (failed()) return nullptr;
  uint32_t attributes = 0;
  napi_get_array_length(env, args[4], &attributes);
  for (uint32_t i = 0; i + 1 < attributes; i += 2) {
    napi_value name, value;
    napi_get_element(env, args[4], i, &name);
    napi_get_element(env, args[4], i + 1, &value);
    napi_get_buffer_info(env, value, &bytes, &length);
    TF_FunctionSetAttrValueProto(function.get(), text(env, name).c_str(), bytes, length, status.get());
    if (failed()) return nullptr;
  }
  TFE_ContextAddFunction(eagerContext, function.get(), status.get());
  failed();
  return nullptr;
}

/** removeGraphFunction(name) */
inline napi_value remove(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  const Owned<TF_Status> status(TF_NewStatus(), TF_DeleteStatus);
  TFE_ContextRemoveFunction(eagerContext, text(env, args[0]).c_str(), status.get());
  return nullptr;
}

/** As napi_define_properties, with ours besides where the binding defines its own. */
inline napi_status define(napi_env env, napi_value exports, size_t count, const napi_property_descriptor* properties) {
  if (count > 1) {
    const napi_property_descriptor ours[] = {
        {"addGraphFunction", nullptr, add, nullptr, nullptr, nullptr, napi_default, nullptr},
        {"removeGraphFunction", nullptr, remove, nullptr, nullptr, nullptr, napi_default, nullptr},
    };
    const napi_status status = napi_define_properties(env, exports, 2, ours);
    if (status != napi_ok) return status;
  }
  return napi_define_properties(env, exports, count, properties);
}

}  // namespace graphFunctions

#define napi_define_properties graphFunctions::define
