"""The tiny model's random weights as safetensors: `python tiny_safetensors.py FOLDER` (needs `torch`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def write(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    torch.manual_seed(1)
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    cached = config["head_dim"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden)}
    norms = ["model.norm"]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        norms += [f"{block}input_layernorm", f"{block}post_attention_layernorm"]
        shapes |= {f"{block}self_attn.{name}_proj": (hidden, hidden) for name in ("q", "o")}
        shapes |= {f"{block}self_attn.{name}_proj": (cached, hidden) for name in ("k", "v")}
        shapes |= {f"{block}mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{block}mlp.down_proj"] = (hidden, inner)
    weights = {f"{name}.weight": torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    weights |= {f"{name}.weight": torch.ones(hidden) for name in norms}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
