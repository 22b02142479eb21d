"""`python -m targets.simulated NAME`: a simulated endpoint in a fresh interpreter in which gevent is never imported."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from traces.errors import InputError

from .compose import SETTINGS, build


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m targets.simulated", description=__doc__)
    parser.add_argument("name", help="a profile or composition, or the path of a TOML file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--model", default="llama2-7b")
    parser.add_argument("--pool", help="replicas or racks behind the address; P:D for prefill and decode pools")
    parser.add_argument("--seed", type=int, default=0)
    keys = "; ".join(f"{key}: {what}" for key, what in SETTINGS.items())
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=keys.replace("%", "%%"))
    options = parser.parse_args(argv)
    try:
        settings = pairs(options.set)
        if options.pool:
            settings["pool"] = options.pool
        run(
            options.name,
            host=options.host,
            port=options.port,
            model=options.model,
            settings=settings,
            seed=options.seed,
        )
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def pairs(settings: list[str]) -> dict[str, str]:
    """["tp=4", ...] as a mapping."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}", remedy="KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def run(name: str, *, host: str, port: int, model: str, settings: dict[str, str], seed: int) -> None:
    """Serves until told to end; prints the ready line. Raises InputError, for a port in use too."""
    from .server import serve

    endpoint = build(name, model=model, settings=settings, real_time=True, seed=seed)

    def ready(url: str) -> None:
        line = {"ready": True, "url": url, "model": model, "name": endpoint.name}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        asyncio.run(serve(endpoint, name=name, host=host, port=port, ready=ready))
    except OSError as error:
        raise InputError(f"can't serve on {host}:{port}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
