"""For servers whose instants are what is measured: nothing in the kernel may hold a write back."""

from __future__ import annotations

import socket
from contextlib import suppress


def unpaced(sock: socket.socket) -> None:
    """Takes congestion control that sends what the window lets through at once. BBR, where it is the machine's
    default, paces, and now and then delays a write by up to 40 ms. A listening socket hands it on to those accepted."""
    with suppress(OSError, AttributeError):  # a kernel that has no other; not TCP, not Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
