"""How the targets of a bake-off take turns: side by side, or each alone in an order that favours none.

Side by side they have the same minute of the network and of the day, so that is best, but only where none takes
anything from another: they share no host, and this machine's client measures all of them at once truly, as its
certificate says. Else each is alone, and whoever comes first may find the world in another state than whoever comes
last; so the order is drawn anew for each round and step, each target being first, second, ... equally often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from targets.address import address
from targets.exchange import SafeLoad
from targets.quota import PERIODS
from targets.target import Target
from traces.errors import InputError
from traces.trace import ASSUMED_TPOT, NS_PER_S

from . import certificate
from .plan import Groups, LoadStep
from .quotas import worst

PARALLEL, SEQUENTIAL, RANDOM = ORDERS = ("parallel", "sequential", "random")
HERE = "this machine"


@dataclass(frozen=True)
class Turns:
    """`order` is one of ORDERS, `why` says why it was chosen."""

    order: str
    why: str

    def in_words(self) -> str:
        words = {PARALLEL: "side by side", SEQUENTIAL: "each alone", RANDOM: "each alone, in an order drawn anew"}
        return f"{words[self.order]}: {self.why}"

    def groups(self, names: Sequence[str], steps: Sequence[str], number: int = 1, seed: int = 0) -> Groups:
        """Of the targets and steps of these names, in round `number` of a series."""
        if self.order == PARALLEL:
            return {step: [list(names)] for step in steps}
        turns: dict[str, Sequence[int]] = {step: range(len(names)) for step in steps}
        if self.order == RANDOM:
            turns = {step: balanced(len(names), number, (seed, place)) for place, step in enumerate(steps)}
        return {step: [[names[place]] for place in places] for step, places in turns.items()}


def check_order(order: str | None) -> None:
    if order not in (None, *ORDERS):
        raise InputError(f"no such choice: {order!r}", where="--order", remedy=f"one of {', '.join(ORDERS)}")


def turns_of(
    order: str | None, targets: Sequence[Target], rounds: Sequence[Sequence[LoadStep]], processes: int
) -> Turns:
    """The user's own order, or the one that the targets and the certificate allow."""
    if order is not None:
        return Turns(order, "as asked for")
    if len(targets) == 1:
        return Turns(PARALLEL, "there is one target")
    if shared := _shared(targets):
        return Turns(RANDOM, shared)
    safe = certificate.load()
    if safe is None:
        return Turns(RANDOM, "no certificate says that this machine measures them side by side (phaseload certify)")
    most = max((heaviest(step, len(targets)) for steps in rounds for step in steps), key=lambda load: load.rate)
    each = SafeLoad(-(-most.streams // processes), most.rate / processes)
    if any(load.covers(each) for load in safe.safe):
        return Turns(PARALLEL, "they share no host, and the certificate covers all of them at once")
    known = certificate.in_words(safe.safe) or "nothing"
    return Turns(RANDOM, f"side by side a process would read about {each}; it is certified for {known}")


def heaviest(step: LoadStep, targets: int) -> SafeLoad:
    """What all targets together answer in the step's worst minute, at the pace that is assumed of an answer; where a
    number of requests is in flight, that many streams at that pace."""
    if step.load.concurrency is not None:
        streams = step.load.concurrency * targets
        return SafeLoad(streams, streams * NS_PER_S / ASSUMED_TPOT)
    due, tokens = step.requests.column("due"), step.requests.column("output_tokens")
    period = max(1, min(PERIODS["minute"], step.requests.span))
    rate = worst(due, tokens, period)[0] * NS_PER_S / period * targets
    return SafeLoad(round(rate * ASSUMED_TPOT / NS_PER_S), rate)


def balanced(count: int, number: int, seed: tuple[int, int]) -> list[int]:
    """The order of `count` targets in round `number` (from 1): of any `count` rounds that follow a multiple of `count`,
    each target is in each place once."""
    block, within = divmod(number - 1, count)
    rng = np.random.default_rng((*seed, block, 7))
    order, turn = rng.permutation(count), rng.permutation(count)[within]
    return [int(place) for place in np.roll(order, turn)]


def _shared(targets: Sequence[Target]) -> str:
    """Which of the targets share a host, in words; empty where none do."""
    hosts = [(target.name, _hosts(target)) for target in targets]
    for (one, ones), (other, others) in combinations(hosts, 2):
        if both := ones & others:
            return f"{one} and {other} share a host, {min(both)}"
    return ""


def _hosts(target: Target) -> set[str]:
    """The addresses to which its requests go: its servers', or a proxy's."""
    target = target.opened()
    found = set()
    for url in dict.fromkeys((*target.prefill, *target.decode) or (target.url,)):
        for _, sockaddr in address(url).sockaddrs:
            host = str(sockaddr[0]) if isinstance(sockaddr, tuple) else HERE
            found.add(HERE if host.startswith("127.") or host == "::1" else host)
    return found
