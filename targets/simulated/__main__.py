"""`python -m targets.simulated NAME`: a simulated endpoint in a fresh interpreter in which gevent is never imported."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import fields

from traces.errors import InputError

from .build import build
from .profiles import ServerOptions, pairs


def main(argv: list[str] | None = None) -> int:
    try:
        run(ServerOptions(**vars(_parser().parse_args(argv))))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m targets.simulated", description=__doc__)
    name, *options = fields(ServerOptions)
    parser.add_argument(name.name, help="a profile or composition, or the path of a TOML file")
    for option in options:
        repeatable = option.name == "setting"
        parser.add_argument(
            *(option.metadata["flags"] or (f"--{option.name.replace('_', '-')}",)), dest=option.name,
            action="append" if repeatable else "store", default=[] if repeatable else option.default,
            type=int if isinstance(option.default, int) else str, metavar=option.metadata["metavar"],
            help=option.metadata["help"],
        )  # fmt: skip
    return parser


def run(options: ServerOptions) -> None:
    """Serves until SIGTERM or SIGINT; prints the ready line. Raises InputError, for a port in use too."""
    from .server.server import serve  # aiohttp takes half a second to import

    settings = pairs(options.setting, "--set") | ({"pool": options.pool} if options.pool else {})
    endpoint = build(options.name, model=options.model, settings=settings, real_time=True, seed=options.seed)

    def ready(url: str) -> None:
        line = {"ready": True, "url": url, "model": options.model, "name": endpoint.name}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(serve(endpoint, options, ready))
    except OSError as error:
        raise InputError(f"can't serve on {options.host}:{options.port}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
