"""Where the time went: parts add up to the whole, and what nobody told is not reported."""

from __future__ import annotations

from array import array

import pytest

from reports.analysis import phases
from reports.analysis.phases import ABSENT, BY_SERVER, MEASURED, REST, Part
from reports.store import durations
from targets.exchange import Exchange, Outcome
from tests.exchanges import make_exchange
from tests.reports import made

MS = made.MS


def account(rows: list[Exchange]) -> dict[str, Part]:
    return {part.phase: part for part in phases.account(durations.of_exchanges(rows))}


def test_parts_add_up_to_the_whole_request_from_due() -> None:
    for one in (made.GPU, made.RACK):
        rows = [row for row in made.exchanges(one, seconds=30) if row.ok]
        told = account(rows)
        whole = sum((row.last_token - row.due) * 1e-9 for row in rows) / len(rows)
        assert sum(part.mean or 0.0 for part in told.values()) == pytest.approx(whole, rel=2e-4)


def test_a_server_that_tells_nothing_is_not_guessed_at() -> None:
    told = account([row for row in made.exchanges(made.GPU, seconds=20) if row.ok])
    assert {name: part.standing for name, part in told.items()} == {
        "client wait": MEASURED, "connection": MEASURED, "queue": ABSENT, "prefill": ABSENT, "KV transfer": ABSENT,
        "not attributed": REST, "decode": MEASURED,
    }  # fmt: skip
    assert told["queue"].mean is None


def test_what_the_server_tells_is_taken_and_marked() -> None:
    told = account([row for row in made.exchanges(made.RACK, seconds=20) if row.ok])
    assert (told["queue"].standing, told["prefill"].standing, told["KV transfer"].standing) == (
        BY_SERVER,
        BY_SERVER,
        ABSENT,
    )


def test_a_phase_that_only_some_answers_tell_is_not_reported() -> None:
    rows = [row for row in made.exchanges(made.RACK, seconds=20) if row.ok]
    for row in rows[:10]:
        row.server_queue = None
    assert account(rows)["queue"].standing == ABSENT


def test_two_legs_are_measured() -> None:
    def row(index: int, local: bool) -> Exchange:
        return make_exchange(
            index=index, target="t", due=0, prompt_tokens=9, output_tokens=3, outcome=Outcome.OK, started=1 * MS,
            connected=1 * MS, sent=2 * MS, body_sent=2 * MS, token_at=array("q", [100 * MS, 120 * MS]),
            token_events=array("i", [1, 2]), prefill_sent=None if local else 2 * MS,
            prefill_done=None if local else 50 * MS, decode_sent=2 * MS if local else 53 * MS,
        )  # fmt: skip

    told = account([row(0, local=False), row(1, local=True)])
    assert "not attributed" not in told
    assert told["prefill"].standing == "measured; 1 of 2 went straight to decode, the others' mean is 48.0 ms"
    assert [told[name].mean for name in ("prefill", "hand-over", "decode leg to first token", "decode")] == (
        pytest.approx([0.024, 0.0015, (0.047 + 0.098) / 2, 0.02])
    )
    told = account([row(0, local=True), row(1, local=True)])
    for name in ("prefill", "hand-over"):
        assert (told[name].standing, told[name].mean) == ("none: all went straight to decode", None)
    assert told["decode leg to first token"].mean == pytest.approx(0.098)


def test_legs_sent_at_once_have_no_hand_over() -> None:
    rows = [
        make_exchange(
            index=0,
            target="t",
            due=0,
            prompt_tokens=9,
            output_tokens=3,
            outcome=Outcome.OK,
            started=MS,
            connected=MS,
            sent=2 * MS,
            body_sent=2 * MS,
            token_at=array("q", [first * MS]),
            token_events=array("i", [1]),
            prefill_sent=2 * MS,
            prefill_done=done * MS,
            decode_sent=3 * MS,
        )
        for first, done in ((100, 50), (60, 62))
    ]
    told = account(rows)
    assert (told["hand-over"].standing, told["hand-over"].mean) == (phases.TOGETHER, None)
    assert told["prefill"].mean == pytest.approx((0.048 + 0.060) / 2)
    assert told["decode leg to first token"].mean == pytest.approx((0.050 + 0) / 2)
