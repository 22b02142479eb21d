"""`phaseload simulate` and its sweeps, as a user runs them, and the planning page."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest

from loadgen.cli import servers as command
from loadgen.options import Load, RunOptions
from loadgen.simulations import record
from loadgen.sweeps import axis
from reports.analysis.summary import save
from reports.render.planning_page import ratio
from reports.store.run_folder import open_run
from targets.simulated import analysis
from targets.simulated.build import SimulatedTarget, build
from tests.commands import phaseload
from traces.errors import InputError

from .engines import alone, endpoint, tpot


def test_a_simulated_run_is_a_run(tmp_path):
    done = phaseload(
        *("simulate", "azure-conv", "--duration", "60", "--warmup", "5", "--max-context", "4096", "--out", "run"),
        *("--target", "gpus=a100,pool=3", "--target", "groqrack,pool=12"),
        *("--slo", "ttft p50 < 800ms", "--slo", "tpot p50 < 1ms"),
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr  # the second gate can't hold
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["simulated"] is True
    assert [target["name"] for target in facts["targets"]] == ["gpus", "groqrack"]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["validity"]["status"] == "valid"
    by_name = {result["target"]: result for result in summary["results"]}
    assert by_name["gpus"]["counts"] == by_name["groqrack"]["counts"] | {}
    rack = {row["q"]: row["value"] for row in by_name["groqrack"]["metrics"]["itl"]["quantiles"]}
    assert rack[0.5] == pytest.approx(32 * 138.5e-6, rel=1e-3)
    assert (tmp_path / "run/report.html").stat().st_size > 20_000


class Page(html.parser.HTMLParser):
    """What a page loads, and its headings."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag, attributes):
        self.plots += tag == "svg"
        self.loads += [
            value for name, value in attributes if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]
        assert tag != "script"


def test_a_sweep_writes_its_points_and_a_page(tmp_path):
    done = phaseload(
        *("simulate", "azure-conv", "--duration", "30", "--max-context", "4096", "--out", "plan"),
        *("--goodput", "ttft:800 tpot:40"),
        *("--target", "h100", "--target", "a<b>=groqrack,pool=12", "--target", "disaggregated,pool=1:12"),
        *("--sweep", "speedup=0.5..2:3", "--sweep", "link.bandwidth=1,46"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "plan/planning.json").read_text())
    assert len(found["points"]) == 3 + 3 + 6  # the link is the composition's only
    for name in ("h100", "a<b>"):
        rates = [row["rate"] for row in found["points"] if row["target"] == name]
        assert rates == sorted(rates)
    for slow, fast in zip(*[iter(row for row in found["points"] if row["target"] == "disaggregated")] * 2, strict=True):
        assert slow["transfer_mean"] > fast["transfer_mean"]
    assert {pair["batch"] for pair in found["crossovers"]} == {2}
    text = (tmp_path / "plan/planning.html").read_text()
    page = Page()
    page.feed(text)
    assert page.plots >= 5
    assert page.loads == []
    assert "a<b>" not in text
    assert "a&lt;b&gt;" in text
    assert "h100" in done.stdout


@pytest.mark.parametrize(
    ("gate", "outcomes", "code"),
    [
        ("ttft p50 < 1us", ["missed", "missed"], 1),
        ("ttft p50 < 3600s", ["met", "no verdict"], 0),
        ("tpot mean < 20ms", ["met", "missed"], 0),
        ("ttft p99.99 < 3600s", ["no verdict", "no verdict"], 3),
        ("tokens > 1/s", ["met", "met"], 0),
    ],
)
def test_each_point_of_a_sweep_is_asked_the_gates(tmp_path, gate, outcomes, code):
    with pytest.raises(SystemExit) as ended:
        command.simulate(
            trace="azure-conv", duration=20.0, target=["h100"], sweep=["mbu=0.9,0.3"], slo=[gate], out=tmp_path / "plan"
        )
    assert ended.value.code == code
    found = json.loads((tmp_path / "plan/planning.json").read_text())
    assert [row["slo"] for row in found["points"]] == outcomes
    assert found["points"][0]["gates"][0]["gate"] == gate
    assert f"<td>{outcomes[1]}</td>" in (tmp_path / "plan/planning.html").read_text()


def test_words_are_values_of_an_axis_too(tmp_path):
    sweep = ["engine=vllm,trtllm", "pool=1..3"]
    with pytest.raises(SystemExit):
        command.simulate(trace="azure-conv", duration=5.0, target=["h100"], sweep=sweep, out=tmp_path / "plan")
    found = json.loads((tmp_path / "plan/planning.json").read_text())
    assert [tuple(row["values"].values()) for row in found["points"]] == [
        (engine, pool) for engine in ("vllm", "trtllm") for pool in (1, 2, 3)
    ]
    assert "TTFT and TPOT against engine" in (tmp_path / "plan/planning.html").read_text()


@pytest.mark.parametrize("gate", ["itl p99 < 1ms", "other: ttft p50 < 1s", "@peak: ttft p50 < 1s"])
def test_a_gate_that_no_point_can_answer_is_refused(gate):
    with pytest.raises(InputError):
        command.simulate(trace="azure-conv", duration=5.0, target=["h100"], sweep=["pool=1,2"], slo=[gate])


@pytest.mark.parametrize(
    ("targets", "sweep", "message"),
    [
        ([], [], "--target"),
        (["h100", "h100"], [], "two targets are called h100"),
        (["h100,pool"], [], "KEY=VALUE"),
        (["h1000"], [], "no such simulated endpoint"),
        (["h100"], ["speedup"], "--sweep speedup"),
        (["h100"], ["decode.pool=1,2"], "no target has a setting decode.pool"),
        (["h100"], ["tp=0.5,1"], "tp=0.5"),
        (["h100"], ["engine=vllm,sglang"], "engine=sglang"),
    ],
)
def test_mistakes_are_one_clear_line(targets, sweep, message):
    with pytest.raises(InputError) as problem:
        command.simulate(trace="azure-conv", duration=5.0, target=targets, sweep=sweep)
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)


def test_axes():
    assert axis("speedup=0.5..8:5") == ("speedup", [0.5, 1.0, 2.0, 4.0, 8.0])
    assert axis("pool=1,2,4") == ("pool", [1.0, 2.0, 4.0])
    assert len(axis("link.bandwidth=1..50")[1]) == 8
    assert axis("decode.pool=1..3") == ("decode.pool", [1.0, 2.0, 3.0])
    assert axis("pool=1:2,1:4") == ("pool", ["1:2", "1:4"])
    for nonsense in (
        "speedup=",
        "=1,2",
        "a=8..1",
        "a=0..1",
        "a=1..2:1",
        "a=1..b",
        "a=-1",
        "a=nan",
        "speedup=fast",
        "a=b,",
    ):
        with pytest.raises(InputError):
            axis(nonsense)


def test_the_best_ratio_fills_both_pools():
    assert ratio([10.0, 5.0]) == "1:2"
    assert ratio([3.0, 9.0]) == "3:1"
    assert ratio([18.3, 0.82]) == "1:16"  # the widest that is shown


def test_closed_forms_agree_with_the_engine():
    made = endpoint("a100")
    times = analysis.roofline(made)
    curve = dict(analysis.decode_curve(times, 256))
    assert curve[1] == pytest.approx(1 / tpot(alone(endpoint("a100"), 224, 65)), rel=0.01)
    assert times.weights == pytest.approx(2 * (6.738e9 - 1.311e8) / (1.555e12 * 0.87))
    assert analysis.roofline(endpoint("groqrack")) is None
    assert analysis.crossover(times, 256, 32 * 138.5e-6) == 4


def test_small_batches_cost_more_and_are_faster():
    made = build("h100")
    rows = analysis.price_of_speed(analysis.roofline(made), 2.65, 1024, 200, 100_000)
    batches, tpots, costs = zip(*rows, strict=True)
    assert batches[-1] < 256  # what the memory holds
    assert list(tpots) == sorted(tpots)
    assert list(costs) == sorted(costs, reverse=True)
    assert tpots[0] > analysis.roofline(made).weights


def mooncake(path: Path, rows: list[tuple[int, int, list[int]]]) -> Path:
    """A trace of a request a second: prompt tokens, output tokens, ids of the prompt's blocks of 512 tokens."""
    lines = [
        {"timestamp": 1000 * number, "input_length": prompt, "output_length": output, "hash_ids": blocks}
        for number, (prompt, output, blocks) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def swept_and_run(trace: Path, folder: Path, target: str, axis: str, values: list[str]) -> list[tuple[dict, dict]]:
    """For each value of an axis: the sweep's point, and the result of the same simulation as a run."""
    with pytest.raises(SystemExit):
        command.simulate(trace=str(trace), target=[target], sweep=[f"{axis}={','.join(values)}"], out=folder / "grid")
    points = json.loads((folder / "grid/planning.json").read_text())["points"]
    results = []
    for number, value in enumerate(values):
        run, simulated = folder / f"run{number}", [SimulatedTarget.parse(f"{target},{axis}={value}")]
        record(str(trace), simulated, Load(), RunOptions(out=run), model="llama2-7b")
        save(open_run(run))
        results += json.loads((run / "summary.json").read_text())["results"]
    return list(zip(points, results, strict=True))


def quantile(result: dict, metric: str, q: float) -> dict:
    return next(row for row in result["metrics"][metric]["quantiles"] if row["q"] == q)


def test_a_point_knows_the_traces_blocks(tmp_path):
    trace = mooncake(tmp_path / "t.jsonl", [(3000, 40, [1, 2, 3, 4, 5, 60 + n]) for n in range(40)])
    pairs = swept_and_run(trace, tmp_path, "h100", "prefix_cache", ["0", "1"])
    for point, result in pairs:
        assert point["ttft"]["p50"] == pytest.approx(quantile(result, "ttft", 0.5)["value"], rel=1e-6)
        assert point["tpot"]["p50"] == pytest.approx(quantile(result, "tpot", 0.5)["value"], rel=1e-6)
        assert point["tokens_per_s"] == pytest.approx(result["throughput"]["output_tokens_per_s"])
    bare, cached = (point["ttft"]["p50"] for point, _ in pairs)
    assert cached < bare / 2


def test_refused_requests_leave_a_points_p99_unbounded(tmp_path):
    trace = mooncake(tmp_path / "t.jsonl", [(9000 if n % 5 == 0 else 1000, 10, []) for n in range(400)])
    for point, result in swept_and_run(trace, tmp_path, "h100", "max_batch", ["8", "16"]):
        assert (point["requests"], point["failed"]) == (400, 80)
        assert quantile(result, "ttft", 0.99)["unbounded"]
        assert point["ttft"]["p99"] is None
        assert point["ttft"]["p50"] == pytest.approx(quantile(result, "ttft", 0.5)["value"], rel=1e-6)
    assert "<td>unbounded</td>" in (tmp_path / "grid/planning.html").read_text()


def test_a_point_whose_only_request_is_refused_says_so(tmp_path):
    trace = mooncake(tmp_path / "t.jsonl", [(9000, 10, [])])
    for point, result in swept_and_run(trace, tmp_path, "h100", "max_batch", ["8", "16"]):
        assert (point["requests"], point["failed"], point["goodput"]) == (1, 1, 0.0)
        assert point["ttft"]["p50"] is None
        assert result["counts"]["failed"] == 1
