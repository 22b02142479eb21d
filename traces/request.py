"""`Request`, a row of what should happen. Imports nothing heavy: all that sends and measures needs it."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a trace: what a user requests, and when."""

    index: int
    due: int  # ns from the trace's start (exact: every unit met in public traces lands on them)
    prompt_tokens: int  # shared prefix included
    output_tokens: int  # of the answer that the trace saw
    session: int = -1  # -1: none
    turn: int = 0  # its position in the session
    prefix: tuple[int, ...] = ()  # ids of leading blocks; equal ids are equal text (`Trace.block_tokens`: their sizes)
    parent: int = -1  # index of the request that must be done before this one is sent in a closed loop, -1: none
    think: int = 0  # ns that its user then thinks
