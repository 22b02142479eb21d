"""`phaseload trace ...` as a user runs it."""

import json
from functools import partial

import pytest

from tests.commands import phaseload
from traces.reading import open_trace

CSV = "due_s,prompt_tokens,output_tokens\n" + "".join(f"{n / 4},{100 + n},{10 + n % 7}\n" for n in range(400))


trace = partial(phaseload, "trace")


@pytest.fixture
def csv(tmp_path) -> str:
    (tmp_path / "t.csv").write_text(CSV)
    return str(tmp_path / "t.csv")


def test_info_reads_a_file_and_standard_input(csv):
    assert "400 in 99.8 s, 4.01 a second" in trace("info", csv).stdout
    told = json.loads(trace("info", "-", "--json", stdin=CSV).stdout)
    assert told["requests"] == 400 and told["prompt_tokens"]["max"] == 499 and len(told["fingerprint"]) == 32


def test_a_name_is_a_file_before_it_is_a_workload(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_trace("azure-code", until=60).name == "azure-code"
    (tmp_path / "azure-code").write_text(CSV)
    assert len(open_trace("azure-code", until=60)) == 241


def test_convert_shapes_in_order_and_plot_draws_it(csv, tmp_path):
    out = str(tmp_path / "o.jsonl.gz")
    done = trace("convert", csv, csv, out, "--end", "50", "--max-prompt", "150", "--speed", "2", "--limit", "30")
    assert done.returncode == 0 and "30 requests in 1.750 s" in done.stdout
    assert trace("plot", out, str(tmp_path / "o.html")).returncode == 0
    assert "<svg" in (tmp_path / "o.html").read_text()


def test_fit_and_synth_go_round(csv, tmp_path):
    workload, out = str(tmp_path / "w.json"), str(tmp_path / "s.parquet")
    fitted = trace("fit", csv, "-o", workload, "--seeds", "1")
    assert fitted.returncode == 0 and "prompt_tokens KS" in fitted.stdout
    made = trace("synth", workload, "--rate", "8", "--duration", "20", "-o", out)
    assert made.returncode == 0 and "160 requests" in made.stdout.replace("159", "160")
    assert "azure-conv" in trace("synth", "--list").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("info", "/nowhere"), "no such file"),
        (("synth", "nothing"), "no such workload"),
        (("synth", "azurecode"), "no such workload (did you mean azure-code?)"),
        (("info", "azure-cnv"), "no such file, and no bundled workload (did you mean azure-conv?)"),
        (("convert", "azure-conv", "/tmp/x.odd", "--end", "5"), "unknown ending"),
        (("info", "azure-conv", "--until", "-5"), "seconds above 0"),
        (("info", "azure-conv", "--until", "nan"), "seconds above 0"),
        (("convert", "azure-conv", "/tmp/x.csv", "--start", "nan", "--end", "nan"), "seconds above 0"),
        (("convert", "azure-conv", "/tmp/x.csv", "--start", "nan", "--end", "5"), "expected 0 <= start < end"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, says):
    done = trace(*words)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("shape", [("--max-prompt", "9"), ("--start", "1000")])
def test_a_shape_that_leaves_nothing_writes_nothing(csv, tmp_path, shape):
    done = trace("convert", csv, str(tmp_path / "o.csv"), *shape, "--repeat", "2", "--rate-scale", "2", "--speed", "2")
    assert done.returncode == 2 and "no request is left" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o.csv").exists()
