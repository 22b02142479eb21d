"""The machine and the software that a run happens on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from reports.store.run_json import MachineFacts

PACKAGES = ("phaseload", "locust", "gevent", "numpy", "pyarrow", "fastdigest", "httptools", "orjson")


def machine() -> MachineFacts:
    return MachineFacts(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        cpu=cpu(),
        cores=os.cpu_count(),
        usable_cores=len(os.sched_getaffinity(0)),
    )


def versions() -> dict[str, str]:
    """Of the packages that take part in measuring, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def cpu() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
