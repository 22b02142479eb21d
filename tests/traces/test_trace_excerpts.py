"""Every public format is read from its publisher's own bytes: excerpts, which lie in tests/data/traces."""

import pytest

from tests.public_traces import EXCERPTS
from traces import open_trace

# file or folder: format, requests, prompt and output tokens in all, requests that wait for another, prefix blocks
EXPECTED = {
    "azure-code.csv": ("azure", 60, 131_532, 1_441, 0, 0),
    "azure-conv.csv": ("azure", 60, 43_328, 7_301, 0, 0),
    "etalon-lengths.csv": ("vidur-lengths", 60, 124_491, 30_071, 0, 0),
    "mooncake.jsonl": ("mooncake", 36, 497_211, 13_612, 0, 994),
    "otel": ("otel", 7, 403, 373, 5, 19),
    "ragpulse": ("ragpulse", 20, 63_772, 5_058, 7, 208),
    "vidur.csv": ("vidur", 60, 43_328, 7_301, 0, 0),
    "weka": ("weka", 22, 1_148_839, 5_608, 20, 17_941),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_excerpt_is_read_as_what_it_is(name):
    trace = open_trace(str(EXCERPTS / name))
    prompt, output = (int(trace.column(column).sum()) for column in ("prompt_tokens", "output_tokens"))
    follow_ups, blocks = int((trace.column("parent") >= 0).sum()), len(trace.prefixes()[1])
    assert (trace.name, len(trace), prompt, output, follow_ups, blocks) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("azure-conv.csv", 30_181_499_000),
        ("vidur.csv", 30_181_499_000),
        ("ragpulse", 544_000_000_000),
        ("weka", 167_000_000_000),
    ],
)
def test_its_instants_are_exact(name, span):
    assert open_trace(str(EXCERPTS / name)).span == span


def test_a_set_of_clients_sends_at_the_rates_of_its_windows():
    trace = open_trace(str(EXCERPTS / "servegen"))
    tables = [path.read_text() for path in sorted((EXCERPTS / "servegen").iterdir())]
    announced = sum(float(line.split(",")[1]) * 600 for table in tables for line in table.splitlines())
    assert trace.notes["generated from clients"] == 2
    assert len(trace) == pytest.approx(announced, rel=0.1)  # two clients, bursty ones


def test_every_excerpt_is_tested_and_has_its_licence():
    readme = (EXCERPTS / "README.md").read_text()
    names = {path.name for path in EXCERPTS.iterdir()} - {"README.md"}
    assert names == {*EXPECTED, "servegen"}
    assert all(name in readme for name in names)
