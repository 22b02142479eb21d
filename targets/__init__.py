"""Targets: what is measured, and the client that measures it.

    from targets import Target, probe

    (answer,) = probe([Target(url="http://127.0.0.1:8000", model="llama-3.1-8b")])
    print(answer.problem or answer.notes)

`Target` is an endpoint as the user names it, `connect` gives the `Client` that sends it `Call`s and hands back an
`Exchange` for each; clients run on gevent's hub. Instants are integer nanoseconds from the run's start, durations float
seconds. A target's failure is an `Outcome`, never an exception; a target that can't be used raises `traces.InputError`.
Each name is imported when it is first used (PEP 562), so `import targets` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from traces import lazy

if TYPE_CHECKING:
    from .client.disaggregated import connect
    from .exchange import Call, Client, Exchange, Outcome
    from .probing import Probe, probe
    from .rules import FieldError, Limits
    from .simulated.build import SimulatedTarget
    from .target import Target
    from .targets_toml import load_targets

__all__ = [
    "Call", "Client", "Exchange", "FieldError", "Limits", "Outcome", "Probe", "SimulatedTarget", "Target",
    "connect", "load_targets", "probe",
]  # fmt: skip

__getattr__, __dir__ = lazy(__name__, {
    "client.disaggregated": "connect", "exchange": "Call Client Exchange Outcome", "probing": "Probe probe",
    "rules": "FieldError Limits", "simulated.build": "SimulatedTarget", "target": "Target",
    "targets_toml": "load_targets",
})  # fmt: skip
