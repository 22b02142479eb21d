"""A tiny Llama with a real tokenizer, for the real servers: `python tiny_model.py FOLDER` (needs `tokenizers` only).

The vocabulary is a byte-level BPE of 4,096 entries trained on Python's own help texts: with a small one (1,000)
Dynamo's mocker draws ids that decode to nothing and streams no content. Two layers, 128 wide: the weights are random,
and `tiny_gguf.py` writes them where a server really computes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from pydoc_data import topics

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 4096
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the least that vLLM computes on CPU
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(topics.topics.values(), trainer)
    if made.get_vocab_size() != VOCABULARY:
        sys.exit(f"the help texts gave {made.get_vocab_size()} entries, not {VOCABULARY}")
    return made


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    settings = {**special, "chat_template": TEMPLATE, "model_max_length": CONFIG["max_position_embeddings"]}
    generation = {key: CONFIG[key] for key in ("bos_token_id", "eos_token_id")}
    for name, content in (("tokenizer_config", settings), ("config", CONFIG), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
