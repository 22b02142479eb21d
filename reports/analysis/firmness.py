"""Is a figure over rounds the endpoint's, or only what these rounds were? Pure.

Calm rounds pick themselves: near saturation five that agree hold the truth of a tail in half of the cases. So a tail
(p90 and above) is decided only by FIRM rounds or more, each of LEAST_S seconds or more, where the target has headroom;
a median where the target isn't overloaded, by rounds of LEAST_S or with headroom. `bench.decisions` measures how often
what is decided so holds.
"""

from __future__ import annotations

from .gate_grammar import TAIL
from .quantiles import Quantile
from .shares import FIRM
from .steadiness import Headroom, Steadiness

LEAST_S = 300.0  # seconds of a round's window


def undecided(figure: Quantile, round_s: float, state: Steadiness, room: Headroom) -> str:
    """Why the figure decides nothing; empty where it does. `round_s`: the seconds that count of each round."""
    if figure.rounds < FIRM:
        return f"{figure.rounds} of {FIRM} rounds" if figure.rounds > 1 else "one round"
    if state.overloaded:
        return f"overloaded: {state.why}"
    if figure.q < TAIL:
        return "" if room.shown else too_short(round_s)
    if why := calm(round_s, room):
        return why
    return "" if figure.n >= FIRM * figure.needs else f"{figure.n:,} requests, needs {FIRM * figure.needs:,}"


def calm(round_s: float, room: Headroom) -> str:
    """Why a tail over rounds may be that of calm ones; empty where headroom and long rounds speak against it."""
    return too_short(round_s) if room.shown else room.why


def too_short(round_s: float) -> str:
    return f"rounds of {round_s:.0f} s, needs {LEAST_S:.0f} s" if round_s < LEAST_S else ""
