"""Others that stand where a model server does: gateways, proxies, mocks, `transformers serve`; `make test-real` only.

Each is installed at its first use under `.servers/` and started in the servers' network namespace (see `servers.py`):
Python's from PyPI, aimock with npm, nginx and haproxy unpacked from Debian's packages. What can't be had raises
Unavailable with the reason.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from .servers import HERE, SERVERS, Namespace, environment, once, python, running, wait_for

LITELLM = [["--no-compile", "litellm[proxy]==1.100.5"]]
HUGGING_FACE = [["--no-compile", "guidellm==0.8.1", "transformers[serving]==5.23.0"]]  # both need torch: 5 GB, once
AIMOCK = "@copilotkit/aimock@1.43.0"
DEBIAN = {
    "nginx": ["nginx"],
    "haproxy": ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"],
}
UPSTREAM, SILENT, NOBODY = 18800, 18801, 9  # ports: of a simulated endpoint, of who takes requests and says nothing
MODEL = "llama3-8b"
LISTEN = "import signal, socket, sys; to = socket.create_server(('127.0.0.1', int(sys.argv[1]))); signal.pause()"
UNPACK = "cd $0 && apt-get download -q $* && for package in *.deb; do dpkg-deb -x $package .; done"

NGINX = """
user root; daemon off; master_process off; pid {folder}/pid;
events {{}}
http {{
    access_log off; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1s;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen {live}; location / {{ proxy_pass {upstream}; }} }}
    server {{ listen {dead}; location / {{ proxy_pass {nobody}; }} }}
    server {{ listen {late}; location / {{ proxy_pass {silent}; }} }}
}}
"""
# Without http-no-delay haproxy hands a short answer on in one piece: "lumped".
HAPROXY = """
defaults
    mode http
    retries 0
    timeout connect 1s
    timeout client 30s
    timeout server 1s
listen live
    option http-no-delay
    bind {live}
    server one {upstream}
listen lumped
    bind {lumped}
    server one {upstream}
listen dead
    bind {dead}
    server one {nobody}
listen late
    bind {late}
    server one {silent}
"""


def installed(name: str) -> Path:
    """The folder of one of them, installed. Raises Unavailable."""
    folder = SERVERS / name
    with (SERVERS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if name in DEBIAN:
            once(folder, ["mkdir", folder], ["sh", "-ec", UNPACK, folder, *DEBIAN[name]])
        elif name == "aimock":
            once(folder, ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, AIMOCK])
        else:
            environment(name, {"litellm": LITELLM, "hugging-face": HUGGING_FACE}[name])
    return folder


@contextlib.contextmanager
def upstream(namespace: Namespace) -> Iterator[str]:
    """A simulated H100, for gateways to stand before; beside it one who takes a request and never answers."""
    command = [sys.executable, "-m", "targets.simulated", "h100", "--model", MODEL, "--port", str(UPSTREAM)]
    url = f"http://127.0.0.1:{UPSTREAM}"
    with (
        running(namespace, "upstream", *command),
        running(namespace, "silent", sys.executable, "-c", LISTEN, str(SILENT)),
    ):
        wait_for(namespace, f"{url}/v1/models", MODEL)
        yield url


@contextlib.contextmanager
def proxy(namespace: Namespace, name: str, folder: Path, port: int = 18810) -> Iterator[dict[str, str]]:
    """The URLs of nginx or haproxy before the upstream ("live", haproxy's "lumped"), nobody ("dead") and the silent one
    ("late")."""
    root, config = installed(name), folder / f"{name}.conf"
    at = {way: f"127.0.0.1:{port + number}" for number, way in enumerate(("live", "lumped", "dead", "late"))}
    scheme = "http://" if name == "nginx" else ""
    to = {"upstream": UPSTREAM, "nobody": NOBODY, "silent": SILENT}
    behind = {who: f"{scheme}127.0.0.1:{where}" for who, where in to.items()}
    config.write_text((NGINX if name == "nginx" else HAPROXY).format(folder=folder, **at, **behind))
    options = ["-p", folder, "-e", "stderr", "-c", config] if name == "nginx" else ["-db", "-f", config]
    libraries = ":".join(map(str, root.glob("usr/lib/*-linux-gnu")))
    with running(namespace, name, root / "usr/sbin" / name, *options, env={"LD_LIBRARY_PATH": libraries}):
        wait_for(namespace, f"http://{at['live']}/v1/models", MODEL)
        yield {way: f"http://{where}" for way, where in at.items()}


@contextlib.contextmanager
def litellm(namespace: Namespace, folder: Path, port: int = 18820) -> Iterator[str]:
    """LiteLLM's proxy with two models: `live` is the upstream's, behind `dead` nobody listens."""
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{MODEL}", "api_key": "none",
                                                "api_base": f"http://127.0.0.1:{at}/v1"}}
        for name, at in (("live", UPSTREAM), ("dead", NOBODY))
    ]  # fmt: skip
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models, "litellm_settings": {"num_retries": 0, "telemetry": False}}))
    words = [installed("litellm") / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    with running(namespace, "litellm", *words, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"}):
        wait_for(namespace, f"http://127.0.0.1:{port}/health/liveliness", "alive", 300)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def aimock(namespace: Namespace, folder: Path, answer: str, *options: str, port: int = 18830) -> Iterator[str]:
    """aimock, which gives everybody the same answer in chunks of 6 characters, 5 ms apart."""
    fixture = folder / "fixture.json"
    fixture.write_text(json.dumps({"fixtures": [{"match": {}, "response": {"content": answer}}]}))
    program = installed("aimock") / "node_modules" / ".bin" / "llmock"
    words = [program, "--port", str(port), "-f", fixture, "-c", "6", "-l", "5", "--log-level", "warn", *options]
    with running(namespace, "aimock", *words):
        wait_for(namespace, f"http://127.0.0.1:{port}/v1/_requests", "[")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def guidellm(namespace: Namespace, *options: str, port: int = 18840) -> Iterator[str]:
    """guidellm's mock server."""
    program = installed("hugging-face") / "bin" / "guidellm"
    words = [program, "mock-server", "--host", "127.0.0.1", "--port", str(port), "--model", MODEL, *options]
    with running(namespace, "guidellm", *words, env={"HF_HUB_OFFLINE": "1"}):
        wait_for(namespace, f"http://127.0.0.1:{port}/v1/models", MODEL, 120)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def transformers(namespace: Namespace, port: int = 18850) -> Iterator[tuple[str, str]]:
    """`transformers serve` with the tiny model in random weights: its URL, and the model's name there."""
    root, model = installed("hugging-face"), SERVERS / "tiny-transformers"
    made = [python("dynamo"), HERE / "tiny_model.py", model]
    once(model, made, [python("hugging-face"), HERE / "tiny_safetensors.py", model])
    words = [
        root / "bin" / "transformers",
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with running(namespace, "transformers", *words, env={"HF_HUB_OFFLINE": "1"}):
        wait_for(namespace, f"http://127.0.0.1:{port}/health", "ok", 300)
        yield f"http://127.0.0.1:{port}", str(model)
