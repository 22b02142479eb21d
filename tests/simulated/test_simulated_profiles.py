"""Profiles and settings: every figure has its standing and source; a user's file; mistakes in one clear line."""

from __future__ import annotations

import pytest

from targets.simulated.build import build
from targets.simulated.profiles import ALIASES, SETTINGS, STANDINGS, ServerOptions, catalogue, load, models, names
from traces.errors import InputError

BUNDLED = [
    *("a100-40g", "a100-80g", "h100", "h200", "b200", "gh200", "mi300x", "gb200-nvl72"),
    *("groqrack-alcf", "groqrack-published"),
    *("gpu-prefill+groqrack-decode", "h100-disagg", "blackwell-disagg", "local-prefill"),
]


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_profile_is_sourced_and_builds(name):
    profile = load(name)
    figures = dict(profile.all_figures())
    assert figures
    for figure in figures.values():
        assert figure.standing in STANDINGS
        assert figure.source
        assert figure.unit
    endpoint = build(name)
    assert endpoint.station.limit > 1000
    assert endpoint.price > 0
    assert endpoint.watts > 0
    assert name in load(name).sheet()


def test_the_catalogue_lists_all_with_their_standing():
    assert sorted(BUNDLED) == names()
    text = catalogue()
    for name in BUNDLED:
        assert name in text
    assert all(alias in text for alias in ALIASES)
    assert all(key in text for key in SETTINGS)
    assert (load("h100").standing, load("h200").standing) == ("fitted", "assumed")
    assert load("groqrack").standing == "derived"
    assert load("disaggregated").standing == "assumed"


def test_pools_multiply_the_price():
    assert build("h100", settings={"pool": "3", "tp": "2"}).price == pytest.approx(6 * 2.65)
    assert build("disaggregated", settings={"pool": "2:3"}).price == pytest.approx(2 * 1.1 + 3 * 43)
    assert build("gb200-nvl72").units == 72


OWN = """
kind = "gpu"
description = "a card of our own"
[figures]
bandwidth = { value = 2e12, unit = "B/s", standing = "measured", source = "our bench" }
peak = { value = 500e12, unit = "flop/s", standing = "measured", source = "our bench" }
memory = { value = 60e9, unit = "B", standing = "vendor", source = "data sheet" }
[engines.ours]
mbu = { value = 0.9, unit = "1", standing = "fitted", source = "our bench" }
mfu = { value = 0.6, unit = "1", standing = "fitted", source = "our bench" }
c0 = { value = 2e-3, unit = "s", standing = "fitted", source = "our bench" }
c1 = { value = 3e-5, unit = "s/sequence", standing = "fitted", source = "our bench" }
"""


def test_a_users_own_hardware_is_a_file(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(OWN)
    endpoint = build(str(path), model="llama3-8b")
    assert endpoint.name == "ours"
    assert endpoint.profile.standing == "fitted"
    assert endpoint.price is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "gpu"', 'kind = "tpu"', "kind: expected one of gpu"),
        ('standing = "measured"', 'standing = "guessed"', "bandwidth: expected one of measured"),
        ("value = 2e12", 'value = "fast"', "bandwidth: expected { value"),
        ("value = 2e12", "value = -1", "bandwidth: expected { value"),
        ("mbu = ", "mbu 3 = ", "ours.toml"),
        ("c0 = ", "# c0 = ", "no figure named c0"),
        ("c0 = ", "c9 = ", "expected one of bandwidth"),
        ("value = 2e12", "value = 0", "bandwidth: expected a value above 0"),
        ("value = 2e12", "value = nan", "bandwidth: expected { value"),
        ('unit = "B/s"', 'unit = "GB/s"', "bandwidth, unit: expected 'B/s', found 'GB/s'"),
        ('unit = "B/s", ', "", "bandwidth, unit: expected 'B/s', found None"),
        (OWN[OWN.index("[engines") :], "", "a GPU needs an engine"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, old, new, message):
    path = tmp_path / "ours.toml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(InputError) as problem:
        build(str(path))
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("name", "model", "settings", "message"),
    [
        ("h1000", "llama2-7b", {}, "no such simulated endpoint: h1000"),
        ("models", "llama2-7b", {}, "no such simulated endpoint"),
        ("h100", "llama9", {}, "no such model: llama9"),
        ("h100", "llama2-70b", {}, "doesn't fit into h100"),
        ("groqrack", "llama2-70b", {}, "doesn't fit into one groqrack-alcf"),
        ("h100", "llama2-7b", {"pool": "0"}, "pool=0"),
        ("h100", "llama2-7b", {"pool": "1.5"}, "pool=1.5"),
        ("h100", "llama2-7b", {"pool": "many"}, "pool=many"),
        ("h100", "llama2-7b", {"policy": "best"}, "policy=best"),
        ("h100", "llama2-7b", {"engine": "sglang"}, "engine=sglang"),
        ("h100", "llama2-7b", {"acceptance": "1.5"}, "acceptance=1.5"),
        *(
            ("h100", "llama2-7b", {key: "0", "precision": "fp8"}, f"{key}=0")
            for key in ("mbu", "mfu", "peak", "peak_fp8", "bandwidth", "interconnect")
        ),
        ("groqrack", "llama2-7b", {"stage": "0"}, "stage=0"),
        ("disaggregated", "llama2-7b", {"prefill.mbu": "0"}, "prefill.mbu=0"),
        ("h100", "llama2-7b", {"speed": "9"}, "no such setting: speed"),
        ("disaggregated", "llama2-7b", {"decode.tp": "2"}, "no such setting: tp"),
        ("disaggregated", "llama2-7b", {"link.bandwidth": "0"}, "link.bandwidth=0"),
        ("disaggregated", "llama2-7b", {"local_below": "100"}, "local_below needs"),
        ("disaggregated", "llama2-7b", {"prefill": "groqrack"}, "can't hand its KV cache over"),
        ("disaggregated", "llama2-7b", {"decode": "h100-disagg"}, "is a composition"),
    ],
)
def test_what_can_not_be_built_is_one_clear_line(name, model, settings, message):
    with pytest.raises(InputError, match=message) as problem:
        build(name, model=model, settings=settings)
    assert "\n" not in str(problem.value)


def test_models_have_the_kv_of_their_heads():
    for model in models().values():
        assert model.kv_bytes % (2 * model.layers * 2 * 128) == 0  # heads of 128


@pytest.mark.parametrize("options", [{"port": 99_999}, {"port": -1}, {"limit_tokens": -5}, {"limit_requests": -1}])
def test_a_server_refuses_what_is_out_of_range(options):
    with pytest.raises(InputError) as problem:
        ServerOptions("h100", **options)
    assert "\n" not in str(problem.value)
