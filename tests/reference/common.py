"""Shared by the generators: output folder, JSON with few digits, versions."""
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"


def numbers(x):
    """A tensor as nested lists with seven significant digits: beyond what f32 arithmetic reproduces."""
    if hasattr(x, "tolist"):
        x = x.detach().double().tolist() if x.is_floating_point() else x.tolist()
    if isinstance(x, list):
        return [numbers(v) for v in x]
    return float(f"{x:.7g}") if isinstance(x, float) else x


def matrix(x):
    """As in TypeScript: shape and row-major data."""
    return {"shape": list(x.shape), "data": numbers(x.flatten())}


def write_json(path, value):
    """One line for each entry of the top level."""

    def compact(v):
        return json.dumps(v, ensure_ascii=False, separators=(",", ":"))

    if isinstance(value, list):
        text = "[\n" + ",\n".join(compact(v) for v in value) + "\n]\n"
    else:
        text = "{\n" + ",\n".join(f"{compact(k)}:{compact(v)}" for k, v in value.items()) + "\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path.relative_to(FIXTURES), path.stat().st_size)


def versions():
    import peft
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
