"""Greedy generation of a fixed number of tokens by llama.cpp, from the same weights as bf16 GGUF. All prompts in one batch."""
import ctypes
import json
import pathlib
import struct
import tempfile

from common import answer, job, rows

import gguf
import llama_cpp
import numpy as np


def tensors(file):
    """Name -> dtype, shape and bytes of a safetensors file, mapped."""
    data = np.memmap(file, np.uint8, "r")
    size = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8:8 + size].tobytes())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = (8 + size + at for at in entry["data_offsets"])
        yield name, entry["dtype"], entry["shape"], data[begin:end]


def widened(values):
    """bf16 as f32."""
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def rotated(values, shape, heads):
    """Rows of queries or keys as llama.cpp wants them: the two halves of a head interleaved."""
    return values.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)


def write_gguf(folder, out):
    """A Llama checkpoint in bf16 as GGUF without a vocabulary: prompts are ids."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama":
        raise SystemExit(f"{folder}: must be of the llama family, got {config['model_type']}")
    layers, heads, keys = (config[f"num_{name}"] for name in ("hidden_layers", "attention_heads", "key_value_heads"))
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name, dtype, shape, data in tensors(folder / "model.safetensors"):
        if dtype != "BF16":
            raise SystemExit(f"{name}: must be BF16, got {dtype}")
        named = names.get_name(name, try_suffixes=(".weight",))
        if len(shape) == 1:
            writer.add_tensor(named, widened(data))
            continue
        matrix = data.view(np.uint16).reshape(shape)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            matrix = rotated(matrix, shape, heads if "q_proj" in name else keys)
        writer.add_tensor(named, np.ascontiguousarray(matrix).view(np.uint8),
                          raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def open_context(file, length, sequences):
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama_cpp.llama_load_model_from_file(str(file).encode(), settings)
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = length * sequences
    options.n_batch = options.n_ubatch = 2048
    options.n_seq_max = sequences
    options.n_threads = options.n_threads_batch = job["threads"]
    context = llama_cpp.llama_new_context_with_model(model, options)
    if not context:
        raise SystemExit("llama.cpp: no context")
    return context


def clear(context):
    """Under the name that the installed version has for it."""
    if hasattr(llama_cpp, "llama_memory_clear"):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    else:
        llama_cpp.llama_kv_self_clear(context)


def decode(context, batch, items):
    """One call of (token, position, sequence, whether its logits are wanted); the best token of each that is wanted."""
    batch.n_tokens = len(items)
    for i, (token, position, sequence, wanted) in enumerate(items):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
        batch.seq_id[i][0] = sequence
    if llama_cpp.llama_decode(context, batch):
        raise SystemExit("llama_decode failed")
    return [int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocabulary,)).argmax())
            for i, item in enumerate(items) if item[3]]


def write(context, batch, tokens):
    """Prompts in as few calls as their lengths allow, then a token of each row a call."""
    clear(context)
    last, some = [], []
    for sequence, prompt in enumerate(prompts):
        if len(some) + len(prompt) > 2048:
            last += decode(context, batch, some)
            some = []
        some += [(token, i, sequence, i == len(prompt) - 1) for i, token in enumerate(prompt)]
    last += decode(context, batch, some)
    texts = [[token] for token in last]
    for step in range(tokens - 1):
        last = decode(context, batch, [(token, len(prompts[row]) + step, row, True) for row, token in enumerate(last)])
        for text, token in zip(texts, last):
            text.append(token)
    return texts


def quiet(level, text, data):
    """llama.cpp tells hundreds of lines while it loads."""


logger = llama_cpp.llama_log_callback(quiet)
llama_cpp.llama_log_set(logger, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
folder = pathlib.Path(job["model"])
vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
prompts = [row["prompt"] for row in rows(job["prompts"])]
with tempfile.TemporaryDirectory() as out:
    file = pathlib.Path(out) / "model.gguf"
    write_gguf(folder, file)
    context = open_context(file, max(map(len, prompts)) + job["tokens"], len(prompts))
    batch = llama_cpp.llama_batch_init(2048, 0, 1)
    for _ in range(2):
        write(context, batch, job["tokens"])
    from time import perf_counter
    start = perf_counter()
    generations = job.get("generations", 1)
    for _ in range(generations):
        texts = write(context, batch, job["tokens"])
    seconds = perf_counter() - start
answer(done=generations * sum(map(len, texts)), seconds=seconds, first=texts[0])
