"""The packaged Locust file: `phaseload replay` and `phaseload bakeoff` run it with the plan that they made."""

from __future__ import annotations

from loadgen.run.locust_user import TraceUser


class Replay(TraceUser):
    """All that it needs is in the plan."""
