"""llama.cpp's own HTTP server over a GGUF file: `python llama_server.py FILE PORT [API_KEY]` (needs `xllamacpp`)."""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main(model: str, port: int, *keys: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = 32
    params.n_ctx = 32 * 1024
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
        1  # two wait for each other, spinning, on a busy machine
    )
    params.endpoint_metrics = True
    params.warmup = False
    params.api_keys = list(keys)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
