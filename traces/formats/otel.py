"""OpenTelemetry spans of generative AI, as collectors' files (`spans`) or as OTLP JSON (`resourceSpans`).

A model call is a span with `gen_ai.*` messages or token counts; agents' and tools' spans are left out. Traces of
spans don't record who waited for whom, but a call that started after another of its session had ended could have: so a
call's parent is the one in its session that ended last before it started, and the time between is its think time.
Parallel calls then share a parent. Lengths are `gen_ai.usage.*` where logged, else estimated from the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..files import Source
from ..trace import Trace
from .cells import BadCell, document, instant, length, listing, mapping, parse, shown
from .conversations import Conversations, messages, tokens
from .rows import Options, Row, Rows

KEYS = (b"spans", b"resourceSpans")  # by either of which a file is known
SESSION = ("gen_ai.conversation.id", "session.id", "exgentic.session.id")
PROMPT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
PROMPT_MESSAGES = ("gen_ai.input.messages", "gen_ai.prompt")
ANSWERED = ("gen_ai.output.messages", "gen_ai.output.text", "gen_ai.completion")


def read(sources: list[Source], options: Options) -> Trace:
    rows = Rows(sources[0].name, options, unordered=True)
    log = Conversations()
    calls: list[Row] = []
    for source in sources:
        for number, span in enumerate(_spans(document(source, "spans")), start=1):
            with rows.checked(where=source.name, item=f"span {number}"):
                attributes = _attributes(span)
                if attributes.keys() & {*PROMPT, *PROMPT_MESSAGES}:
                    calls.append(_call(span, attributes, log, rows, source.name))
    for key, row in enumerate(_linked(calls)):
        rows.add(0, row, key)
    return rows.trace("otel", log.sizes)


def _linked(calls: list[Row]) -> list[Row]:
    """Calls by start, each with its parent (the position of the last to end before it started) and think time."""
    calls.sort(key=lambda call: (call["due"], call["end"]))
    ended: dict[Any, list[tuple[int, int]]] = {}
    for position, call in enumerate(calls):
        before = [(end, call_at) for end, call_at in ended.setdefault(call["session"], []) if end <= call["due"]]
        end, parent = max(before, default=(call["due"], -1))
        ended[call["session"]].append((call.pop("end"), position))
        call["parent"], call["think"] = (parent if before else None), call["due"] - end
    return calls


def _call(span: Any, attributes: Mapping[str, Any], log: Conversations, rows: Rows, where: str) -> Row:
    prompt_messages = _messages(_first(attributes, PROMPT_MESSAGES))
    prefix = log.prefix(prompt_messages)
    prompt, output = _first(attributes, PROMPT), _first(attributes, OUTPUT)
    if prompt is None or output is None:
        rows.count("calls with lengths estimated from their text")
    answer = "".join(text for _, text in _messages(_first(attributes, ANSWERED)))
    session = _first(attributes, SESSION) or span.get("trace_id", span.get("traceId"))
    return {
        "due": _time(span, "start_time", "startTimeUnixNano"),
        "end": _time(span, "end_time", "endTimeUnixNano"),
        "prompt_tokens": length(log.length(prefix) if prompt is None else prompt, PROMPT[0], least=1),
        "output_tokens": length(tokens(answer) if output is None else output, OUTPUT[0]),
        "session": f"{where} {shown(session)}" if session is None else shown(session),
        "prefix": prefix,
    }


def _messages(value: Any) -> list[tuple[str, str]]:
    """Messages as a list, as JSON text of one, or as plain text."""
    if value is None:
        return []
    if isinstance(value, str):
        try:
            value = parse(value)
        except BadCell:
            return [("", value)]
    return messages(value, "messages") if isinstance(value, list) else [("", shown(value))]


def _spans(log: Mapping[str, Any]) -> Iterator[Any]:
    yield from listing(log.get("spans", []))
    for resource in listing(log.get("resourceSpans", [])):
        for scope in listing(mapping(resource).get("scopeSpans", [])):
            yield from listing(mapping(scope).get("spans", []))


def _attributes(span: Any) -> dict[str, Any]:
    """Attributes as a plain object, from that or from OTLP's list of key and typed value."""
    attributes = mapping(span).get("attributes", {})
    if isinstance(attributes, dict):
        return attributes
    plain = {}
    for attribute in listing(attributes):
        value = mapping(attribute).get("value")
        plain[str(attribute.get("key"))] = next(iter(value.values()), None) if isinstance(value, dict) else value
    return plain


def _time(span: Mapping[str, Any], iso: str, nanos: str) -> int:
    return instant(span[nanos], "ns", nanos) if nanos in span else instant(span.get(iso), "iso", iso)


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)
