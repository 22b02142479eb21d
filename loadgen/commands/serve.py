"""`phaseload serve`: a simulated endpoint as a server."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    name: Annotated[str, typer.Argument(help="Profile or composition (see --list), or the path of a TOML file.")] = "",
    port: Annotated[int, typer.Option(help="Port, 0 for any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    model: Annotated[str, typer.Option("--model", "-m", help="Model whose sizes set the speed.")] = "llama2-7b",
    pool: Annotated[str, typer.Option(help="Replicas or racks behind the address; P:D for two pools.")] = "",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting or a figure; `--list` shows them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    list_: Annotated[
        bool, typer.Option("--list", help="Show profiles with their standing, models and settings.")
    ] = False,
) -> None:
    """Serve a simulated endpoint: the OpenAI and Groq APIs at the speed of the named hardware.

    Examples:

        phaseload serve h100 --model llama3-8b

        phaseload serve groqrack --pool 7

        phaseload serve a100-40g --set policy=prefill-first --set engine=trtllm

        phaseload serve disaggregated --pool 1:6 --set link.bandwidth=11.5e9
    """
    from targets.simulated.__main__ import pairs, run
    from traces.errors import InputError

    if list_:
        from targets.simulated.catalogue import catalogue

        typer.echo(catalogue())
        return
    if not name:
        raise InputError("which endpoint?", remedy="phaseload serve NAME; `phaseload serve --list` shows them")
    settings = pairs(setting or [])
    if pool:
        settings["pool"] = pool
    run(name, host=host, port=port, model=model, settings=settings, seed=seed)
