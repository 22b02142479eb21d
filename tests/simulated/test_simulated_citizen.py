"""The server among others: vendors' own clients, the two-leg protocol, metrics, limits, faults."""

from __future__ import annotations

import http.client
import json
import re

import groq
import openai
import pytest

from .servers import chat, connect, events, get, post, serving

USER = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def hybrid():
    with serving("disaggregated", "--pool", "1:2") as url:
        yield url


def test_the_openai_client_streams_chats_and_completions(hybrid):
    client = openai.OpenAI(base_url=f"{hybrid}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["llama2-7b"]
    stream = client.chat.completions.create(
        model="llama2-7b", messages=USER, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == 12
    assert chunks[-1].usage.prompt_tokens == 3
    answer = client.completions.create(model="llama2-7b", prompt="one two", max_tokens=4)
    assert answer.usage.completion_tokens == len(answer.choices[0].text.split()) == 4
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.chat.completions.create(model="gpt-9", messages=USER)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="llama2-7b", messages=USER, max_tokens=5000)


def test_the_groq_client_streams_and_reads_its_times():
    with serving("groqrack") as url:
        client = groq.Groq(base_url=url, api_key="none", max_retries=0)
        chunks = list(
            client.chat.completions.create(model="llama2-7b", messages=USER, max_completion_tokens=9, stream=True)
        )
        assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 9
        assert chunks[0].x_groq.id
        usage = chunks[-1].x_groq.usage
        assert usage.completion_time == pytest.approx(8 * 32 * 138.5e-6)
        assert usage.queue_time == 0
        with pytest.raises(groq.BadRequestError, match="reduce the length"):
            client.chat.completions.create(model="llama2-7b", messages=USER, max_completion_tokens=9000)


def test_a_disaggregated_answer_tells_its_phases(hybrid):
    body = chat(500, 20, stream=True, nvext={"extra_fields": ["timing", "worker_id"]})
    nvext = events(post(hybrid, "/v1/chat/completions", body))[-1]["nvext"]
    timing = nvext["timing"]
    assert timing["kv_transfer_time_ms"] == pytest.approx(0.39 + 500 * 524288 / 46e9 * 1e3 + 45, rel=1e-6)
    assert timing["prefill_time_ms"] == pytest.approx(34.2, rel=0.02)
    assert timing["decode_time_ms"] == pytest.approx(19 * 4.432)
    parts = timing["prefill_wait_time_ms"] + timing["prefill_time_ms"] + timing["kv_transfer_time_ms"]
    assert timing["ttft_ms"] == pytest.approx(parts)
    assert set(nvext["worker_id"]) == {"prefill_worker_id", "decode_worker_id"}


def test_two_legs_driven_by_the_client():
    remote = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None}
    with serving("h100") as prefill, serving("h100") as decode:
        body = chat(400, 10)
        first = post(
            prefill, "/v1/chat/completions", {**body, "max_tokens": 1, "stream": False, "kv_transfer_params": remote}
        )
        answer = json.loads(first.read())
        params = answer["kv_transfer_params"]
        assert params["do_remote_prefill"] is True
        assert len(params["remote_block_ids"]) == 26  # 400 tokens and the next one, 16 to a block
        assert answer["usage"]["completion_tokens"] == 1
        more = {"stream": True, "kv_transfer_params": params, "nvext": {"extra_fields": ["timing"]}}
        *_, finish = chunks = events(post(decode, "/v1/chat/completions", {**body, **more}))
        assert len(chunks) == 12
        timing = finish["nvext"]["timing"]
        assert timing["prefill_time_ms"] == 0
        assert timing["kv_transfer_time_ms"] == pytest.approx(0.39 + 400 * 524288 / 46e9 * 1e3 + 45, rel=1e-6)
    with serving("groqrack") as rack:
        assert post(rack, "/v1/chat/completions", {**chat(4, 1), "kv_transfer_params": remote}).status == 400


def samples(text: str) -> dict[str, float]:
    """Values by name, of the samples that aren't buckets; every line must be of the format."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9:_]+)\{[^}]*\} (\S+)", line)
            assert match, line
            if not match[1].endswith("_bucket"):
                found[match[1]] = float(match[2])
    return found


def test_metrics_count_what_was_served(hybrid):
    before = samples(get(hybrid, "/metrics").read().decode())
    for _ in range(3):
        events(post(hybrid, "/v1/chat/completions", chat(10, 5, stream=True)))
    after = samples(get(hybrid, "/metrics").read().decode())

    def gained(name: str) -> float:
        return after[name] - before[name]

    assert gained("vllm:request_success_total") == gained("vllm:nixl_xfer_time_seconds_count") == 3
    assert gained("vllm:prompt_tokens_total") == 30
    assert gained("vllm:generation_tokens_total") == 15
    assert gained("vllm:request_decode_time_seconds_sum") == pytest.approx(3 * 4 * 32 * 138.5e-6)
    assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0
    assert after["vllm:kv_cache_usage_perc"] == 0


def test_limits_answer_429_with_groqs_headers():
    with serving("groqrack", "--limit-tokens", "100", "--limit-requests", "1000") as url:
        body = {**chat(50, 10), "max_completion_tokens": 10}
        first = post(url, "/openai/v1/chat/completions", body)
        assert first.status == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "100"
        assert 39 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 41
        assert first.headers["x-ratelimit-remaining-requests"] == "999"
        assert re.fullmatch(r"\d+(\.\d+)?s", first.headers["x-ratelimit-reset-tokens"])
        second = post(url, "/openai/v1/chat/completions", body)
        assert second.status == 429
        assert 8 <= int(second.headers["retry-after"]) <= 13
        error = json.loads(second.read())["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")


@pytest.mark.parametrize("kind", ["http500", "malformed", "truncate", "reset", "stall"])
def test_faults_on_request(kind):
    with serving("groqrack-published", "--fault", f"{kind}=1") as url:
        connection = connect(url)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(3, 40, stream=True)))
        if kind == "stall":
            connection.sock.settimeout(0.5)
        response = connection.getresponse()
        if kind == "http500":
            assert response.status == 500
            assert "error" in json.loads(response.read())
        elif kind == "malformed":
            lines = [line[6:] for line in response.read().decode().splitlines() if line.startswith("data: ")]
            assert lines[-1] == "[DONE]"
            with pytest.raises(json.JSONDecodeError):
                [json.loads(line) for line in lines[:-1]]
        elif kind == "truncate":
            assert b"[DONE]" not in response.read()
        elif kind == "reset":
            with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
                response.read()
        else:
            with pytest.raises(TimeoutError):
                response.read()
        connection.close()
        assert get(url, "/health").status == 200


def test_prompts_that_begin_alike_are_found_in_the_cache():
    with serving("h100", "--set", "prefix_cache=1") as url:

        def cached(text: str) -> int:
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
            usage = json.loads(post(url, "/v1/chat/completions", body).read())["usage"]
            return usage["prompt_tokens_details"]["cached_tokens"]

        shared = " ".join(f"w{i}" for i in range(100))
        assert cached(shared + " a b c") == 0
        assert cached(shared + " d e f") == 96  # six blocks of 16
        assert cached("other " + shared) == 0


def test_speculative_decoding_sends_several_tokens_an_event():
    with serving("h100", "--set", "drafted=4", "--set", "acceptance=0.9") as url:
        _, *tokens, _ = events(post(url, "/v1/chat/completions", chat(3, 100, stream=True)))
        counts = [len(chunk["choices"][0]["delta"]["content"].split()) for chunk in tokens]
        assert sum(counts) == 100
        assert max(counts) > 1
        assert len(counts) < 60


def test_the_log_has_planned_and_actual_instants(tmp_path):
    log = tmp_path / "log.jsonl"
    with serving("h100", "--log", str(log)) as url:
        for _ in range(3):
            events(post(url, "/v1/chat/completions", chat(20, 10, stream=True)))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    requests = [row for row in rows if "id" in row]
    assert len(requests) == 3
    assert sum("step" in row for row in rows) == 3 * 9  # the last token goes with the request's own row
    for row in requests:
        assert row["received"] <= row["arrival"] < row["planned"][0] <= row["actual"][0] < row["actual"][1]
        assert row["planned"][1] <= row["actual"][1]
