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
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting or a figure; see --list.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    fault: Annotated[
        str, typer.Option(help="Shares of requests that go wrong: stall=,reset=,http500=,malformed=,truncate=.")
    ] = "",
    limit_requests: Annotated[int, typer.Option(help="Requests a day; over it: 429. 0: no limit.")] = 0,
    limit_tokens: Annotated[int, typer.Option(help="Tokens a minute; over it: 429. 0: no limit.")] = 0,
    leg: Annotated[
        str, typer.Option(metavar="PROTOCOL:ROLE", help="Which of two legs this is, such as sglang:decode.")
    ] = "nixl",
    log: Annotated[str | None, typer.Option(help="Write planned and actual instants to this file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show profiles with their standing, models, settings.")] = False,
    figures: Annotated[bool, typer.Option(help="With NAME: show each figure with its standing and source.")] = False,
) -> None:
    """Serve a simulated endpoint: the OpenAI and Groq APIs at the speed of the named hardware.

    Examples:

        phaseload serve --list

        phaseload serve h100 --model llama3-8b

        phaseload serve groqrack --pool 7 --limit-tokens 100000

        phaseload serve a100-40g --set policy=prefill-first --set engine=trtllm

        phaseload serve disaggregated --pool 1:6 --set link.bandwidth=11.5

        phaseload serve h100 --fault stall=0.01,reset=0.01

        phaseload serve h100 --leg sglang:prefill
    """
    from traces.errors import InputError

    if list_ or figures:
        from targets.simulated.catalogue import catalogue, sheet

        typer.echo(sheet(name) if figures else catalogue())
        return
    if not name:
        raise InputError("which endpoint?", remedy="phaseload serve NAME; `phaseload serve --list` shows them")
    from targets.simulated.__main__ import pairs, run
    from targets.simulated.server.faults import parse
    from targets.simulated.server.server import Options

    options = Options(
        name=name,
        host=host,
        port=port,
        seed=seed,
        faults=parse(fault),
        limit_requests=limit_requests,
        limit_tokens=limit_tokens,
        log=log,
        leg=leg,
    )
    run(options, model=model, settings=pairs(setting or [], pool))
