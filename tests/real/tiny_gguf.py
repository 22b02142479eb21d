"""The tiny model's random weights as a GGUF file: `python tiny_gguf.py FOLDER` (needs `gguf` and `numpy`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np


def write(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, model, config, template)
    _add_weights(writer, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, model: dict, config: dict, template: str) -> None:
    special = {config["bos_token_id"], config["eos_token_id"]}
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(words))]
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template(template)


def _add_weights(writer: gguf.GGUFWriter, config: dict) -> None:
    rng = np.random.default_rng(1)
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    cached = config["head_dim"] * config["num_key_value_heads"]
    shapes = {"token_embd": (vocabulary, hidden), "output": (vocabulary, hidden)}
    norms = ["output_norm"]
    for layer in range(config["num_hidden_layers"]):
        block = f"blk.{layer}."
        norms += [f"{block}attn_norm", f"{block}ffn_norm"]
        shapes |= {f"{block}attn_{name}": (hidden, hidden) for name in ("q", "output")}
        shapes |= {f"{block}attn_{name}": (cached, hidden) for name in ("k", "v")}
        shapes |= {f"{block}ffn_{name}": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{block}ffn_down"] = (hidden, inner)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.05, shape).astype(np.float32))
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
