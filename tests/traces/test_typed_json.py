"""Dataclasses to and from JSON: nothing is lost, nothing is taken for something else, each mistake names its field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from traces.errors import InputError
from traces.typed_json import EMPTY, LEFT_OUT, from_json, from_plain, named, to_json, to_plain


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    parts: tuple[Inner, ...] = field(metadata=named("pieces"))
    by_name: dict[str, Inner]
    window: tuple[int, int | None]
    mode: Literal["fast", "slow"]
    size: int | str = 0
    inner: Inner | None = None
    spread: Inner | None = field(default=None, metadata=EMPTY)
    note: str | None = field(default=None, metadata=LEFT_OUT)
    body: dict[str, Any] = field(default_factory=dict)


WHOLE = Outer(parts=(Inner(1), Inner(2, 0.5)), by_name={"a": Inner(3)}, window=(1, None), mode="fast", body={"z": [1]})
PLAIN = {
    "pieces": [{"count": 1, "share": 1.0}, {"count": 2, "share": 0.5}],
    "by_name": {"a": {"count": 3, "share": 1.0}},
    "window": [1, None],
    "mode": "fast",
    "size": 0,
    "inner": None,
    "spread": {},
    "body": {"z": [1]},
}


def test_there_and_back() -> None:
    assert from_plain(Outer, PLAIN, "f") == from_json(Outer, to_json(WHOLE), "f") == WHOLE
    assert to_json(WHOLE, indent=False).startswith(b'{"pieces":[{"count":1,"share":1.0},')
    assert to_plain(WHOLE).keys() == PLAIN.keys()
    full = Outer(
        parts=(), by_name={}, window=(0, 9), mode="slow", size="any", inner=Inner(1), spread=Inner(2), note="n"
    )
    assert from_json(Outer, to_json(full), "f") == full


def test_a_whole_number_is_a_number_and_what_is_absent_has_its_default() -> None:
    read = from_plain(Outer, {**PLAIN, "inner": {"count": 1, "share": 2}}, "f")
    assert read.inner == Inner(1, 2.0) and isinstance(read.inner.share, float)
    assert from_plain(Inner, {"count": 1}, "f") == Inner(1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pieces": [{"count": "1"}]}, "f, field pieces[0].count: expected a whole number, got '1'"),
        ({"pieces": [{"count": 1}, {}]}, "f, field pieces[1].count: is missing"),
        ({"pieces": "ab"}, "f, field pieces: expected a list, got 'ab'"),
        ({"pieces": [{"count": 1, "more": 2}]}, "f, field pieces[0].more: is unknown (written by another version?)"),
        ({"by_name": {"a": {"count": 1.0}}}, "f, field by_name.a.count: expected a whole number, got 1.0"),
        ({"by_name": [1]}, "f, field by_name: expected an object, got [1]"),
        ({"window": [1]}, "f, field window: expected a list of 2, got [1]"),
        ({"window": [1, True]}, "f, field window[1]: expected a whole number, got True"),
        ({"mode": "quick"}, "f, field mode: expected one of fast, slow, got 'quick'"),
        ({"inner": 3}, "f, field inner: expected an object, got 3"),
        ({"note": 3}, "f, field note: expected a text, got 3"),
        ({"extra": 1}, "f, field extra: is unknown (written by another version?)"),
    ],
)
def test_a_mistake_is_one_line_with_its_field(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        from_plain(Outer, {**PLAIN, **change}, "f")
    assert str(caught.value) == text


@pytest.mark.parametrize(("raw", "text"), [(b"{", "f: not JSON"), (b"[]", "f: expected an object")])
def test_what_is_no_object(raw: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        from_json(Inner, raw, "f")
