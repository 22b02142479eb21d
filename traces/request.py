"""`Request`, a row of what should happen. Imports nothing heavy: all that sends and measures needs it."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a trace: what a user requests, and when.

    due            nanoseconds from the trace's start (exact: every unit met in public traces lands on them)
    prompt_tokens  length of the prompt, shared prefix included
    output_tokens  length of the answer that the trace saw
    session, turn  session number (-1: none) and position in it, from 0
    prefix         ids of the prompt's leading blocks; equal ids are equal text (`Trace.block_tokens` has their sizes)
    parent, think  index of the request that must be done before this one is sent in a closed loop (-1: none), and
                   the nanoseconds its user then thinks
    """

    index: int
    due: int
    prompt_tokens: int
    output_tokens: int
    session: int = -1
    turn: int = 0
    prefix: tuple[int, ...] = ()
    parent: int = -1
    think: int = 0
