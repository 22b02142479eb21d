"""A fresh interpreter's way into Locust's own `main`, for `phaseload replay` and `phaseload bakeoff`.

A fresh one, because Locust patches the standard library when it is imported, which wants to happen before anything
else is, and because `--processes` forks, which wants no threads of other libraries. `phaseload` replaces itself by
this process, so signals, the terminal and the exit code are this one's.
"""

from __future__ import annotations

import sys


def main() -> None:
    import locust.main  # patches first

    from . import locust_user  # noqa: F401 - our four packages before Locust puts the working directory in front

    sys.exit(locust.main.main())


if __name__ == "__main__":
    main()
