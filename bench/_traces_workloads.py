"""Makes the bundled workloads' files anew from the public traces: `python -m bench._traces_workloads FOLDER`.

FOLDER holds the traces under their publishers' names. Only parameters are written: quantiles, rates, correlations.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

from traces.distributions import Lengths, Process
from traces.fitting import fit
from traces.reading import open_trace
from traces.typed_json import to_plain
from traces.workload import FOLDER, Workload

AZURE = "Azure LLM inference traces 2023 (Azure/AzurePublicDataset, CC-BY-4.0)"
FITTED = {
    "azure-conv": (
        "AzureLLMInferenceTrace_conv.csv",
        "Chat at a large cloud: multimodal prompts, a slowly wandering rate",
        AZURE,
    ),
    "azure-code": (
        "AzureLLMInferenceTrace_code.csv",
        "Code completion: long prompts, short answers, bursts and silences",
        AZURE,
    ),
    "mooncake-conversation": (
        "mooncake_conversation_trace.jsonl.gz",
        "Chat with long contexts and shared prefixes",
        "Mooncake conversation trace (kvcache-ai/Mooncake, Apache-2.0)",
    ),
    "ragpulse": (
        "ragpulse",
        "Retrieval-augmented answers over a week: a slow service with a daily rhythm",
        "RAGPulse (flashserve/RAGPulse, MIT)",
    ),
}
DEEPSEEK = (
    "servegen_reason_deepseek-r1.tar.gz",
    "Reasoning: short prompts, very long answers, bursty clients",
    "ServeGen, deepseek-r1 (alibaba/ServeGen, Apache-2.0)",
)
WEKA = (
    "weka_traces",
    "Coding agents: sessions of some 65 turns whose context grows to 100k tokens",
    "30 sessions of kv-cache-tester (callanjfox/kv-cache-tester, Apache-2.0)",
)
FIXED = {"fixed-128-128": (128, 128), "fixed-1k-1k": (1024, 1024), "fixed-8k-1k": (8192, 1024)}


def main(folder: Path) -> None:
    for name, (file, about, source) in FITTED.items():
        write(name, replace(fit(open_trace(str(folder / file))), about=about + ".", fitted_to=source))
    trace = open_trace(str(folder / DEEPSEEK[0]))
    write("deepseek-r1", replace(fit(trace), duration=3600, about=DEEPSEEK[1] + ".", fitted_to=DEEPSEEK[2]))
    agents = fit(open_trace(str(folder / WEKA[0])))
    arrivals = replace(agents.arrivals, rate=1.0)  # thirty sessions that start together say nothing of a service's rate
    agents = replace(agents, duration=3600, arrivals=arrivals, about=WEKA[1] + ".", fitted_to=WEKA[2])
    write("weka-agentic", agents)
    for name, (prompt, output) in FIXED.items():
        about = f"Every request {prompt} tokens in, {output} out, Poisson arrivals: the shape that benchmarks quote."
        process = Process(rate=1.0)
        write(name, Workload(about=about, arrivals=process, prompt=Lengths(fixed=prompt), output=Lengths(fixed=output)))


def write(name: str, workload: Workload) -> None:
    text = json.dumps(to_plain(workload), indent=1)
    flat = re.sub(r"\[\s+(-?[\d.e+-]+),\s+(-?[\d.e+-]+)\s+\]", r"[\1, \2]", text)
    rows = re.sub(r"(?<=[\]\d.]),\n +(?=[\[\d-])", ", ", flat)
    rows = "\n".join(part for line in rows.split("\n") for part in wrap(line, 118, drop_whitespace=False) or [""])
    rows = re.sub(r" +\n", "\n", rows)
    (FOLDER / f"{name}.json").write_text(rows + "\n")
    print(f"{name}: {len(rows)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
