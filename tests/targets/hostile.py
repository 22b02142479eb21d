"""Answers as an enemy would send them: the table's cases, mutated. Seeded; the same number gives the same bytes."""

from __future__ import annotations

import contextlib
import random
import socket
import time

from .scripted import Peer
from .wire_cases import CASES

INSERTIONS = [
    b"\r\n", b"\n\n", b"\r", b"\n", b"\0", b"\xff\xfe", b"data:", b"data: [DONE]\n\n", b"event: ", b":", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n", b"-1\r\n", b"7fffffff\r\n", b"{", b"}" * 50, b"[" * 5000, b'"', b"\\u0000", b"\\ud800",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"Connection: close\r\n",
    b"X" * 70000, b"\x1f\x8b\x08\x00", b'{"error": {"message": "' + b"y" * 9000 + b'"}}', b"1e999", b"-0", b"null",
    b"1" * 400,
]  # fmt: skip


def answer(dice: random.Random) -> bytes:
    """A case of the table after a few mutations."""
    raw = bytearray(dice.choice(CASES).raw)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 8])):
        at = dice.randrange(len(raw) + 1)
        length = dice.choice([1, 1, 4, 40, 400])
        match dice.randrange(7):
            case 0 if raw:
                raw[at % len(raw)] = dice.randrange(256)
            case 1:
                del raw[at : at + length]
            case 2:
                raw[at:at] = raw[max(0, at - length) : at]
            case 3:
                raw[at:at] = dice.choice(INSERTIONS)
            case 4:
                raw[at:at] = dice.randbytes(length)
            case 5:
                raw[at:at] = raw[at : at + length] * dice.choice([3, 30, 300])
            case _:
                raw[at:] = dice.choice(CASES).raw[dice.randrange(50) :]
    return bytes(raw)


def pieces(dice: random.Random, raw: bytes) -> list[bytes]:
    cuts = sorted(dice.randrange(len(raw) + 1) for _ in range(dice.choice([0, 0, 1, 3, 12])))
    ends = [*cuts, len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


def script(peer: Peer, seed: int = 0) -> None:
    """Answers a few requests on each connection, none of them as it should."""
    dice = random.Random(f"{seed} {peer.number}")
    with contextlib.suppress(OSError):
        for _ in range(dice.choice([1, 1, 2, 5])):
            if dice.random() > 0.05 and not peer.request():
                return
            for piece in pieces(dice, answer(dice)):
                peer.say(piece, dice.choice([0, 0, 0, 0.001, 0.02]))
            if dice.random() < 0.1:
                time.sleep(dice.choice([0.05, 0.3, 1.5]))
        if dice.random() < 0.3:
            peer.reset()
        elif dice.random() < 0.3:
            peer.sock.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
