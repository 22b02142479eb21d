"""`Limits`: how long the parts of an exchange may take. Imported for every `--help`, so nothing heavy stands here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import inf

from traces.errors import InputError


class FieldError(InputError):
    """A mistake in one field of a target or of its limits; whoever read the field knows where it stands.

    `target` is the target's name, where it has one by then.
    """

    def __init__(self, field: str, message: str, *, target: str = "", remedy: str = "") -> None:
        self.field = field
        shown = target if target.isprintable() else repr(target)
        super().__init__(message, where=f"{shown}, field {field}" if target else field, remedy=remedy)


@dataclass(frozen=True)
class Limits:
    """Seconds, each positive and finite; options, targets.toml, plan.json and run.json have the same names for them.
    Raises FieldError."""

    connect_timeout: float = 10.0
    first_token_timeout: float = 300.0  # from the instant at which the request is sent
    silence_timeout: float = 60.0  # between tokens
    request_timeout: float = 600.0  # the whole exchange

    def __post_init__(self) -> None:
        for field, seconds in asdict(self).items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < inf:
                raise FieldError(field, f"expected a number of seconds above 0, and finite, got {seconds!r}")
            object.__setattr__(self, field, float(seconds))


TIMEOUTS = tuple(field.name for field in fields(Limits))
