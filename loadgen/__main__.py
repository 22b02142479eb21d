"""`python -m loadgen`: the command line, as `phaseload` is."""

from __future__ import annotations

from .cli.app import main

if __name__ == "__main__":
    main()
