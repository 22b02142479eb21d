"""Damaged traces: 100,000 mutated rows of all formats end in a Trace or an InputError, never in anything else.

`make test` runs a small part of it.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from traces.errors import InputError
from traces.reading import open_trace

ROWS = 40  # of a file
MUTATIONS = 100_000
CELLS = (
    "", "-1", "0", "1e999", "NaN", "Infinity",
    "99999999999999999999999", "1.5", "null", "true", "[]", "{}", '"', "'",
    "\x00", "\u2028", "é", "\ud800", "2023-02-30 00:00:00", "2023-11-16 18:17:03.9799600000", "9" * 5000, "[" * 3000,
    "-", "1e-400", '{"a":1}', "0x10", "١٢", " 7 ", "1,2", "\r", "9223372036854775808", "-9223372036854775809", "1_000",
)  # fmt: skip


def azure(rng: random.Random) -> list[str]:
    times = sorted(rng.random() * 50 for _ in range(ROWS))
    rows = [f"2023-11-16 18:17:{at:010.7f},{rng.randint(1, 5000)},{rng.randint(0, 500)}" for at in times]
    return ["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]


def burstgpt(rng: random.Random) -> list[str]:
    rows = [
        f"{n},{rng.randint(1, 5)},{rng.random()},M,{rng.randint(1, 999)},{rng.randint(0, 9)},9,C" for n in range(ROWS)
    ]
    return ["Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type", *rows]


def lengths(rng: random.Random) -> list[str]:
    return [
        "num_prefill_tokens,num_decode_tokens",
        *(f"{rng.randint(1, 99)},{rng.randint(0, 99)}" for _ in range(ROWS)),
    ]


def own_csv(rng: random.Random) -> list[str]:
    head = "index,due_ns,prompt_tokens,output_tokens,session,turn,parent,think_ns,prefix,prefix_tokens"
    return [head, *(f"{n},{n * 10**9},{rng.randint(20, 99)},5,{n % 3},0,{n - 3},0,{n} 1,16 16" for n in range(ROWS))]


def mooncake(rng: random.Random) -> list[str]:
    return [
        json.dumps({"timestamp": 3000 * (n // 4), "input_length": 900, "output_length": 5, "hash_ids": [0, n]})
        for n in range(ROWS)
    ]


def bailian(rng: random.Random) -> list[str]:
    base = {"type": "text", "turn": 1, "hash_ids": [1, 2], "input_length": 30, "output_length": 4}
    return [
        json.dumps({**base, "chat_id": n, "parent_chat_id": n - 1 if n % 3 else -1, "timestamp": n / 7})
        for n in range(ROWS)
    ]


def ragpulse(rng: random.Random) -> list[str]:
    parts = {"sys_prompt": [1], "passages_ids": [], "history": [], "web_search": [], "user_input": [2]}
    base = {"input_length": 30, "output_length": 4, "hash_ids": parts}
    return [json.dumps({"timestamp": str(n), "session_id": f"s{n % 5}", **base}) for n in range(ROWS)]


def weka(rng: random.Random) -> list[str]:
    turn = {"type": "n", "in": 200, "out": 9, "hash_ids": [1, 2], "api_time": 2.0, "think_time": 1.0}
    agent = {"t": 30.0, "type": "subagent", "duration_ms": 9000, "requests": [{**turn, "t": 1.0}]}
    turns = [{**turn, "t": n * 3.0} if n % 5 else agent for n in range(1, ROWS)]
    return [json.dumps({"block_size": 64, "hash_id_scope": "local", "requests": turns}, indent=0)]


def otel(rng: random.Random) -> list[str]:
    attributes = {"gen_ai.input.messages": [{"role": "user", "content": "hello"}], "gen_ai.usage.output_tokens": 5}
    seconds = [f"2026-01-01T00:00:{n:02}" for n in range(ROWS)]
    span = {"trace_id": "t", "attributes": attributes}
    spans = [{**span, "start_time": f"{second}.5", "end_time": f"{second}.9"} for second in seconds]
    return [json.dumps({"spans": spans}, indent=0)]


def sharegpt(rng: random.Random) -> list[str]:
    turns = [{"from": ("human", "gpt")[n % 2], "value": "word " * n} for n in range(6)]
    return [json.dumps([{"id": n, "conversations": turns} for n in range(ROWS // 4)], indent=0)]


FORMATS: tuple[Callable[[random.Random], list[str]], ...] = (
    azure, burstgpt, lengths, own_csv, mooncake, bailian, ragpulse, weka, otel, sharegpt,
)  # fmt: skip


def mutated(lines: list[str], rng: random.Random) -> tuple[bytes, int]:
    """The file's bytes with some of its rows damaged, and how many."""
    text = "\n".join(lines).split("\n")
    count = rng.randint(1, min(12, len(text)))
    for at in rng.sample(range(len(text)), count):
        text[at] = _damage(text[at], rng)
    if rng.random() < 0.1:
        rng.shuffle(text)
    data = "\n".join(text).encode(errors="surrogatepass")
    if rng.random() < 0.2:
        data = data[: rng.randint(0, len(data))]
    if rng.random() < 0.2 and data:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at + 1 :]
    return data, count


def _damage(line: str, rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return line[: rng.randint(0, len(line))]
    if kind == 1:
        return line + rng.choice(CELLS)
    if kind == 2:
        at = rng.randint(0, len(line))
        return line[:at] + rng.choice(CELLS) + line[at:]
    if kind == 3 and any(map(str.isdigit, line)):  # one number becomes something else
        at = rng.choice([n for n, letter in enumerate(line) if letter.isdigit()])
        return line[:at] + rng.choice(CELLS) + line[at + 1 :]
    if kind == 4 and "," in line:
        cells = line.split(",")
        cells[rng.randrange(len(cells))] = rng.choice(CELLS)
        return ",".join(cells)
    return "".join(rng.sample(line, len(line)))


def run(rows: int, seed: int) -> Iterator[str]:
    """What each damaged file came to: `read`, or the first words of its refusal. Anything else is raised."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        while rows > 0:
            data, count = mutated(rng.choice(FORMATS)(rng), rng)
            path.write_bytes(data)
            rows -= count
            for skip in (False, True):
                try:
                    trace = open_trace(str(path), skip_bad_rows=skip)
                    assert len(list(trace)) == len(trace) > 0
                    assert trace.column("prompt_tokens").min() >= 1 and trace.column("output_tokens").min() >= 0
                    due = trace.column("due")
                    assert due.min() >= 0 and (due[1:] >= due[:-1]).all()
                    yield "read"
                except InputError as error:
                    assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:2000]
                    yield " ".join(error.message.split()[:3])
                except Exception:
                    Path("fuzz-failure").write_bytes(data)
                    raise


def main() -> int:
    begun = time.perf_counter()
    endings = Counter(run(MUTATIONS, seed=0))
    for message, count in endings.most_common(12):
        print(f"{count:>8}  {message}")
    took = time.perf_counter() - begun
    print(f"{MUTATIONS:,} mutated rows, {sum(endings.values()):,} readings, {took:.0f} s: no traceback")
    return 0
