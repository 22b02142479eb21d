"""A link with a delay, for a whole process: `enter(milliseconds)` starts it anew in a network namespace of its own, and
there what is sent to THERE comes back to HERE, each packet so much later. (The kernel's netem does it where there is
one.)
"""

from __future__ import annotations

import fcntl
import os
import queue
import struct
import subprocess
import sys
import threading
import time

HERE, THERE = "10.9.0.1", "10.9.0.2"  # where servers listen, and how clients reach them
INSIDE = "PHASELOAD_BENCH_DELAYED"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def enter(delay_ms: float) -> None:
    """Returns inside the namespace only. OSError where this machine allows none."""
    if INSIDE not in os.environ:
        environment = {**os.environ, INSIDE: "1", "no_proxy": "*"}
        module = [sys.executable, "-m", sys.modules["__main__"].__spec__.name]  # type: ignore[union-attr]
        os.execvpe("unshare", ["unshare", "-Urn", *module, *sys.argv[1:]], environment)
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH", b"delayed", IFF_TUN | IFF_NO_PI))
    for command in (f"addr add {HERE}/24 dev delayed", "link set delayed up", "link set lo up"):
        subprocess.run(["ip", *command.split()], check=True)
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tunnel, delay_ms / 1000, waiting), daemon=True).start()
    threading.Thread(target=_send, args=(tunnel, waiting), daemon=True).start()


def _receive(tunnel: int, delay_s: float, waiting: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        packet = os.read(tunnel, 1 << 16)
        # The other way round: source and destination change places, which no checksum minds.
        waiting.put((time.monotonic() + delay_s, packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))


def _send(tunnel: int, waiting: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        at, packet = waiting.get()
        time.sleep(max(0.0, at - time.monotonic()))
        if packet[0] >> 4 == 4:
            os.write(tunnel, packet)
