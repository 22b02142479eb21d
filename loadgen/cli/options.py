"""The options that commands share: name, help and panel of each stand here once.

`taking` gives a command whole groups of options: `Load`, the dataclasses of `loadgen.options`, `Workers`. Each field is
an option with the field's type and default:

    @o.taking(load=Load)
    def replay(url: o.Url = None, *, load: Load) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import typer

TARGET, LOAD, ANSWERS, OUTCOME, LOCUST = "Target", "Load", "Answers", "Verdict and files", "Locust"

Command = Callable[..., None]


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


Trace = Annotated[
    str,
    typer.Argument(
        help="A file or folder of any known format, or a bundled workload such as azure-conv.", show_default=False
    ),
]
Url = Annotated[str | None, _option(TARGET, "Base URL of the endpoint.")]

# By the fields of the groups.
OPTIONS: dict[str, Any] = {
    "model": _option(TARGET, "Model name to ask for.", "--model", "-m"),
    "endpoint_type": _option(TARGET, "Wire format: chat, groq, dynamo, ..., a TOML file of your own, or auto."),
    "api_key_env": _option(TARGET, "Name of the environment variable that holds the API key."),
    "api_key_file": _option(TARGET, "File that holds the API key."),
    "header": _option(TARGET, "KEY:VALUE, repeatable; ${VAR} comes from the environment.", "--header", "-H"),
    "insecure": _option(TARGET, "Don't verify certificates.", "--insecure"),
    "ca_file": _option(TARGET, "CA certificates to trust."),
    "connect_timeout": _option(TARGET, "Seconds that a connection may take."),
    "first_token_timeout": _option(TARGET, "Seconds until the first token."),
    "silence_timeout": _option(TARGET, "Seconds between tokens."),
    "request_timeout": _option(TARGET, "Seconds of a whole request."),
    "speedup": _option(LOAD, "Time of the trace runs so many times as fast."),
    "request_rate": _option(LOAD, "Requests per second, instead of the trace's instants (or inf)."),
    "burstiness": _option(LOAD, "Shape of --request-rate's gaps: 1 Poisson, less is burstier."),
    "concurrency": _option(LOAD, "A fixed number of requests in flight, instead of instants."),
    "duration": _option(LOAD, "Seconds of counted arrivals; they follow the warm-up."),
    "warmup": _option(LOAD, "Seconds whose requests are sent, not counted."),
    "drain_timeout": _option(LOAD, "Seconds that the last answers may take; then they are cut."),
    "request_count": _option(LOAD, "At most so many requests.", "--request-count", "-n"),
    "max_context": _option(LOAD, "Cut lengths to a model's context (tokens)."),
    "open_loop": _option(LOAD, "Send later turns by their timestamps, too.", "--open-loop"),
    "retries": _option(LOAD, "Tries after a refused, limited or failed one; each is a row."),
    "leave": _option(LOAD, "Share of users who leave in mid-answer (0 to 1)."),
    "skip_bad_rows": _option(LOAD, "Count unusable rows instead of refusing them.", "--skip-bad-rows"),
    "keep_ticks": _option(LOAD, "Leave a coarse clock's ticks as they are.", "--keep-ticks"),
    "seed": _option(LOAD, "Of every random draw."),
    "salt": _option(LOAD, "Keeps prompts out of caches of earlier runs: auto, none, or a text."),
    "wait_ready": _option(TARGET, "Wait so long for the endpoint to accept connections (90s, 10m)."),
    "probe": _option(TARGET, "Look at each endpoint with one request before the run.", "--probe/--no-probe"),
    "out": _option(OUTCOME, "Folder of the run (runs/NAME-TIME unless given)."),
    "report": _option(OUTCOME, "Write report.html (or later: phaseload report).", "--report/--no-report"),
    "json": _option(OUTCOME, "Print the summary as JSON on stdout.", "--json"),
    "prompts": _option(ANSWERS, "A JSONL file of your own texts: prompts take their words from it."),
    "tokenizer": _option(ANSWERS, "A tokenizer.json: prompts exact in its tokens, answers counted in them."),
    "token_ids": _option(ANSWERS, "Send prompts as token ids below this (completions endpoints)."),
    "ignore_eos": _option(ANSWERS, "Ask for answers of exactly the trace's length.", "--ignore-eos/--heed-eos"),
    "extra_body": _option(ANSWERS, "JSON object merged into each request."),
    "slo": _option(OUTCOME, 'A gate, repeatable: "ttft p99 < 800ms".'),
    "goodput": _option(OUTCOME, 'Objectives in ms, repeatable: "ttft:800 tpot:40".'),
    "processes": _option(LOCUST, "Worker processes on this machine."),
    "master": _option(LOCUST, "Lead workers of other machines.", "--master"),
    "expect_workers": _option(LOCUST, "Workers that a master waits for."),
    "master_bind_host": _option(LOCUST, "Address at which a master listens."),
    "master_bind_port": _option(LOCUST, "Port at which a master listens."),
    "worker": _option(LOCUST, "Work for a master; it has the plan.", "--worker"),
    "master_host": _option(LOCUST, "The worker's master."),
    "master_port": _option(LOCUST, "Its port."),
    "web_port": _option(LOCUST, "Wait to be started from Locust's web page at this port."),
}
REMOTE = (
    "master", "expect_workers", "master_bind_host", "master_bind_port", "worker", "master_host", "master_port",
)  # fmt: skip


def print_json(facts: Any) -> None:
    """To stdout, where `--json` means that it holds nothing else."""
    import orjson

    typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


def taking(*, omit: Iterable[str] = (), **groups: type) -> Callable[[Command], Command]:
    """Makes a command take each group as one argument: its fields are options, but for those of `omit` and those that
    the command declares itself."""

    def decorate(command: Command) -> Command:
        own = signature(command, eval_str=True).parameters
        chosen = {group: [f for f in fields(kind) if f.name not in {*omit, *own}] for group, kind in groups.items()}
        listed: list[Parameter] = []
        for name, parameter in own.items():
            if name in groups:
                hints = get_type_hints(groups[name])
                listed += [_parameter(field, hints[field.name]) for field in chosen[name]]
            else:
                listed.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

        def run(**given: Any) -> None:
            made = {
                group: groups[group](**{f.name: given.pop(f.name, _default(f)) for f in chosen[group]})
                for group in groups
            }
            command(**given, **made)

        run.__signature__ = signature(command).replace(parameters=listed)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameter(field: Field[Any], kind: Any) -> Parameter:
    """A field that carries its own help (a simulated server's) needs no entry in OPTIONS."""
    own = field.metadata
    option = typer.Option(*own["flags"], help=own["help"], metavar=own["metavar"]) if own else OPTIONS[field.name]
    default = _default(field)
    if kind == Sequence[str]:
        kind, default = list[str], list(default)
    elif kind == str | Path | None:
        kind = Path | None
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def given(context: typer.Context, *groups: type) -> dict[str, Any]:
    """The fields of these groups that stood on the command line."""
    names = [f.name for group in groups for f in fields(group)]
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name: context.params[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def parsed(command: Command, arguments: Sequence[str]) -> typer.Context:
    """The context of another command that is given these arguments: for `given`, and for what it passes on."""
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True})(command)
    return cast(typer.Context, typer.main.get_command(app).make_context(command.__name__, list(arguments)))
