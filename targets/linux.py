"""What Linux does for a client and servers that must be exact to microseconds: a timer at an absolute instant, the
receive time and the segments of a read, writes that nothing holds back, how long a process had no core, and its end
with its parent's.
Where a system lacks one of them, it is counted as missing or left out, but for `Timerfd`, which raises OSError.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from traces.request import NS_PER_S

CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
ABSTIME, CANCEL_ON_SET = 1, 2


class _Itimerspec(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class Timerfd:
    """One alarm as a file descriptor that any event loop can watch; `fd` is readable once it has gone off. Event loops
    wait in whole milliseconds (asyncio, libev): a timerfd is exact to tens of microseconds. Python has
    os.timerfd_create from 3.13 on; ctypes reaches it before. See timerfd_create(2)."""

    def __init__(self, clock: int = CLOCK_MONOTONIC) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._by_reference = ctypes.byref(self._spec)

    def set(self, at: int | None, flags: int = 0) -> None:
        """Goes off at `at`, nanoseconds of its clock (an instant that has passed: at once); None: never."""
        at = 0 if at is None else max(1, at)  # 0 means "disarm" to the kernel
        self._spec.value_s, self._spec.value_ns = divmod(at, NS_PER_S)
        if self._libc.timerfd_settime(self.fd, ABSTIME | flags, self._by_reference, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Takes note of the alarm. OSError (ECANCELED) where its clock was set and it has CANCEL_ON_SET."""
        with suppress(BlockingIOError):  # set anew since it went off
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


# The receive time of a read. The socket module doesn't have the option; its message is a timespec.

SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_TIMESPEC = struct.Struct("@ll")
timespec = _TIMESPEC.unpack  # a control message's data -> (seconds, nanoseconds) of CLOCK_REALTIME
ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)  # bytes of control messages that `recvmsg` needs room for


def stamp_reads(sock: _socket.socket) -> None:
    """Asks the kernel for the receive time of what the socket brings; without it reads are counted as unstamped."""
    if SO_TIMESTAMPNS is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


class SegmentCount:
    """Counts the segments of a TCP connection: did a read bring one segment?"""

    __slots__ = ("_counted", "_sock")

    _RECEIVED = struct.Struct("=128xQ16xI")  # of tcp_info: bytes that came in, and the segments that brought them

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._counted: tuple[int, int] | None = (0, 0)  # reads and segments at the last count; None: not known

    def one_read_one_segment(self, reads: int, read: int) -> bool:
        """Did the last of so many reads, which brought `read` bytes all in all, bring one segment? It is known where
        nothing waits now, nothing waited at the last count, and there were as many segments since then as reads."""
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, self._RECEIVED.size)
        if len(info) < self._RECEIVED.size:
            return False
        received, segments = self._RECEIVED.unpack(info)
        last, waiting = self._counted, received - read
        alone = last is not None and reads - last[0] == segments - last[1]
        nothing = waiting == 0 or (waiting == 1 and alone)  # the connection's end is counted as a byte
        self._counted = (reads, segments) if nothing else None
        return alone and nothing


class Delivery:
    """What was sent on a TCP connection since this was made: is it certain that the peer's program can't have read it?

    It is where none of it left this machine, or where the peer had closed before any of it came: then the peer's FIN is
    here and acknowledges none of it, and its kernel answers it with RST instead of keeping it for the program. What a
    program has read before it closes is acknowledged, by the FIN at the latest. An RST without a FIN proves nothing: a
    program that reads and then resets sends one, often before its kernel has acknowledged what was read.

    (One case looks the same and isn't: a program that shuts down its sending side, so that it can answer nothing more,
    reads on all the same, and resets within the 200 ms at most for which its kernel may delay an acknowledgement.)
    """

    __slots__ = ("_acknowledged", "_sent", "_sock")

    # Of tcp_info: the state; bytes that the peer acknowledged; bytes that came in, a FIN as one; bytes that went out.
    _FACTS = struct.Struct("=B119xQQ64xQ")
    _CLOSED = 7  # the state once an RST has come

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        _, self._acknowledged, _, self._sent = self._facts()

    def _facts(self) -> tuple[int, ...]:
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, self._FACTS.size)
        return self._FACTS.unpack(info) if len(info) == self._FACTS.size else (0, -1, 0, 0)  # a kernel before 4.19

    def unread(self, read: int) -> bool | None:
        """Is it certain? None: the peer's kernel hasn't yet said. `read`: bytes read on this connection, all in all."""
        state, acknowledged, received, sent = self._facts()
        if acknowledged != self._acknowledged or acknowledged < 0:
            return False
        if state != self._CLOSED:
            return None
        return received == read + 1 or sent == self._sent


_ROUND_TRIP = struct.Struct("=68xI")  # of tcp_info: the smoothed round trip, microseconds


def round_trip(sock: _socket.socket) -> float | None:
    """Seconds to the peer's kernel and back, as this one's has measured it on a TCP connection; None where it doesn't
    say. Right after the handshake it is the handshake's: a client that waits for a core doesn't lengthen it. On a busy
    connection the peer's delayed acknowledgements are in it, up to 40 ms."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.size)
    except (OSError, AttributeError):
        return None
    return _ROUND_TRIP.unpack(info)[0] / 1e6 or None if len(info) == _ROUND_TRIP.size else None


# Nothing may hold a write back.

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def quick_ack(sock: _socket.socket) -> Callable[[], None] | None:
    """What acknowledges at once all that a TCP socket has read (OSError: it is broken); None where that can't be."""
    return None if _QUICKACK is None else partial(sock.setsockopt, socket.IPPROTO_TCP, _QUICKACK, 1)


def send_unpaced(sock: socket.socket) -> None:
    """For servers whose instants are what is measured: takes congestion control that sends at once what the window lets
    through. BBR, where it is the machine's default, paces, and now and then delays a write by up to 40 ms. A listening
    socket hands it on to those accepted."""
    with suppress(OSError, AttributeError):  # a kernel that has no other; not TCP, not Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def kept_waiting(process: int | str = "thread-self") -> float:
    """Seconds that a process's main thread was ready to run and had no core; 0 where the system doesn't say."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / NS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


def die_with_parent() -> None:
    """Asks the kernel for a SIGTERM to this process when its parent ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
