"""The options that commands share: name, help and panel of each stand here once.

`taking` gives a command whole groups of options, which are dataclasses: `Load`, those of `loadgen.options`, `Workers`.
Each field is an option with the field's type and default:

    @o.taking()
    def replay(url: o.Url = None, *, load: Load) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

import typer

from traces.errors import seconds

TARGET, LOAD, ANSWERS, OUTCOME, LOCUST = "Target", "Load", "Answers", "Verdict and files", "Locust"

Command = Callable[..., None]


def option(panel: str, text: str, *names: str, metavar: str | None = None) -> Any:
    """An option in that panel of the help; its own name unless others are given."""
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar)


def time(panel: str, text: str, *names: str) -> Any:
    """The same for a time in seconds, which may be written with a unit."""
    return typer.Option(*names, help=text, rich_help_panel=panel or None, metavar="TIME", parser=_time)


def _time(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _warmup(text: str) -> float | str:
    return text if text == "auto" else _time(text)


def factors(panel: str, text: str, *names: str) -> Any:
    """The same for factors, "0.5,1,2"."""
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar="F,F,...", parser=_factors)


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected positive factors such as 1,2,4, got {text!r}") from None


Rounds = Annotated[int, option(LOAD, "How often all of it is repeated, each time with other requests of the trace.")]
RoundDuration = Annotated[float | None, time(LOAD, "How long arrivals of a round's step are counted (10m).")]
LoadFactors = Annotated[
    Any, factors(LOAD, "Load steps: so many times the trace's sessions (0.5,1,2); bursts and pauses stay.", "--load")
]

TRACE = "A file or folder of any known format, or a bundled workload such as azure-conv."
Trace = Annotated[str, typer.Argument(help=TRACE, show_default=False)]
Url = Annotated[str | None, option(TARGET, "Base URL of the endpoint.")]
Plan = Annotated[
    bool, option(OUTCOME, "Show what the run would take, by time, tokens, dollars and quotas, and stop.", "--plan")
]

# By the fields of the groups.
OPTIONS: dict[str, Any] = {
    "model": option(TARGET, "Model name to ask for.", "--model", "-m"),
    "endpoint_type": option(TARGET, "Wire format: chat, groq, dynamo, ..., a TOML file of your own, or auto."),
    "api_key_env": option(TARGET, "Name of the environment variable that holds the API key."),
    "api_key_file": option(TARGET, "File that holds the API key."),
    "header": option(TARGET, "KEY:VALUE, repeatable; ${VAR} comes from the environment.", "--header", "-H"),
    "insecure": option(TARGET, "Don't verify certificates.", "--insecure"),
    "resend": option(TARGET, "Send again what a closing connection didn't deliver.", "--resend/--no-resend"),
    "ca_file": option(TARGET, "CA certificates to trust."),
    "connect_timeout": time(TARGET, "How long a connection may take."),
    "first_token_timeout": time(TARGET, "How long the first token may take."),
    "silence_timeout": time(TARGET, "How long there may be no token after it."),
    "request_timeout": time(TARGET, "How long a whole request may take."),
    "speedup": option(LOAD, "Time of the trace runs so many times as fast."),
    "request_rate": option(LOAD, "Requests per second, instead of the trace's instants (or inf)."),
    "burstiness": option(LOAD, "Shape of --request-rate's gaps: 1 Poisson, less is burstier."),
    "concurrency": option(LOAD, "A fixed number of requests in flight, instead of instants."),
    "duration": time(LOAD, "How long arrivals are counted (60, 90s, 10m); the warm-up comes before."),
    "warmup": typer.Option(
        help="How long requests are sent, not counted; auto: until the run is found steady.",
        rich_help_panel=LOAD,
        metavar="TIME|auto",
        parser=_warmup,
    ),
    "drain_timeout": time(LOAD, "How long the last answers may take; then they are cut."),
    "request_count": option(LOAD, "At most so many requests.", "--request-count", "-n"),
    "max_context": option(LOAD, "Cut lengths to a model's context (tokens)."),
    "open_loop": option(LOAD, "Send later turns by their timestamps, too.", "--open-loop"),
    "retries": option(LOAD, "Tries after a refused, limited or failed one; each is a row."),
    "leave": option(LOAD, "Share of users who leave in mid-answer (0 to 1)."),
    "skip_bad_rows": option(LOAD, "Count unusable rows instead of refusing them.", "--skip-bad-rows"),
    "keep_ticks": option(LOAD, "Leave a coarse clock's ticks as they are.", "--keep-ticks"),
    "columns": option(LOAD, "A table's own names: due_s=start,prompt_tokens=in.", metavar="OURS=THEIRS,..."),
    "seed": option(LOAD, "Of every random draw."),
    "salt": option(LOAD, "Keeps prompts out of caches of earlier runs: auto, none, or a text."),
    "wait_ready": option(TARGET, "Wait so long for the endpoint to accept connections (90s, 10m)."),
    "probe": option(TARGET, "Look at each endpoint with one request before the run.", "--probe/--no-probe"),
    "quota_scale": option(LOAD, "Thin the load to this share of its sessions, for all targets; auto: as quotas admit."),
    "evidence": option(
        TARGET, "Before each of several rounds 20 short prompts: is it the same model?", "--evidence/--no-evidence"
    ),
    "out": option(OUTCOME, "Folder of the run (runs/NAME-TIME unless given)."),
    "report": option(OUTCOME, "Write report.html (or later: phaseload report).", "--report/--no-report"),
    "json": option(OUTCOME, "Print the summary as JSON on stdout.", "--json"),
    "prompts": option(ANSWERS, "A JSONL file of your own texts: prompts take their words from it."),
    "tokenizer": option(
        ANSWERS, "A tokenizer.json or its folder: prompts exact in its tokens, answers counted in them."
    ),
    "token_ids": option(ANSWERS, "Send prompts as token ids below this (completions endpoints)."),
    "ignore_eos": option(ANSWERS, "Ask for answers of exactly the trace's length.", "--ignore-eos/--heed-eos"),
    "extra_body": option(ANSWERS, "JSON object merged into each request."),
    "slo": option(OUTCOME, 'A gate, repeatable: "ttft p99 < 800ms".'),
    "slo_file": option(OUTCOME, "A slo.toml: named gates, slices, objectives (docs/gates.md)."),
    "goodput": option(OUTCOME, 'Objectives, repeatable: "ttft:800ms tpot:40ms" (bare numbers are ms).'),
    "processes": option(LOCUST, "Worker processes on this machine."),
    "master": option(LOCUST, "Lead workers of other machines.", "--master"),
    "expect_workers": option(LOCUST, "Workers that a master waits for."),
    "master_bind_host": option(LOCUST, "Address at which a master listens."),
    "master_bind_port": option(LOCUST, "Port at which a master listens."),
    "worker": option(LOCUST, "Work for a master; it has the plan.", "--worker"),
    "master_host": option(LOCUST, "The worker's master."),
    "master_port": option(LOCUST, "Its port."),
    "allow_env": option(LOCUST, "A variable that a worker may fill in for its master's plan, repeatable."),
    "allow_key_file": option(LOCUST, "A key file or Unix socket that a worker may use for it, repeatable."),
    "token_env": option(LOCUST, "Variable with the token that a master and its workers share."),
    "web_port": option(LOCUST, "Wait to be started from Locust's web page at this port."),
}
REMOTE = (
    "master", "expect_workers", "master_bind_host", "master_bind_port", "worker", "master_host", "master_port",
    "allow_env", "allow_key_file", "token_env",
)  # fmt: skip


def print_json(facts: Any) -> None:
    """To stdout, where `--json` means that it holds nothing else. GitHub's runner obeys `##[` wherever it stands in a
    line, so a stranger's name must not bring it there."""
    import orjson

    text = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    typer.echo(text.replace(b"##[", rb"#\u0023["))


def taking(*, omit: Collection[str] = ()) -> Callable[[Command], Command]:
    """Makes the fields of a command's dataclasses its options, but for those of `omit` and those that the command
    declares itself."""

    def decorate(command: Command) -> Command:
        own = signature(command, eval_str=True).parameters
        kinds: dict[str, Any] = {name: each.annotation for name, each in own.items() if is_dataclass(each.annotation)}
        groups = {name: list(_options(kind, {*omit, *own})) for name, kind in kinds.items()}
        alone = {name: [each.replace(kind=Parameter.KEYWORD_ONLY)] for name, each in own.items()}
        listed = [parameter for parameters in {**alone, **groups}.values() for parameter in parameters]

        def run(**given: Any) -> None:
            for name, group in groups.items():
                given[name] = kinds[name](**{each.name: given.pop(each.name, each.default) for each in group})
            command(**given)

        run.__signature__ = signature(command).replace(parameters=listed)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _options(group: Any, omit: Collection[str]) -> Iterator[Parameter]:
    """A parameter for each field. One that carries its own help (a simulated server's) needs no entry in OPTIONS."""
    # What Typer takes instead.
    typers: dict[Any, Any] = {Sequence[str]: list[str], str | Path | None: Path | None, str | float | None: str | None}
    typers[float | Literal["auto"]] = float
    hints = get_type_hints(group)
    for field in fields(group):
        if field.name not in omit:
            own, kind = field.metadata, hints[field.name]
            info = typer.Option(*own["flags"], help=own["help"], metavar=own["metavar"]) if own else OPTIONS[field.name]
            default: Any = field.default if field.default_factory is MISSING else field.default_factory()
            yield Parameter(
                field.name, Parameter.KEYWORD_ONLY, annotation=Annotated[typers.get(kind, kind), info],
                default=list(default) if kind == Sequence[str] else default,
            )  # fmt: skip


def given(context: typer.Context, group: Any) -> dict[str, Any]:
    """The fields of a group that stood on the command line."""
    sources = {field.name: context.get_parameter_source(field.name) for field in fields(group)}
    return {name: context.params[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def parsed(command: Command, arguments: Sequence[str]) -> typer.Context:
    """The context of another command that is given these arguments: for `given`, and for what it passes on."""
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True})(command)
    return cast(typer.Context, typer.main.get_command(app).make_context(command.__name__, list(arguments)))
