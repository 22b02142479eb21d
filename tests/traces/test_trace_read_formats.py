"""Every public format on a small sample of its documented schema: instants, lengths, sessions, parents, prefixes."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from traces.errors import InputError
from traces.formats.conversations import SESSION_BITS, tokens
from traces.reading import open_trace, write
from traces.request import NS_PER_S


def written(folder: Path, name: str, content: str | bytes | list | dict) -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, list | dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows(trace, *names):
    return [tuple(getattr(request, name) for name in names) for request in trace]


def test_azure_2025_with_images(tmp_path):
    text = (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00.5,2,100,7\n2025-01-01 00:00:01,0,90,6\n"
    )
    trace = open_trace(written(tmp_path, "t", text))
    assert trace.name == "azure-2025-lmm"
    assert rows(trace, "due", "prompt_tokens", "output_tokens") == [(0, 100, 7), (NS_PER_S // 2, 90, 6)]


BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
BURSTGPT_3 = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def test_burstgpt_leaves_failures_out_and_counts_them(tmp_path):
    text = BURSTGPT + "5,ChatGPT,472,18,490,Chat log\n45,ChatGPT,1087,0,1087,API log\n118,GPT-4,417,276,693,API log\n"
    trace = open_trace(written(tmp_path, "t", text))
    assert rows(trace, "due", "prompt_tokens", "output_tokens") == [(0, 472, 18), (113 * NS_PER_S, 417, 276)]
    assert trace.notes["failed requests left out"] == 1


def test_burstgpt_3_has_sessions_and_how_long_answers_took(tmp_path):
    text = BURSTGPT_3 + "5,7,2.5,M,10,18,28,C\n6,8,1,M,10,18,28,C\n15,7,1,M,30,18,48,C\n"
    trace = open_trace(written(tmp_path, "t", text))
    assert rows(trace, "session", "turn", "parent", "think") == [(7, 0, -1, 0), (8, 0, -1, 0), (7, 1, 0, 7_500_000_000)]


def test_bailian_follows_parents_not_hashes(tmp_path):
    base = {"input_length": 40, "output_length": 5, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
    text = lines(
        {**base, "chat_id": 11, "parent_chat_id": -1, "timestamp": 0.25},
        {**base, "chat_id": 12, "parent_chat_id": -1, "timestamp": 1.25, "hash_ids": [4]},
        {**base, "chat_id": 13, "parent_chat_id": 11, "timestamp": 3.25, "turn": 2, "hash_ids": [1, 9]},
    )
    trace = open_trace(written(tmp_path, "t", text))
    assert (trace.name, trace.block_tokens) == ("bailian", 16)
    assert rows(trace, "due", "session", "parent", "think", "prefix") == [
        (0, 0, -1, 0, (1, 2, 3)),
        (NS_PER_S, 1, -1, 0, (4,)),
        (3 * NS_PER_S, 0, 0, 3 * NS_PER_S, (1, 9)),
    ]


def test_mooncake_blocks(tmp_path):
    text = lines(
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]},
        {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 2366]},
    )
    trace = open_trace(written(tmp_path, "t", text))
    assert (trace.name, trace.block_tokens) == ("mooncake", 512)
    assert rows(trace, "due", "prefix") == [(0, (46, 47)), (3_053_000_000, (46, 2366))]


def ragpulse(folder: Path) -> str:
    chunks = {"sys_prompt": [], "passages_ids": [], "history": [], "web_search": [], "user_input": []}
    row = {"input_length": 100, "output_length": 5, "session_id": "a"}
    text = lines(
        {**row, "timestamp": "10", "hash_ids": {**chunks, "user_input": [3], "sys_prompt": [1]}},
        {**row, "timestamp": "4", "session_id": "b", "hash_ids": {**chunks, "sys_prompt": [1], "passages_ids": [2]}},
        {**row, "timestamp": "30", "hash_ids": {**chunks, "sys_prompt": [1]}},
    )
    written(folder, "0_trace.jsonl", text + "\n")
    written(folder, "1_sys_prompt.jsonl", lines({"sys_prompt_id": 1, "token_length": 60}))
    written(folder, "2_passages.jsonl", lines({"passage_id": 2, "token_length": 30}))
    written(folder, "4_user_input.jsonl", lines({"user_input_id": 3, "token_length": 8}))
    return str(folder)


def test_ragpulse_puts_chunks_in_the_prompts_order_and_rows_in_times(tmp_path):
    trace = open_trace(ragpulse(tmp_path / "rag"))
    assert trace.name == "ragpulse" and trace.block_tokens == {1: 60, 2: 30, 3: 8}
    assert rows(trace, "due", "session", "turn", "parent", "think", "prefix") == [
        (0, 0, 0, -1, 0, (1, 2)),
        (6 * NS_PER_S, 1, 0, -1, 0, (1, 3)),
        (26 * NS_PER_S, 1, 1, 1, 20 * NS_PER_S, (1,)),
    ]


def test_ragpulse_without_its_tables_has_no_prefixes_and_an_unknown_chunk_is_refused(tmp_path):
    folder = Path(ragpulse(tmp_path / "rag"))
    alone = open_trace(str(folder / "0_trace.jsonl"))
    assert not alone.has("prefix") and alone.has("session") and "not there" in alone.notes["chunk tables"]
    (folder / "2_passages.jsonl").unlink()
    with pytest.raises(InputError, match=r"0_trace\.jsonl:2, column hash_ids: chunk 2 is in none"):
        open_trace(str(folder))


def weka_session(offset: float = 0.0, scope: str = "local") -> dict:
    turn = {"type": "n", "model": "m", "in": 200, "out": 9, "hash_ids": [1, 2, 3], "api_time": 2.0, "think_time": 0.0}
    agent = {
        "t": offset + 12.0,
        "type": "subagent",
        "duration_ms": 8000,
        "requests": [{**turn, "t": 0.0, "hash_ids": [8]}, {**turn, "t": 5.0, "think_time": 3.0, "hash_ids": [8, 9]}],
    }
    later = {**turn, "t": offset + 14.0, "think_time": 12.0, "hash_ids": [1, 2, 3, 4]}
    return {"id": "x", "block_size": 64, "hash_id_scope": scope, "requests": [{**turn, "t": offset}, agent, later]}


def test_weka_sub_agents_run_beside_their_parent(tmp_path):
    trace = open_trace(written(tmp_path, "t", weka_session()))
    assert (trace.name, trace.block_tokens) == ("weka", 64)
    assert rows(trace, "due", "parent", "think", "turn", "prefix") == [
        (0, -1, 0, 0, (1, 2, 3)),
        (4 * NS_PER_S, 0, 2 * NS_PER_S, 1, (8,)),  # the agent's entry stands at its end: 12 s - 8 s
        (9 * NS_PER_S, 1, 3 * NS_PER_S, 2, (8, 9)),
        (14 * NS_PER_S, 0, 12 * NS_PER_S, 1, (1, 2, 3, 4)),
    ]


def test_weka_blocks_are_local_to_their_session(tmp_path):
    for name in ("a.json", "b.json"):
        written(tmp_path / "weka", name, weka_session())
    trace = open_trace(str(tmp_path / "weka"))
    assert len(trace) == 8 and sorted(set(trace.column("session").tolist())) == [0, 1]
    by_session = [{block for r in trace if r.session == session for block in r.prefix} for session in (0, 1)]
    assert not by_session[0] & by_session[1]
    assert 1 << SESSION_BITS | 8 in by_session[1]


def span(name: str, start: str, end: str, messages: list, answer: str, **more) -> dict:
    attributes = {"gen_ai.input.messages": json.dumps(messages), "gen_ai.output.text": answer, **more}
    return {
        "span_id": name,
        "trace_id": "t",
        "start_time": f"2026-02-25T10:00:{start}",
        "end_time": f"2026-02-25T10:00:{end}",
        "attributes": attributes,
    }


def test_otel_calls_wait_for_what_had_ended_and_share_their_messages(tmp_path):
    system, question = {"role": "system", "content": "s" * 40}, {"role": "user", "content": "q" * 21}
    other = {"role": "user", "content": "other"}
    spans = [
        span("c", "07.5", "09", [system, question, other], "z" * 8),
        span("a", "00.000000", "02.500000", [system, question], "x" * 100),
        span(
            "b", "01", "03", [system, other], "y", **{"gen_ai.usage.input_tokens": 77, "gen_ai.usage.output_tokens": 5}
        ),
        {
            "span_id": "tool",
            "start_time": "2026-02-25T10:00:00",
            "end_time": "2026-02-25T10:00:01",
            "attributes": {"tool": 1},
        },
    ]
    trace = open_trace(written(tmp_path, "t", {"trace_id": "t", "spans": spans}))
    assert rows(trace, "due", "prompt_tokens", "output_tokens", "parent", "think") == [
        (0, 16, 25, -1, 0),
        (NS_PER_S, 77, 5, -1, 0),
        (7_500_000_000, 18, 2, 1, 4_500_000_000),
    ]
    first, second, third = (request.prefix for request in trace)
    assert third[:2] == first and second[0] == first[0] and second[1] == third[2] != first[1]
    assert [trace.block_tokens[block] for block in third] == [10, 6, 2]
    assert trace.notes["calls with lengths estimated from their text"] == 2


def test_otlp_json_is_the_same_in_other_clothes(tmp_path):
    one = {
        "traceId": "t",
        "startTimeUnixNano": "1700000000000000001",
        "endTimeUnixNano": "1700000001000000000",
        "attributes": [
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "3"}},
        ],
    }
    two = {**one, "startTimeUnixNano": "1700000002000000000", "endTimeUnixNano": "1700000002000000009"}
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [one, two]}]}]}
    trace = open_trace(written(tmp_path, "t", document))
    assert rows(trace, "due", "prompt_tokens", "output_tokens", "think") == [
        (0, 12, 3, 0),
        (1_999_999_999, 12, 3, NS_PER_S),
    ]


@pytest.mark.parametrize("shape", ["conversations", "messages"])
def test_sharegpt_answers_become_requests_that_carry_what_came_before(tmp_path, shape):
    names = {"conversations": ("from", "value", "human", "gpt"), "messages": ("role", "content", "user", "assistant")}
    who, what, human, gpt = names[shape]
    said = ["hello there", "hi", "and now something longer", "well " * 10]
    turns = [{who: (human, gpt)[n % 2], what: text} for n, text in enumerate(said)]
    trace = open_trace(written(tmp_path, "t", [{"id": "1", shape: turns}, {"id": "2", shape: turns[:2]}]))
    assert trace.name == "sharegpt" and "Poisson" in trace.notes["no arrival times"]
    first = [r for r in trace if r.session == min(q.session for q in trace)]
    assert [r.prompt_tokens for r in first] == [tokens(said[0]), sum(map(tokens, said[:3]))]
    assert [r.output_tokens for r in first] == [tokens(said[1]), tokens(said[3])]
    assert first[1].parent == first[0].index and first[1].prefix[:1] == first[0].prefix and first[1].think == 0


def test_lengths_alone_get_arrivals(tmp_path):
    text = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n" + "74,918,992,0.08\n" * 400
    trace = open_trace(written(tmp_path, "t", text))
    assert trace.span / NS_PER_S == pytest.approx(400, rel=0.2) and "Poisson" in trace.notes["no arrival times"]
    assert open_trace(written(tmp_path, "t", text)).fingerprint() == trace.fingerprint()
    assert open_trace(written(tmp_path, "t", text), seed=1).fingerprint() != trace.fingerprint()
    write(trace, str(tmp_path / "t.parquet"))
    assert open_trace(str(tmp_path / "t.parquet"), seed=1).fingerprint() == trace.fingerprint()  # it has instants now


def servegen_files() -> dict[str, str]:
    windows = "0,0,0,,0,0\n600,2.0,3.0,Gamma,0.1111,4.5\n1200,1.0,1.5,Weibull,0.7,0.8\n1800,0,0,,0,0\n"
    lengths = {"0": {"input_tokens": "{45: 0.25, 46: 0.75}", "output_tokens": "{7: 1.0}", "reason_ratio": "{}"}}
    return {
        "d/chunk-0-trace.csv": windows,
        "d/chunk-0-dataset.json": json.dumps(lengths),
        "d/chunk-1-trace.csv": windows,
    }


def test_servegen_clients_are_superposed_from_a_folder_or_a_tar(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in servegen_files().items():
            written(tmp_path / "set", Path(name).name, text)
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    trace = open_trace(str(tmp_path / "set"))
    assert trace.fingerprint() == open_trace(written(tmp_path, "packed", packed.getvalue())).fingerprint()
    counts = [sum(1 for r in trace if from_ <= r.due / NS_PER_S < from_ + 600) for from_ in (0, 600)]
    assert counts == [pytest.approx(2400, rel=0.25), pytest.approx(1200, rel=0.2)]
    own = [r.prompt_tokens for r in trace if r.output_tokens == 7]
    assert set(own) == {45, 46} and own.count(46) / len(own) == pytest.approx(0.75, abs=0.05)
    assert {r.prompt_tokens for r in trace if r.output_tokens != 7} == {512}
    early = open_trace(str(tmp_path / "set"), until=100)
    assert early.column("due").tolist() == [due for due in trace.column("due").tolist() if due <= 100 * NS_PER_S]


def test_a_broken_servegen_window_is_named(tmp_path):
    for name, text in servegen_files().items():
        written(tmp_path / "set", Path(name).name, text.replace("Gamma", "Zeta"))
    with pytest.raises(InputError, match=r"chunk-0-trace\.csv:2: expected start, rate"):
        open_trace(str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"block_size": 64, "hash_id_scope": "local", "requests": [{"type": "n", "t": 0}]}, "request 1"),
        ({"block_size": 0, "hash_id_scope": "local", "requests": []}, "block_size"),
        ({"block_size": 64, "hash_id_scope": "local", "requests": 5}, "expected a list"),
        ({"spans": [{"attributes": {"gen_ai.prompt": "x"}, "start_time": "?"}]}, "span 1"),
        ({"spans": 4}, "expected a list"),
        ([{"conversations": [5]}], "expected a message"),
        ([5], "expected a conversation"),
        ([], "no usable request"),
        ('{"odd": 1}', "expected column"),
        ("{broken", "expected column"),
        ("[broken", "not JSON"),
    ],
)
def test_broken_documents_are_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(InputError, match=says) as caught:
        open_trace(written(tmp_path, "t", content))
    assert "\n" not in str(caught.value)


def test_a_folder_of_strangers_is_refused(tmp_path):
    written(tmp_path / "x", "a", "hello")
    written(tmp_path / "x", "b", "world")
    with pytest.raises(InputError, match="several files of no known format"):
        open_trace(str(tmp_path / "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        open_trace(str(tmp_path / "empty"))
