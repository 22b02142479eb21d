"""`phaseload serve`: a simulated endpoint as a server. Its options are the fields of the server's `Options`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from targets.simulated.server.options import Options

from . import options as o


@o.taking(options=Options)
def serve(
    name: Annotated[str, typer.Argument(help="Profile or composition (see --list), or the path of a TOML file.")] = "",
    port: Annotated[int, typer.Option(help="Port, 0 for any free one.")] = 8000,
    *,
    options: Options,
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
        from targets.simulated.profiles import load
        from targets.simulated.settings import catalogue

        typer.echo(load(name).sheet() if figures else catalogue())
        return
    if not name:
        raise InputError("which endpoint?", remedy="phaseload serve NAME; `phaseload serve --list` shows them")
    from targets.simulated.__main__ import run

    run(replace(options, name=name, port=port))
