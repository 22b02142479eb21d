"""`python -m targets.simulated NAME`: a simulated endpoint in a fresh interpreter in which gevent is never imported."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from traces.errors import InputError

from .build import build
from .server.faults import parse
from .server.server import Options, serve
from .settings import SETTINGS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m targets.simulated", description=__doc__)
    parser.add_argument("name", help="a profile or composition, or the path of a TOML file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--model", default="llama2-7b")
    parser.add_argument("--pool", default="", help="replicas or racks behind the address; P:D for two pools")
    keys = "; ".join(f"{key}: {what}" for key, what in SETTINGS.items())
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=keys.replace("%", "%%"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", default="", help="stall=0.01,reset=0.01,http500=0.01,malformed=0.01,truncate=0.01")
    parser.add_argument("--limit-requests", type=int, default=0, help="a day; over it: 429 (0: no limit)")
    parser.add_argument("--limit-tokens", type=int, default=0, help="a minute; over it: 429 (0: no limit)")
    parser.add_argument("--leg", default="nixl", metavar="PROTOCOL:ROLE", help="of two legs, such as sglang:decode")
    parser.add_argument("--log", help="write planned and actual instants to this file")
    asked = parser.parse_args(argv)
    try:
        options = Options(
            name=asked.name,
            host=asked.host,
            port=asked.port,
            seed=asked.seed,
            faults=parse(asked.fault),
            limit_requests=asked.limit_requests,
            limit_tokens=asked.limit_tokens,
            log=asked.log,
            leg=asked.leg,
        )
        run(options, model=asked.model, settings=pairs(asked.set, asked.pool))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def pairs(settings: list[str], pool: str = "") -> dict[str, str]:
    """["tp=4", ...] as a mapping."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}", remedy="KEY=VALUE")
        found[key.strip()] = value.strip()
    return found | ({"pool": pool} if pool else {})


def run(options: Options, *, model: str, settings: dict[str, str]) -> None:
    """Serves until told to end; prints the ready line. Raises InputError, for a port in use too."""
    endpoint = build(options.name, model=model, settings=settings, real_time=True, seed=options.seed)

    def ready(url: str) -> None:
        line = {"ready": True, "url": url, "model": model, "name": endpoint.name}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(serve(endpoint, options, ready))
    except OSError as error:
        raise InputError(f"can't serve on {options.host}:{options.port}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
