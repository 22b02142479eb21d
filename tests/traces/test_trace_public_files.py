"""Real traces: counts, spans, quantiles, dispersion and prefix reuse equal the figures measured independently of us."""

import json
import tarfile

import pytest

from tests.public_traces import FOLDER, needs_public_traces, public_trace
from traces.reading import open_trace, write
from traces.statistics import describe, prefix_reuse
from traces.trace import Trace

pytestmark = needs_public_traces


def public(name: str) -> Trace:
    return open_trace(public_trace(name))


def figures(trace: Trace) -> dict[str, list[float]]:
    about = describe(trace)
    return {
        "cv": [round(about.arrivals.cv, 2)],
        "dispersion": list(about.arrivals.dispersion.values()),
        "peak": list(about.arrivals.peak_to_mean.values()),
        "prompt": [getattr(about.prompt_tokens, name) for name in ("p50", "p90", "p99", "max")],
        "output": [getattr(about.output_tokens, name) for name in ("p50", "p90", "p99", "max")],
        "spearman": [round(about.spearman, 2)],
    }


def test_azure_code_is_the_published_one():
    trace = public("AzureLLMInferenceTrace_code.csv")
    assert (trace.name, len(trace), trace.span) == ("azure", 8819, 3_435_948_056_000)
    found = figures(trace)
    assert found["cv"] == [13.15] and found["spearman"] == [-0.02]
    assert found["dispersion"] == pytest.approx([13.18642807704399, 71.64146924411058, 163.96468848103095], rel=1e-12)
    assert found["peak"] == pytest.approx([26.1, 12.8], abs=0.05)
    assert found["prompt"] == pytest.approx([1469, 5188, 7436, 7437], abs=1)
    assert found["output"] == pytest.approx([13, 55, 251, 1899], abs=1)
    assert describe(trace).arrivals.longest_gap_s == pytest.approx(217, abs=0.5)


def test_azure_conv_is_the_published_one():
    trace = public("AzureLLMInferenceTrace_conv.csv")
    assert (len(trace), trace.span) == (19_366, 3_501_721_937_000)
    found = figures(trace)
    assert found["cv"] == [1.09] and found["spearman"] == [0.07]
    assert found["dispersion"] == pytest.approx([1.3851418849785946, 3.856995898132027, 16.128259128235047], rel=1e-12)
    assert found["peak"] == pytest.approx([2.89, 1.77], abs=0.005)
    assert found["prompt"] == pytest.approx([1020, 2734, 4142, 14050], abs=1)
    assert found["output"] == [129, 424, 601, 1000]


def test_mooncake_is_spread_inside_its_ticks_and_keeps_its_prefixes():
    trace = public("mooncake_conversation_trace.jsonl.gz")
    assert (trace.name, len(trace), trace.block_tokens) == ("mooncake", 12_031, 512)
    assert trace.span == pytest.approx(3_537e9, abs=3e9)
    found = figures(trace)
    assert found["cv"] == pytest.approx([1.01], abs=0.02)
    assert found["dispersion"] == pytest.approx([1.05, 1.50, 2.86], rel=0.05)
    assert found["prompt"] == pytest.approx([6909, 27367, 85400, 126195], abs=1)
    assert found["output"] == pytest.approx([350, 597, 1119, 2000], abs=1)
    assert describe(trace).prefix.hit_share == pytest.approx(0.37, abs=0.005)
    assert all(request.prefix[0] == 0 for request in trace)


def test_mooncake_keeps_its_ticks_where_asked():
    trace = open_trace(public_trace("mooncake_conversation_trace.jsonl.gz"), keep_ticks=True)
    assert trace.span == 3_536_999_000_000
    assert figures(trace)["cv"] == pytest.approx([3.03], abs=0.005)
    spread = open_trace(public_trace("mooncake_conversation_trace.jsonl.gz"), seed=1)
    moved = spread.column("due") - trace.column("due")
    assert moved.min() >= 0 and moved.max() <= 3_000_000_000
    assert spread.column("prompt_tokens").tolist() == trace.column("prompt_tokens").tolist()


def test_vidurs_copy_of_azure_is_azure():
    ours, azure = public("vidur_splitwise_conv_first2000.csv"), public("AzureLLMInferenceTrace_conv.csv")[:2000]
    assert ours.name == "vidur" and len(ours) == 2000
    assert ours.column("prompt_tokens").tolist() == azure.column("prompt_tokens").tolist()
    assert abs(ours.column("due") - azure.column("due")).max() < 1000  # it was written with six digits


def test_llmservingsim_has_nanoseconds():
    trace = public("llmservingsim_example_trace.jsonl")
    assert (trace.name, len(trace)) == ("llmservingsim", 10)
    assert trace.column("due")[1] == 347_938_952 - 46_926_808


def test_ragpulse_is_the_published_one():
    trace = public("ragpulse")
    assert (trace.name, len(trace), trace.span) == ("ragpulse", 7_106, 604_603 * 10**9)
    found = figures(trace)
    assert found["cv"] == [3.06] and found["spearman"] == [0.42]
    assert found["dispersion"] == pytest.approx([1.01, 1.07, 1.73], abs=0.005)
    assert found["peak"] == pytest.approx([255, 34], abs=0.5)
    assert found["prompt"] == pytest.approx([3140, 3958, 5438, 7712], abs=1)
    assert found["output"] == [234, 563, 891, 2183]
    short = [r.prompt_tokens - sum(trace.block_tokens[one] for one in r.prefix) for r in trace]
    assert min(short) >= 6 and max(short) <= 12


def test_weka_sessions_hit_their_own_prefix():
    trace = public("weka_traces")
    sessions = describe(trace).sessions
    assert (len(trace), sessions.count, sessions.follow_ups) == (1722 + 303, 30, 2025 - 30)
    hits = [prefix_reuse(trace.take(trace.column("session") == session)) for session in range(30)]
    assert sum(one.hit_tokens for one in hits) / trace.column("prompt_tokens").sum() == pytest.approx(0.95, abs=0.02)
    due = {r.index: r.due for r in trace}
    assert all(r.due > due[r.parent] for r in trace if r.parent >= 0)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("etalon_sharegpt_8k_filtered_stats_llama2_tokenizer.csv.gz", 30_731),
        ("vidur_arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz", 28_257),
    ],
)
def test_tables_of_lengths_read(name, rows):
    trace = public(name)
    assert (trace.name, len(trace)) == ("vidur-lengths", rows)


def test_servegens_clients_add_up_to_their_rates():
    trace = open_trace(public_trace("servegen_reason_deepseek-r1.tar.gz"), until=4 * 3600)
    whole = open_trace(public_trace("servegen_language_m-small_trace-csv.tar.gz"), until=600)
    assert trace.notes["generated from clients"] == 73 and whole.notes["generated from clients"] == 43
    assert len(trace) == pytest.approx(rate_of("servegen_reason_deepseek-r1.tar.gz", 4 * 3600), rel=0.02)
    assert len(whole) == pytest.approx(rate_of("servegen_language_m-small_trace-csv.tar.gz", 600), rel=0.02)


def rate_of(name: str, seconds: float) -> float:
    """Requests that a set's own tables announce for its first seconds."""
    with tarfile.open(FOLDER / name) as archive:
        tables = [archive.extractfile(m).read().decode() for m in archive if m.name.endswith("trace.csv")]
    windows = [line.split(",") for table in tables for line in table.splitlines()]
    return sum(float(rate) * 600 for start, rate, *_ in windows if float(start) < seconds)


@pytest.mark.parametrize("path", sorted((FOLDER / "otel_test_traces").glob("*.json")), ids=lambda path: path.stem)
def test_otel_calls_all_read(path):
    trace = open_trace(str(path))
    assert len(trace) == json.loads(path.read_text())["span_count"]
    assert trace.column("prompt_tokens").min() > 0


@pytest.mark.parametrize("name", ["ragpulse", "mooncake_conversation_trace.jsonl.gz", "otel_test_traces"])
@pytest.mark.parametrize("ending", ["parquet", "jsonl.zst"])
def test_real_traces_survive_our_own_files(name, ending, tmp_path):
    trace = public(name)
    write(trace, str(tmp_path / f"t.{ending}"))
    again = open_trace(str(tmp_path / f"t.{ending}"))
    assert list(again) == list(trace)
