"""A user's own texts as prompts: exact lengths, the trace's sharing and no other, every bad line named."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import words as corpora
from traces.errors import InputError
from traces.prompts import ENDING, Prompts
from traces.trace import Trace, build
from traces.words import Corpus, counter

UNTIMED = settings(deadline=None)  # a busy machine says nothing about a property
WHITE = " \n\t\u3000\u2028"
texts = st.text(st.sampled_from(f"abcé漢😀.{WHITE}"), min_size=1, max_size=60).map(str.strip).filter(bool)
corpus = st.lists(texts, min_size=1, max_size=5).map(Corpus)


def written(folder: Path, *rows: object) -> str:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def shared(prompts: tuple[int, ...] = (100, 80, 20, 70), size: int = 16) -> Trace:
    blocks = [[1, 2, 3], [1, 2, 4], [1, 2], [9]]
    return build(
        {"due": [0, 1, 2, 3], "prompt_tokens": prompts, "output_tokens": [5] * 4, "prefix": blocks}, block_tokens=size
    )


@UNTIMED
@given(corpus, st.binary(max_size=9), st.integers(0, 300), st.booleans())
def test_words_are_counted_exactly_and_shorter_is_the_beginning_of_longer(texts, key, count, named):
    text = texts.words(key, count, named=named)
    assert len(text.split()) == count and text == text.strip()
    assert text.startswith(texts.words(key, count // 2, named=named))


@UNTIMED
@given(corpus, st.binary(max_size=9), st.integers(1, 300))
def test_words_and_characters_are_of_one_passage(texts, key, count):
    long, longer = texts.words(key, count), texts.characters(key, 70 * count)
    assert longer.startswith(long)


@UNTIMED
@given(corpus, st.tuples(*[st.integers(1, 150)] * 4), st.integers(1, 40))
def test_prompts_have_the_traces_lengths_and_share_what_it_shares_and_no_more(texts, lengths, size):
    trace = shared(lengths, size)
    prompts = [Prompts(trace, salt="s", corpus=texts).text(request) for request in trace]
    assert [len(prompt.split()) for prompt in prompts] == list(lengths)
    first, second, third, other = (prompt.split() for prompt in prompts)
    for one, another in ((first, second), (first, third), (second, third)):
        common = min(len(one), len(another), 2 * size)
        assert one[:common] == another[:common]
        assert one[common : common + 1] != another[common : common + 1] or not (one[common:] and another[common:])
    assert other[0] not in (first[0], second[0], third[0])
    joined = Prompts(trace, salt="s", corpus=texts)._block(1, size)
    assert all(prompt.startswith(joined) for prompt in prompts[:3] if len(prompt.split()) >= size)


@UNTIMED
@given(corpus)
def test_no_two_requests_salts_or_seeds_begin_alike(texts):
    trace = build({"due": [0] * 50, "prompt_tokens": [3] * 50, "output_tokens": [1] * 50})
    openings = {
        Prompts(trace, seed=seed, salt=salt, corpus=texts).text(request).split()[0]
        for seed in (0, 1)
        for salt in ("a", "b")
        for request in trace
    }
    assert len(openings) == 200


def test_without_a_salt_the_texts_are_sent_as_they_are():
    text = "def f(x):\n    return x  # as it stands"
    trace = build({"due": [0, 1], "prompt_tokens": [8, 8], "output_tokens": [1, 1]})
    assert {Prompts(trace, corpus=Corpus([text])).text(request) for request in trace} == {text}
    salted = Prompts(trace, salt="s", corpus=Corpus([text])).text(next(iter(trace)))
    assert salted.endswith(" def f(x):\n    return x  # as it")


def test_a_passage_goes_on_with_the_texts_after_it():
    texts = Corpus(["a b", "c d e", "f"])
    passages = {texts.words(b"%d" % key, 7, named=False).replace("\n\n", "|") for key in range(40)}
    assert passages == {"a b|c d e|f|a", "c d e|f|a b|c", "f|a b|c d e|f"}


def test_the_instruction_is_the_end_of_a_corpus_prompt_too():
    trace = build({"due": [0], "prompt_tokens": [100], "output_tokens": [1]})
    text = Prompts(trace, salt="s", corpus=Corpus(["one two"])).text(next(iter(trace)))
    assert text.endswith(" " + ENDING) and len(text.split()) == 100


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    """A byte-level BPE that knows a little English; another script costs it three tokens a character."""
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator([Path(corpora.__file__).read_text()], trainer)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    model.save(str(path))
    return str(path)


CODE = Path(corpora.__file__).read_text()
CHINESE = "山重水复疑无路柳暗花明又一村" * 40


@pytest.mark.parametrize("own", [[CODE], [CHINESE], ["short", CODE[:300], CHINESE, "x" * 500], ["a" + " " * 400 + "b"]])
def test_with_a_tokenizer_any_text_has_the_exact_number_of_tokens(tokenizer, own):
    count, texts = counter(tokenizer), Corpus([text.strip() for text in own])
    trace = build({"due": [0] * 40, "prompt_tokens": range(13, 1200, 30), "output_tokens": [1] * 40})
    prompts = Prompts(trace, salt="s", tokenizer=tokenizer, corpus=texts)
    assert [count(prompts.text(request)) for request in trace] == trace.column("prompt_tokens").tolist()
    blocks = shared((300, 280, 120, 90), 50)
    prompts = Prompts(blocks, salt="s", tokenizer=tokenizer, corpus=texts)
    said = [prompts.text(request) for request in blocks]
    assert [count(text) for text in said] == [300, 280, 120, 90]
    common = f"{prompts._block(1, 50)} {prompts._block(2, 50)} "
    assert all(text.startswith(common) for text in said[:3]) and not said[3].startswith(common[:8])


@settings(UNTIMED, max_examples=30)
@given(texts=corpus, tokens=st.integers(20, 300))
def test_fitting_any_text_is_exact(tokenizer, texts, tokens):
    trace = build({"due": [0], "prompt_tokens": [tokens], "output_tokens": [1]})
    text = Prompts(trace, salt="s", tokenizer=tokenizer, corpus=texts).text(next(iter(trace)))
    assert counter(tokenizer)(text) == tokens


def test_a_fitted_prompt_is_its_corpus_not_padding(tokenizer):
    """At most 2 % are the single words that make a length exact, even where code and another script meet."""
    trace = build({"due": [0], "prompt_tokens": [2000], "output_tokens": [1]})
    texts = Corpus([CODE[:2000].strip(), CHINESE])
    text = Prompts(trace, salt="s", tokenizer=tokenizer, corpus=texts).text(next(iter(trace)))
    passage = texts.characters(Prompts(trace, salt="s")._named(b"request", 0), 20_000)
    same = next((at for at, (one, other) in enumerate(zip(text, passage, strict=False)) if one != other), len(text))
    assert counter(tokenizer)(text[same:].removesuffix(ENDING)) <= 0.03 * 2000


def test_the_words_are_the_same_in_another_process_with_another_hash_seed(tmp_path):
    path = written(tmp_path, "one two three", {"prompt": "vier fünf"})
    code = (
        "import sys; from traces.words import Corpus; from traces.prompts import Prompts;"
        "from traces.trace import build;"
        "t = build({'due': [0], 'prompt_tokens': [300], 'output_tokens': [1], 'prefix': [[7]]}, block_tokens=64);"
        "c = Corpus.read(sys.argv[1]);"
        "print(c.fingerprint, ascii(Prompts(t, seed=5, salt='s', corpus=c).text(next(iter(t)))))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_lines_are_strings_prompts_texts_or_what_the_user_said_last(tmp_path):
    system, user, answer = ({"role": role, "content": f"{role} text"} for role in ("system", "user", "assistant"))
    parts = {"role": "user", "content": [{"type": "text", "text": "seen:"}, {"type": "image_url"}]}
    path = written(
        tmp_path,
        " a string ",
        {"prompt": "a prompt", "text": "no"},
        {"text": "a text", "id": 3},
        {"messages": [system, {"role": "user", "content": "first"}, answer, user, answer]},
        {"messages": [system, parts, user]},
    )
    found = Corpus.read(path)
    assert found._texts == ["a string", "a prompt", "a text", "user text", "seen:\n\nuser text"]
    assert found.facts() == corpora.CorpusFacts(path, found.fingerprint, texts=5, words=11)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    assert Corpus.read(str(packed)).fingerprint == found.fingerprint != Corpus(["a string"]).fingerprint


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ('"\\ud800"', "not JSON"),
        ("3", "expected a JSON string"),
        ('["a"]', "expected a JSON string"),
        ('{"prompts": "a"}', "expected a JSON string"),
        ('{"prompt": ["a"]}', "expected a JSON string"),
        ('{"messages": "a"}', "expected a JSON string"),
        ('{"messages": ["a"]}', "expected a JSON string"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "expected a JSON string"),
        ('{"messages": [{"role": "user", "content": null}]}', "an empty text"),
        ('" "', "an empty text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, why):
    path = tmp_path / "c.jsonl"
    path.write_text(f'"good"\n\n{line}\n')
    with pytest.raises(InputError, match=why) as refused:
        Corpus.read(str(path))
    assert (refused.value.where, refused.value.line) == (str(path), 3) and refused.value.remedy


def test_what_is_no_corpus_is_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").write_text("\n\n")
    for name, why in (("empty", "holds no text"), ("none", "no such file"), (".", "can't be read")):
        with pytest.raises(InputError, match=why):
            Corpus.read(str(tmp_path / name))
    with pytest.raises(InputError, match="--tokenizer"):
        Corpus([CHINESE]).check_words()
    Corpus([CODE]).check_words()
    monkeypatch.setattr(corpora, "LARGEST_CORPUS", 5)
    with pytest.raises(InputError, match=r"corpus\.jsonl:2: more than 5 characters"):
        Corpus.read(written(tmp_path, "abc", "def"))


def test_a_worker_refuses_a_corpus_that_is_missing_or_another(tmp_path):
    facts = Corpus.read(path := written(tmp_path, "a b c")).facts()
    assert Corpus.expected(facts).facts() == facts
    written(tmp_path, "a b d")
    with pytest.raises(InputError, match="other texts than the master's"):
        Corpus.expected(facts)
    Path(path).unlink()
    with pytest.raises(InputError, match=r"corpus\.jsonl.*isn't on this worker's machine"):
        Corpus.expected(facts)
