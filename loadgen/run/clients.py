"""A process's clients: with `keep` they outlive their step, so that the next one to a target begins on open connections
and with a client that has worked before."""

from __future__ import annotations

from targets import connect
from targets.client.disaggregated import DisaggregatedClient
from targets.client.http_client import HttpClient
from targets.clock import Clock
from targets.exchange import Outcome
from targets.target import Target

Client = HttpClient | DisaggregatedClient


class Clients:
    """`take` one for each target of a step, and `release` them all when it is over: what is open is cut."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._made: dict[tuple[str, bool], Client] = {}  # by the target as text, for it may hold dicts

    def take(self, target: Target, clock: Clock, *, keep_text: bool) -> Client:
        """Raises InputError where none can be made."""
        key = repr(target), keep_text
        if key in self._made:
            self._made[key].renew(clock)
        else:
            self._made[key] = connect(target, clock, keep_text=keep_text)
        return self._made[key]

    def release(self) -> None:
        for key, client in list(self._made.items()):
            if self._keep:
                client.stop(Outcome.CUT)
            else:
                client.close()
                del self._made[key]
