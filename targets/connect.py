"""`connect`: the target that a spec names, whatever its kind."""

from __future__ import annotations

from .client import HttpTarget
from .clock import Clock
from .target import Spec, Target
from .wire import custom


def connect(spec: Spec, clock: Clock) -> Target:
    """A ready target: a user's own wire format or a known one. Raises InputError."""
    wire = custom.load(spec.endpoint_type) if spec.endpoint_type.endswith(".toml") else None
    return HttpTarget(spec, clock, wire)
