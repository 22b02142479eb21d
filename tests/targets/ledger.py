"""A server that keeps connections, keeps a log of every request of which its program read anything, and closes at every
byte of request and answer: with FIN, with RST or its own side only, at once or a moment later, idle or not.

A request's name is its path. Over plain TCP the program peeks at it before it decides what to read: a peek takes
nothing, so that a request of which not one byte was read is not in the log.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from collections import Counter

from .scripted import Peer

PAUSES = (0.0, 0.0, 0.0005, 0.003, 0.02)
ONE_SIDE_S = 0.25  # longer than a kernel delays an acknowledgement


class Ledger:
    """`answers`: by the first part of the path. `read`: how often a request was read, by its path."""

    def __init__(self, answers: dict[str, bytes], seed: int) -> None:
        self.answers, self.seed = answers, seed
        self.read: Counter[str] = Counter()

    def script(self, peer: Peer) -> None:
        dice = random.Random(f"{self.seed} {peer.number}")
        with contextlib.suppress(OSError, ValueError):
            while (fate := self._serve(peer, dice)) == "answered":
                pass
            time.sleep(dice.choice(PAUSES))
            self._end(peer, dice, fate)

    def _serve(self, peer: Peer, dice: random.Random) -> str:
        """Reads and answers a request, each of them whole or in part: which?"""
        secure = isinstance(peer.sock, ssl.SSLSocket)
        path = self._begun(peer) if secure else self._peeked(peer)
        fate = dice.choice(("answered", "answered", "answered", "closed idle", "half read", "half answered", "unread"))
        if fate == "unread" and not secure:
            return fate
        if not secure:
            self.read[path] += 1
        if fate == "half read" and not secure:
            peer.sock.recv(dice.choice((1, dice.randrange(1, 80), dice.randrange(1, 600))))
        elif fate in ("answered", "closed idle", "half answered"):
            peer.request()
            answer = self.answers[path.split("/")[1]]
            peer.say(answer[: dice.randrange(len(answer))] if fate == "half answered" else answer)
        return fate

    def _peeked(self, peer: Peer) -> str:
        while (head := peer.sock.recv(128, socket.MSG_PEEK)).count(b" ") < 2:
            if not head:
                raise OSError("the client has closed")
            time.sleep(0.0005)
        return head.split(b" ")[1].decode()

    def _begun(self, peer: Peer) -> str:
        while peer.heard.count(b" ") < 2:
            if not peer._hear():
                raise OSError("the client has closed")
        path = peer.heard.split(b" ")[1].decode()
        self.read[path] += 1
        return path

    def _end(self, peer: Peer, dice: random.Random, fate: str) -> None:
        match dice.randrange(8):
            case 0 | 1 | 2:
                peer.reset()
            case 3:
                peer.sock.shutdown(socket.SHUT_RDWR)
            case 4 if isinstance(peer.sock, ssl.SSLSocket):
                peer.sock.settimeout(0.1)
                peer.sock.unwrap()
            case 4 | 5 if not isinstance(peer.sock, ssl.SSLSocket) and fate != "half read":
                peer.sock.shutdown(socket.SHUT_WR)
                peer.sock.settimeout(ONE_SIDE_S)
                self.read[self._peeked(peer)] += 1
                peer.request()
                time.sleep(ONE_SIDE_S)
                if dice.random() < 0.5:
                    peer.reset()
