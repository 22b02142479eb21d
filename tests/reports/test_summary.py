"""summary.json: figures that follow from the rows, and what a reader is told about them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.analysis.gates import exit_code
from reports.analysis.phases import SERVER
from reports.analysis.results import ErrorCount, Length, Result
from reports.analysis.samples import meets
from reports.analysis.summary import Summary, judge, save
from reports.render import findings
from reports.store import row_files, run_folder
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange
from tests.reports import made
from traces.errors import InputError


@pytest.fixture(scope="module")
def rows(bakeoff: Path) -> list[Exchange]:
    return list(made.restored(row_files.read(bakeoff)))


@pytest.fixture(scope="module")
def folder(bakeoff: Path) -> Path:
    return bakeoff


def of(summary: Summary, target: str, step: str) -> Result:
    return next(result for result in summary.results if (result.target, result.step) == (target, step))


def test_it_is_json_and_the_file_says_the_same(folder: Path) -> None:
    summary = made.summarise(folder)
    assert json.loads((folder / "summary.json").read_text()) == json.loads(summary.to_json())
    assert summary.validity.status == "valid"
    assert [(result.target, result.step) for result in summary.results] == [
        (made_.name, step) for made_ in (made.GPU, made.RACK, made.HYBRID) for step in ("1x", "3x")
    ]


def test_figures_follow_from_the_rows(summed: Summary, rows: list[Exchange]) -> None:
    summary = summed
    for target in ("h100", "groqrack"):
        result = of(summary, target, "1x")
        mine = [row for row in rows if row.target == target and row.step == "1x" and row.call.counted]
        ok = [row for row in mine if row.ok]
        assert result.counts.counted == len(mine)
        assert result.counts.failed == len(mine) - len(ok)
        assert sum(result.counts.outcomes.values()) == len(mine)
        for name in ("ttft", "tpot", "e2e", "longest_stall", "ttft_from_due"):
            stalls = [max(row.gaps(), default=None) for row in ok]
            figures = result.metrics[name]
            values = [getattr(row, name) for row in ok] if name != "longest_stall" else stalls
            values = [value for value in values if value is not None]
            assert figures.mean == pytest.approx(np.mean(values))
            median, p99 = figures.quantiles[0], figures.quantiles[3]
            assert median.answered == pytest.approx(np.median(values))
            assert median.value == pytest.approx(np.quantile(values, 0.5 * len(mine) / len(ok)))
            assert p99.low <= p99.value <= p99.high or p99.effective < p99.effective_needed
            assert median.low <= median.value <= median.high
            assert not figures.quantiles[4].enough
            assert math.isnan(figures.quantiles[4].low)
        assert result.vllm["p99_ttft_ms"] == pytest.approx(np.quantile([row.ttft for row in ok], 0.99) * 1e3)
        assert result.vllm["mean_tpot_ms"] == pytest.approx(np.mean([row.tpot for row in ok if row.tpot]) * 1e3)
        assert result.lengths.reference.unit == "4 characters"
        assert result.lengths.reference.tpot_p50 == pytest.approx(
            np.median([row.tpot for row in ok if row.tpot]), rel=0.02
        )
        assert result.lengths.output == Length(
            asked_p50=np.median([row.call.request.output_tokens for row in ok]),
            given_p50=np.median([row.output_count for row in ok]),
            asked=sum(row.call.request.output_tokens for row in ok),
            given=sum(row.output_count for row in ok),
        )


def test_digests_agree_with_the_exact_quantiles(summed: Summary) -> None:
    summary = summed
    assert summary.digests == "from the workers"
    for result in summary.results:
        for name in ("ttft", "tpot", "itl", "e2e"):
            quantiles = result.metrics[name].quantiles
            assert abs(quantiles[0].digest_error) < 0.002
            assert abs(quantiles[3].digest_error) < 0.002


def test_rows_of_no_step_of_the_run_are_left_out_and_named(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=10)
    writer = row_files.Writer(folder, 9)
    for row in made.exchanges(made.GPU, seconds=10, seed=3, step="extra"):
        writer.append(row)
    writer.flush()
    recorded = run_folder.open_run(folder)
    assert recorded.damaged == ("9-00000.parquet",) and set(recorded.rows["step"]) == {"1x"}
    with pytest.raises(InputError, match="rows of no target and step of the run"):
        list(row_files.batches(folder, damaged=None, planned=[(made.GPU.name, "1x")]))


def test_stale_digests_are_replaced(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=10)
    made.summarise(folder)
    writer = row_files.Writer(folder, 9)
    for row in made.exchanges(made.GPU, seconds=10, seed=3):
        writer.append(row)
    writer.flush()
    assert [made.summarise(folder).digests for _ in range(2)] == ["from the rows"] * 2
    (folder / "digests.json").write_text("{")
    assert made.summarise(folder).digests == "from the rows"


def test_a_servers_own_ttft_stands_beside_ours(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for row in made.exchanges(made.GPU, seconds=10, warmup=0):
        row.server_ttft = (row.ttft or 0.0) - 0.002
        if row.index % 10 == 0:
            row.outcome = Outcome.RATE_LIMITED
        writer.append(row)
    writer.flush()
    (result,) = made.summarise(tmp_path).results
    assert result.server["ttft_difference"].p50 == pytest.approx(0.002)
    refused = result.counts.outcomes["rate_limited"]
    assert result.counts.admitted == 1 - refused / result.counts.counted < 0.92


def test_slices_hold_every_counted_request_once(summed: Summary) -> None:
    for result in summed.results:
        counts = result.counts
        assert sum(row.n for row in result.slices["in_flight"]) == counts.counted
        assert sum(row.n for row in result.slices["prompt_tokens"]) == counts.counted
        assert sum(row.n for row in result.slices["output_count"]) == counts.ok
        assert sum(row.failed for row in result.slices["prompt_tokens"]) == counts.failed


def test_what_the_server_told_is_told_and_nothing_else(summed: Summary) -> None:
    summary = summed
    assert of(summary, "h100", "1x").server == dict.fromkeys((*SERVER, "ttft_difference"))
    account = of(summary, "groqrack", "1x").server
    assert account["server_queue"].n == of(summary, "groqrack", "1x").counts.ok
    assert account["server_decode"] is None


def test_goodput(folder: Path, rows: list[Exchange]) -> None:
    result = of(made.summarise(folder, {"ttft": 0.1, "tpot": 0.01}), "h100", "1x")
    met = [row for row in rows if row.target == "h100" and row.step == "1x" and row.ok
           and row.ttft <= 0.1 and (row.tpot is None or row.tpot <= 0.01)]  # fmt: skip
    assert result.goodput.good == sum(row.call.counted for row in met)
    begin, end = result.window
    rate = sum(begin <= row.done / made.S < end for row in met) / (end - begin)
    assert result.goodput.requests_per_s == pytest.approx(rate)
    assert result.vllm["request_goodput"] == pytest.approx(rate)


def test_goodput_is_never_more_than_the_throughput_that_stands_beside_it(tmp_path: Path) -> None:
    """Many an answer ends after the window; without bounds that anything misses, all of the throughput is good."""
    (result,) = made.summarise(made.run(tmp_path, (made.GPU,), seconds=20), {"ttft": 1e6}).results
    assert result.counts.ok / (result.window[1] - result.window[0]) > result.throughput.requests_per_s
    assert result.goodput.requests_per_s == result.throughput.requests_per_s
    assert result.goodput.share == 1.0


def test_an_undefined_figure_violates_no_objective() -> None:
    rows = pd.DataFrame({"ttft": [0.1, 0.1, 0.3], "tpot": [np.nan, 0.02, 0.02], "e2e": [1.0, 1.0, 1.0]})
    assert meets(rows, {"ttft": 0.2, "tpot": 0.01}).tolist() == [True, False, False]
    assert meets(rows, {"ttft": 0.1, "tpot": 0.02}).tolist() == [True, True, False]


def test_whole_answers_have_no_ttft_and_their_end_is_what_users_wait_for(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, seconds=30)
    for row in rows:
        row.whole = True
        del row.token_at[:-1], row.token_events[:-1]
    writer = row_files.Writer(tmp_path, 0)
    for row in rows:
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path, {"ttft": 0.5})
    (result,) = summary.results
    answered = [row for row in rows if row.ok and row.call.counted]
    assert result.metrics["ttft"].n == result.metrics["tpot"].n == 0
    assert result.metrics["e2e"].n == result.counts.whole == len(answered)
    assert 0 < result.goodput.good == sum(row.e2e <= 0.5 for row in answered) < len(answered)
    note = f"h100 at 1x: {len(answered)} answers did not stream: they have no TTFT and no TPOT."
    assert note in findings.notes(summary)
    assert "answers did not stream" in made.page([tmp_path]).read_text()


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"late": 0.05}, "invalid", "left late"),
        ({"blur": 40_000_000}, "invalid", "read too late"),
        ({"ended": "worker_lost"}, "invalid", "worker lost"),
        ({"ended": "running"}, "invalid", "never ended"),
        ({"ended": "interrupted"}, "suspect", "interrupted"),
        ({"change": lambda facts: facts.update(missing={"h100": 3})}, "invalid", "3 planned requests"),
        ({"change": lambda facts: facts["workers"][0].update(clock_offset_s=0.5)}, "suspect", "clocks differ"),
    ],
)
def test_validity_from_files(tmp_path: Path, more: dict, status: str, words: str) -> None:
    judged = made.summarise(made.run(tmp_path, (made.GPU,), seconds=20, **more)).validity
    assert judged.status == status
    assert words in judged.reasons[0].text


def test_a_clock_step_is_told_and_its_requests_left_out(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for number, row in enumerate(made.exchanges(made.GPU, seconds=20, warmup=0)):
        row.stepped = number < 5
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path)
    (result,) = summary.results
    assert result.metrics["ttft"].n == result.counts.ok - 5
    assert "5 requests were open while the clock was stepped" in str(summary.validity)


def test_faults_of_ours_give_no_verdict_on_the_server(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, seconds=30)
    for row in rows[-20:]:
        row.outcome, row.error = Outcome.INTERNAL_ERROR, "Too many open files: raise the limit"
    writer = row_files.Writer(tmp_path, 0)
    for row in rows:
        writer.append(row)
    writer.flush()
    (tmp_path / "run.json").write_text(json.dumps(made.facts_of((), [], 0, 7, "completed")))
    run = run_folder.open_run(tmp_path)
    summary = save(run)
    assert summary.validity.status == "invalid"
    (reason,) = summary.validity.reasons
    assert reason.text.startswith("20 of ") and "ulimit" in reason.remedy
    assert exit_code(judge(run, ["errors < 1%"]), summary.validity.status) == 3


def test_tries_are_told_from_requests(tmp_path: Path) -> None:
    rows = made.exchanges(made.GPU, seconds=30)
    again = [dataclasses.replace(row, call=dataclasses.replace(row.call, attempt=2)) for row in rows[-7:]]
    writer = row_files.Writer(tmp_path, 0)
    for row in rows + again:
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path)
    counted = sum(row.call.counted for row in rows)
    said = f"h100 at 1x: {counted + 7} tries of {counted} requests: each try is a row, and n and failed count tries."
    assert said in findings.notes(summary)


def test_a_request_is_admitted_where_one_of_its_tries_was(tmp_path: Path) -> None:
    """12 requests, 5 of them refused at first, one of these at every try."""
    rows = made.exchanges(made.GPU, seconds=30, warmup=0)[:12]
    refused = {"outcome": Outcome.RATE_LIMITED, "error": "429: slower"}
    writer = row_files.Writer(tmp_path, 0)
    for row in rows:
        row.outcome = Outcome.OK
        tries = 1 if row.index < 7 else 2 if row.index < 11 else 3
        for attempt in range(1, tries + 1):
            last = attempt == tries and row.index != 11
            call = dataclasses.replace(row.call, attempt=attempt)
            writer.append(dataclasses.replace(row, call=call, **({} if last else refused)))
    writer.flush()
    summary = made.summarise(tmp_path)
    (result,) = summary.results
    assert (result.counts.requests, result.counts.counted) == (12, 18)
    assert result.counts.admitted == pytest.approx(11 / 12)
    said = "91.7% admitted: 1 of 12 requests were refused for their rate at every try, as were 7 of 18 tries"
    assert any(said in note for note in findings.notes(summary))
    assert ">7 refused</td>" in made.page([tmp_path]).read_text()


def test_answers_that_came_all_at_once_are_told(tmp_path: Path) -> None:
    """One read with every token: its instant says nothing of prefill alone."""
    rows = [row for row in made.exchanges(made.GPU, seconds=20, warmup=0) if row.ok]
    for row in rows[:3]:
        del row.token_at[:-1], row.token_events[:-1]
    rows[3].usage_output = 1  # a single token has nowhere else to come
    del rows[3].token_at[1:], rows[3].token_events[1:]
    writer = row_files.Writer(tmp_path, 0)
    for row in rows:
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path)
    assert any("3 answers came all at once: their TTFT is their E2E" in note for note in findings.notes(summary))
    assert len(rows) > 100
    (result,) = summary.results
    once = dataclasses.replace(result, counts=dataclasses.replace(result.counts, at_once=1))  # of 200
    assert not any("all at once" in note for note in findings.notes(dataclasses.replace(summary, results=[once])))


def test_answers_that_the_server_keeps_open_are_shown_as_its_own(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for row in made.exchanges(made.GPU, seconds=5, warmup=1):
        row.body_end = None if row.done is None else row.done + 400_000_000
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path)
    assert summary.results[0].in_flight.held_open == 0.4
    assert any("the server kept answers open for 400 ms" in line for line in findings.notes(summary))


def test_what_was_sent_again_is_counted_and_shown(tmp_path: Path) -> None:
    rows = list(made.exchanges(made.GPU, seconds=5, warmup=1))
    writer = row_files.Writer(tmp_path, 0)
    for row in rows:
        row.reconnected = row.index % 2 == 0
        writer.append(row)
    writer.flush()
    summary = made.summarise(tmp_path)
    (result,) = summary.results
    assert result.counts.sent_again == sum(row.reconnected and row.call.counted for row in rows) > 1
    note = f"{result.counts.sent_again} requests were sent again"
    assert any(note in line for line in findings.notes(summary))
    assert note in made.page([tmp_path]).read_text()


def test_a_request_sent_twice_is_found(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=10)
    again = row_files.Writer(folder, 1)
    row = next(made.restored(row_files.read(folder)))
    row.started, row.sent, row.done = row.due + 1, row.due + 2, row.due + 3
    again.append(row)
    again.flush()
    assert "1 requests were sent twice" in made.summarise(folder).validity.reasons[0].text


def test_without_run_json_the_rows_still_speak(tmp_path: Path) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=20)
    (folder / "run.json").unlink()
    summary = made.summarise(folder)
    assert summary.validity.status == "invalid"  # nothing says how the run ended
    assert summary.results[0].metrics["ttft"].quantiles[0].value > 0


def test_nothing_answered_at_all(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for index in range(10):
        due = index * made.S
        writer.append(make_exchange(index=index, target="dead", due=due, prompt_tokens=5, output_tokens=5, started=due,
                               done=due + 9, outcome=Outcome.REFUSED, error="refused"))  # fmt: skip
    writer.flush()
    summary = made.summarise(tmp_path)
    (result,) = summary.results
    assert list(findings.alarms(summary)) == ["dead: every request failed, 10 of them; refused: refused"]
    assert "every request failed" in made.page([tmp_path]).read_text()
    stored = json.loads((tmp_path / "summary.json").read_text())["results"][0]
    assert stored["metrics"]["ttft"]["quantiles"][0] | {"digest": 0} == {
        "q": 0.5, "value": None, "unbounded": True, "low": None, "high": None, "answered": None, "n": 10, "needs": 6,
        "enough": True, "effective": 10.0, "drifting": False, "more_s": 0.0, "rounds": 1, "worst": None,
            "digest": 0, "digest_error": None,
    }  # fmt: skip
    assert result.errors == [ErrorCount("refused", "refused", 10)]


def test_failures_that_differ_in_a_number_are_one(tmp_path: Path) -> None:
    writer = row_files.Writer(tmp_path, 0)
    times = {"prompt_tokens": 5, "output_tokens": 5, "started": 1, "done": 9}
    for index in range(30):
        error = f"400: {3000 + index} tokens of req_{index:04x}f exceed 2048" if index < 26 else "400: no such field"
        writer.append(
            make_exchange(index=index, target="t", due=index, outcome=Outcome.HTTP_ERROR, error=error, **times)
        )
    writer.flush()
    summary = made.summarise(tmp_path)
    (result,) = summary.results
    like = "400: 3000 tokens of req_0000f exceed 2048"
    assert result.errors == [
        ErrorCount("http_error", like, 26, 26), ErrorCount("http_error", "400: no such field", 4)
    ]  # fmt: skip
    assert f"t: 26 x http_error: {like} (one of 26 that differ in numbers)" in findings.notes(summary)


@pytest.mark.parametrize(
    ("failing", "outcome", "since"),
    [
        (range(119, 400), Outcome.REFUSED, "h100 at 1x: no answer since 9.8 s of the run: every later request failed"),
        (range(0, 400, 2), Outcome.REFUSED, ""),  # half of them, all along: the last may fail
        (range(397, 400), Outcome.REFUSED, ""),
        (range(120, 400), Outcome.CUT, ""),
        (range(120, 400), Outcome.RATE_LIMITED, ""),
    ],
)
def test_a_server_that_dies_has_an_instant(tmp_path: Path, failing: range, outcome: Outcome, since: str) -> None:
    writer = row_files.Writer(tmp_path, 0)
    for index in range(400):
        due = index * made.S // 12
        facts = {"index": index, "target": "h100", "step": "1x", "due": due, "started": due, "done": due + 10**7}
        writer.append(make_exchange(**facts, outcome=outcome if index in failing else Outcome.OK,
                                    prompt_tokens=5, output_tokens=5))  # fmt: skip
    writer.flush()
    assert list(findings.alarms(made.summarise(tmp_path))) == ([since] if since else [])


@pytest.mark.parametrize(("content", "words"), [("{", "not JSON"), ("[]", "expected an object")])
def test_a_damaged_run_json_is_named(tmp_path: Path, content: str, words: str) -> None:
    folder = made.run(tmp_path, (made.GPU,), seconds=5)
    (folder / "run.json").write_text(content)
    with pytest.raises(InputError, match=f"run.json: {words}"):
        run_folder.open_run(folder)
    with pytest.raises(InputError, match="no such run"):
        run_folder.open_run(tmp_path / "nowhere")


@pytest.fixture
def in_two_files(tmp_path: Path) -> Path:
    return made.run(tmp_path / "run", (made.GPU,), steps={"1x": 9.0, "2x": 9.0}, seconds=10)


@pytest.mark.parametrize("told_by", ["workers", "phases"])
def test_a_row_file_that_is_gone_is_noticed(in_two_files: Path, told_by: str) -> None:
    assert made.summarise(in_two_files).validity.status == "valid"
    gone, kept = row_files.files(in_two_files)
    lost = row_files.pq.read_metadata(gone).num_rows
    gone.unlink()
    facts = json.loads((in_two_files / "run.json").read_text())
    (in_two_files / "run.json").write_text(json.dumps({**facts, "workers": [], "phases": [], told_by: facts[told_by]}))
    summary = made.summarise(in_two_files)
    assert summary.validity.status == "invalid"
    assert f"{lost} exchanges that the run recorded are in no readable row file" in str(summary.validity)
    assert sum(result.counts.recorded for result in summary.results) == row_files.pq.read_metadata(kept).num_rows


def test_a_cut_row_file_is_named_and_the_others_are_reported(in_two_files: Path) -> None:
    cut, _ = row_files.files(in_two_files)
    cut.write_bytes(cut.read_bytes()[:-50])
    summary = made.summarise(in_two_files)
    assert [result.step for result in summary.results] == ["2x"]
    assert summary.validity.status == "invalid"
    assert f"row files that can't be read, left out: {cut.name}" in str(summary.validity)


def test_where_no_row_file_can_be_read_there_is_nothing_to_report(in_two_files: Path) -> None:
    for path in row_files.files(in_two_files):
        path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        made.summarise(in_two_files)


def test_without_a_counted_request_there_is_no_verdict(tmp_path: Path) -> None:
    judged = made.summarise(made.run(tmp_path, (made.GPU,), seconds=5, warmup=60)).validity
    assert judged.status == "invalid"
    assert "no verdict: no request was counted" in str(judged)
    assert exit_code([], judged.status) == 3
