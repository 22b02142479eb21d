"""Prompts: the trace's length, shared bytes for shared blocks, the same everywhere, nothing shared across salts."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import words
from traces.errors import InputError
from traces.prompts import ENDING, Prompts
from traces.trace import Request, Trace, build
from traces.words import counter

BLOCKS = [[1, 2, 3], [1, 2, 4], [1, 2], [9]]


def shared(block_tokens: int | dict[int, int] = 16, prompts: tuple[int, ...] = (100, 80, 20, 16)) -> Trace:
    return build(
        {"due": [0, 1, 2, 3], "prompt_tokens": prompts, "output_tokens": [5] * 4, "prefix": BLOCKS},
        block_tokens=block_tokens,
    )


def conversation(lengths: tuple[tuple[int, int], ...] = ((100, 50), (170, 30), (300, 10))) -> Trace:
    return build(
        {
            "due": range(len(lengths)),
            "prompt_tokens": [prompt for prompt, _ in lengths],
            "output_tokens": [output for _, output in lengths],
            "session": [0] * len(lengths),
            "turn": range(len(lengths)),
            "parent": range(-1, len(lengths) - 1),
        }
    )


@given(st.binary(max_size=20), st.integers(0, 3000))
def test_words_are_counted_exactly_and_shorter_is_the_beginning_of_longer(key, count):
    text = words.words(key, count)
    assert len(text.split()) == count and text == " ".join(text.split())
    shorter = words.words(key, count // 2)
    assert text.split()[: count // 2] == shorter.split()


def test_the_text_looks_like_sentences_of_common_words():
    text = words.words(b"k", 2000)
    assert set(text.lower().replace(".", "").split()) <= set(words.LEXICON.split())
    assert text.count(".") == (2000 - words.OPENING) // words.SENTENCE


@pytest.mark.parametrize("block_tokens", [1, 16, 64, 512, {1: 3, 2: 40, 3: 9, 4: 10, 9: 16}])
def test_prompts_have_the_traces_length_and_share_their_blocks(block_tokens):
    trace = shared(block_tokens)
    texts = [Prompts(trace).text(request) for request in trace]
    assert [len(text.split()) for text in texts] == trace.column("prompt_tokens").tolist()
    size = block_tokens if isinstance(block_tokens, dict) else dict.fromkeys([1, 2], block_tokens)
    common = min(size[1] + size[2], 80)
    assert texts[0].split()[:common] == texts[1].split()[:common]
    assert texts[0].split()[common : common + 8] != texts[1].split()[common : common + 8] or common == 80
    assert texts[2].split() == texts[0].split()[:20] or common < 20


def test_ids_have_the_length_share_blocks_and_stay_clear_of_special_tokens():
    trace = shared(16)
    ids = [Prompts(trace).ids(request, 32000) for request in trace]
    assert [len(one) for one in ids] == trace.column("prompt_tokens").tolist()
    assert ids[0][:32] == ids[1][:32] and ids[0][32:40] != ids[1][32:40]
    assert min(map(min, ids)) >= 3200 and max(map(max, ids)) < 28800


def test_nothing_is_shared_across_salts_seeds_or_requests():
    trace = shared(16)
    first = next(iter(trace))
    texts = {Prompts(trace, seed=seed, salt=salt).text(first) for seed in (0, 1) for salt in ("", "a", "b")}
    assert len({text[:40] for text in texts}) == 6
    plain = build({"due": [0] * 500, "prompt_tokens": [16] * 500, "output_tokens": [1] * 500})
    openings = {" ".join(Prompts(plain).text(request).split()[:8]) for request in plain}
    assert len(openings) == 500


def test_the_text_is_the_same_in_another_process_with_another_hash_seed():
    code = (
        "from traces.prompts import Prompts; from traces.trace import build;"
        "t = build({'due': [0], 'prompt_tokens': [300], 'output_tokens': [1], 'prefix': [[7]]}, block_tokens=64);"
        "print(Prompts(t, seed=5, salt='s').text(next(iter(t))))"
    )
    texts = set()
    for seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        texts.add(other.stdout)
    assert len(texts) == 1


def test_history_and_message_make_the_prompt():
    trace = conversation()
    prompts = Prompts(trace)
    first, second, third = trace
    assert prompts.history(first) == ()
    assert prompts.history(third)[:2] == prompts.history(second)
    assert [role for role, _ in prompts.history(third)] == ["user", "assistant"] * 2
    assert prompts.history(second)[0] == ("user", prompts.text(first))
    for request in trace:
        said = sum(len(text.split()) for _, text in prompts.history(request))
        assert said + len(prompts.text(request).split()) == request.prompt_tokens
    assert len(prompts.ids(third, 1000)) == 300


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 100)), min_size=1, max_size=8))
def test_history_fits_even_where_the_trace_forgets(lengths):
    trace = conversation(tuple(lengths))
    prompts = Prompts(trace)
    for request in trace:
        said = sum(len(text.split()) for _, text in prompts.history(request))
        assert said + len(prompts.text(request).split()) == request.prompt_tokens
        assert len(prompts.ids(request, 1000)) == request.prompt_tokens
        assert prompts.text(request)


@given(st.integers(1, 60), st.integers(0, 3), st.sampled_from([4, 16]))
def test_a_prompt_ends_in_the_instruction_where_its_own_part_can_hold_it_twice(own, blocks, size):
    """Below one block's size the whole prompt is the cut block, which others share."""
    least = 2 * len(ENDING.split())
    trace = build(
        {
            "due": [0, 1],
            "prompt_tokens": [blocks * size + own, blocks * size + 2 * own],
            "output_tokens": [5] * 2,
            "prefix": [list(range(blocks))] * 2,
        },
        block_tokens=size,
    )
    for request, length in zip(trace, (own, 2 * own), strict=True):
        words = Prompts(trace).text(request).split()
        assert len(words) == request.prompt_tokens
        assert (" ".join(words).endswith(" " + ENDING)) == (length >= least)
        assert ENDING not in " ".join(words[: blocks * size])


def test_each_message_of_a_chats_user_ends_in_the_instruction_as_it_was_sent():
    trace = conversation()
    prompts = Prompts(trace)
    first, second, third = trace
    history = prompts.history(third)
    assert [text for role, text in history if role == "user"] == [prompts.text(first), prompts.text(second)]
    assert [text.endswith(ENDING) for _, text in (*history, ("user", prompts.text(third)))] == [True, False] * 2 + [
        True
    ]


def test_a_shard_says_what_the_whole_trace_says():
    trace = shared()
    assert Prompts(trace[2:]).text(list(trace)[2]) == Prompts(trace).text(list(trace)[2])


def test_a_loop_of_parents_ends():
    trace = build({"due": [0, 1], "prompt_tokens": [9, 9], "output_tokens": [1, 1], "parent": [1, 0]})
    assert all(Prompts(trace).text(request) for request in trace)
    assert Prompts(trace).text(Request(5, 0, 3, 1, parent=77))


@pytest.fixture(scope="module", params=[300, 4096])
def tokenizer(request, tmp_path_factory) -> str:
    """A byte-level BPE of our own words: with 300 entries most words are several tokens, with 4,096 none is."""
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=request.param, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator([words.words(b"%d" % n, 400) for n in range(100)], trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    model.save(str(path))
    return str(path)


def test_with_a_tokenizer_lengths_are_exact_in_its_tokens(tokenizer):
    count = counter(tokenizer)
    whole = build({"due": [0] * 59, "prompt_tokens": range(11, 600, 10), "output_tokens": [1] * 59})
    assert [count(Prompts(whole, tokenizer=tokenizer).text(r)) for r in whole] == list(range(11, 600, 10))
    trace = shared(16, prompts=(100, 80, 37, 21))
    prompts = Prompts(trace, tokenizer=tokenizer)
    texts = [prompts.text(request) for request in trace]
    assert [count(text) for text in texts] == trace.column("prompt_tokens").tolist()
    opening = prompts._block(1, 16)
    assert count(" " + opening) == 16 and all(text.startswith(opening) for text in texts[:3])


def test_with_a_tokenizer_the_instruction_survives_the_fitting(tokenizer):
    count = counter(tokenizer)
    least = 2 * count(" " + ENDING)
    lengths = range(least - 3, least + 40)
    trace = build({"due": [0] * 43, "prompt_tokens": lengths, "output_tokens": [1] * 43})
    texts = [Prompts(trace, tokenizer=tokenizer).text(request) for request in trace]
    assert [count(text) for text in texts] == list(lengths)
    assert [text.endswith(ENDING) for text in texts] == [length >= least for length in lengths]


def test_with_a_tokenizer_history_counts_too(tokenizer):
    trace, count = conversation(), counter(tokenizer)
    prompts = Prompts(trace, tokenizer=tokenizer)
    last = list(trace)[-1]
    said = " ".join([text for _, text in prompts.history(last)] + [prompts.text(last)])
    assert count(said) == pytest.approx(300, abs=3)  # joined, a message's first word follows a space
    assert prompts.history(last)[0] == ("user", prompts.text(next(iter(trace))))


def test_a_missing_or_broken_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        counter(str(tmp_path / "none.json"))  # named even where the package is missing
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        counter(str(tmp_path / "bad.json"))


def test_a_tokenizer_is_found_in_a_folder_or_in_the_cache_and_the_right_package_is_named(
    tmp_path, tokenizer, monkeypatch
):
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_bytes(Path(tokenizer).read_bytes())
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert counter(str(snapshot))("the time") == counter("org/name")("the time") == counter(tokenizer)("the time")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match="no such file, folder or cached model"):
        counter("org/other")
    with pytest.raises(InputError, match=r"phaseload\[tokenizer\]"):
        counter(tokenizer)
