"""The packaged Locust file, and a fresh interpreter's way into Locust's own `main` with it.

A fresh interpreter, because Locust patches the standard library when it is imported, which must happen before anything
else is, and because `--processes` forks, which must happen without threads of other libraries. Run as a module, this
file imports our packages before Locust puts the working directory in front of them.
"""

from __future__ import annotations

import sys

from locust.main import main  # patches first

from loadgen.run.locust_user import TraceUser


class Replay(TraceUser):
    """All that it needs is in the plan."""


if __name__ == "__main__":
    sys.exit(main())
