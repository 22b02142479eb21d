"""One exchange with one endpoint: targets as a user names them, the streaming client, what one exchange showed.

    from targets import Target, probe

    target = Target("gpu", "http://127.0.0.1:8000", "llama-3.1-8b")
    [looked] = probe([target])                           # one short request, as before every run

`connect(target, clock)` gives the client, which runs on gevent's hub. Instants are integer nanoseconds from the run's
start, durations float seconds. A target's failure is an `Outcome`, never an exception; a target that can't be used
raises `traces.InputError`. Nothing is imported before it is used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connecting import Client as Client
    from .connecting import connect as connect
    from .exchange import Call as Call
    from .exchange import Exchange as Exchange
    from .exchange import Outcome as Outcome
    from .inspection.probe import probe as probe
    from .limits import Limits as Limits
    from .target import Target as Target

_HOMES = {
    "connecting": ("Client", "connect"),
    "exchange": ("Call", "Exchange", "Outcome"),
    "inspection.probe": ("probe",),
    "limits": ("Limits",),
    "target": ("Target",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
