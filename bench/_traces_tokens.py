"""How many tokens our prompts really are: `python -m bench._traces_tokens TOKENIZER.json ...`."""

from __future__ import annotations

import sys

from traces.prompts import Prompts
from traces.words import counter
from traces.workload import synthesise


def main(paths: list[str]) -> None:
    trace = synthesise("azure-conv", duration=60)
    writer = Prompts(trace)
    texts = [writer.text(request) for request in trace]
    expected = trace.column("prompt_tokens").sum()
    for path in paths:
        count = counter(path)
        counted = sum(map(count, texts))
        exact = Prompts(trace, tokenizer=path)
        off = [count(exact.text(request)) - request.prompt_tokens for request in trace]
        print(
            f"{path}: {counted / expected - 1:+.2%} estimated; fitted, {sum(map(bool, off))} of {len(off)} prompts off"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
