"""`python -m bench [NAME ...]`: runs the benchmarks beside this file, each module's `main()`; says where and when."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import sys
from pathlib import Path

from loadgen.certificate import cpu


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{cpu()}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def names() -> list[str]:
    """Modules that measure; those with a leading underscore are their helpers."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))


def main() -> int:
    asked = sys.argv[1:] or names()
    unknown = [name for name in asked if name not in names()]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    print(f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}; {machine()}\n", flush=True)
    failed = []
    for name in asked:
        print(f"== {name}", flush=True)
        if importlib.import_module(f"bench.{name}").main():
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"beyond their limits: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
