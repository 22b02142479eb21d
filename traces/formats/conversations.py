"""Logged conversations: real messages become lengths and prefix blocks, and their text is not kept.

Each message is a block of its own size whose id is a hash of its role and text, so that requests which began with
the same messages share the same (generated) text, in any order and across files. docs/traces.md has the formats and
what is estimated.

ShareGPT: each answer is a request that carries all messages before it; a conversation that opens with an answer loses
that answer.

OpenTelemetry: a model call is a span with `gen_ai.*` messages or token counts; agents' and tools' spans are left out.
Spans don't say who waited for whom (see `_linked`); parallel calls share a parent.

Weka: a turn comes `think_time` after the one before was answered (`api_time`). A sub-agent's entry stands at its *end*:
it began `duration_ms` earlier, and its turns count from there. Block ids are local to the session, so they are numbered
anew across sessions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..files import Source
from ..trace import ASSUMED_TPOT, Trace
from .cells import BadCell, block_ids, document, instant, length, listing, mapping, parse, shown
from .rows import ReadOptions, Row, Rows, timed

Sizes = dict[int, int]  # tokens by block id
CHARS_PER_TOKEN = 4
ANSWERERS = {"gpt", "assistant", "chatgpt", "bard", "bing", "model"}
SPAN_KEYS = (b"spans", b"resourceSpans")  # by either of which a file is known
SESSION = ("gen_ai.conversation.id", "session.id", "exgentic.session.id")
PROMPT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
PROMPT_MESSAGES = ("gen_ai.input.messages", "gen_ai.prompt")
WEKA_KEYS = (b"block_size", b"hash_id_scope", b"requests")  # by which a session is known
SESSION_BITS = 32  # block ids of session k are k << 32 | local id
ANSWERED = ("gen_ai.output.messages", "gen_ai.output.text", "gen_ai.completion")


def read_sharegpt(source: Source, options: ReadOptions) -> Trace:
    rows, sizes = Rows(source.name, options, unordered=True), Sizes()
    with source.open() as stream:
        conversations = listing(parse(stream.read()))
    for number, conversation in enumerate(conversations, start=1):
        with rows.checked(item=f"conversation {number}"):
            entry = mapping(conversation, what="a conversation")
            turns = messages(entry.get("conversations", entry.get("messages")), "conversations")
            _add_requests(turns, number, rows, sizes)
    rows.notes["lengths"] = "estimated from the text"
    return timed(rows.trace("sharegpt", sizes), options)


def _add_requests(turns: list[tuple[str, str]], session: int, rows: Rows, sizes: Sizes) -> None:
    due = 0
    for position, (role, text) in enumerate(turns):
        if role not in ANSWERERS or position == 0:
            continue
        (prefix, prompt), output = _prefix(turns[:position], sizes), tokens(text)
        row = {"due": due, "prompt_tokens": prompt, "output_tokens": output, "session": session}
        rows.add(None, {**row, "prefix": prefix, "think": 0})
        due += output * ASSUMED_TPOT  # a follow-up comes when its answer would have been given


def _prefix(messages: Iterable[tuple[str, str]], sizes: Sizes) -> tuple[list[int], int]:
    """Block ids of (role, text) messages, whose `sizes` it notes, and how many tokens they are."""
    ids = []
    for role, text in messages:
        digest = hashlib.blake2b(f"{role}\0{text}".encode(errors="replace"), digest_size=8).digest()
        ids.append(int.from_bytes(digest, "big") >> 1)
        sizes[ids[-1]] = tokens(text)
    return ids, sum(sizes[block] for block in ids)


def tokens(text: str) -> int:
    """About how many tokens, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def messages(value: Any, column: str) -> list[tuple[str, str]]:
    """(role, text) of a list of messages in any of the usual shapes."""
    return [_message(mapping(each, column, "a message")) for each in listing(value, column, "a list of messages")]


def _message(message: Mapping[str, Any]) -> tuple[str, str]:
    role = message.get("role", message.get("from", ""))
    return str(role), _text(message.get("content", message.get("value", message.get("parts", ""))))


def _text(content: Any) -> str:
    """A message's text; of parts, the text of each."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text", content.get("content", "")))
    return content if isinstance(content, str) else "" if content is None else str(content)


def read_spans(sources: list[Source], options: ReadOptions) -> Trace:
    rows, sizes = Rows(sources[0].name, options, unordered=True), Sizes()
    calls: list[Row] = []
    for source in sources:
        for number, span in enumerate(_spans(document(source, "spans")), start=1):
            with rows.checked(where=source.name, item=f"span {number}"):
                attributes = _attributes(span)
                if attributes.keys() & {*PROMPT, *PROMPT_MESSAGES}:
                    calls.append(_call(span, attributes, sizes, rows, source.name))
    for key, row in enumerate(_linked(calls)):
        rows.add(None, row, key)
    return rows.trace("otel", sizes)


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


def _call(span: Any, attributes: Mapping[str, Any], sizes: Sizes, rows: Rows, where: str) -> Row:
    prefix, estimated = _prefix(_logged(_first(attributes, PROMPT_MESSAGES)), sizes)
    prompt, output = _first(attributes, PROMPT), _first(attributes, OUTPUT)
    if prompt is None or output is None:
        rows.count("calls with lengths estimated from their text")
    answer = "".join(text for _, text in _logged(_first(attributes, ANSWERED)))
    session = _first(attributes, SESSION) or span.get("trace_id", span.get("traceId"))
    return {
        "due": _time(span, "start_time", "startTimeUnixNano"),
        "end": _time(span, "end_time", "endTimeUnixNano"),
        "prompt_tokens": length(estimated if prompt is None else prompt, PROMPT[0], least=1),
        "output_tokens": length(tokens(answer) if output is None else output, OUTPUT[0]),
        "session": f"{where} {shown(session)}" if session is None else shown(session),
        "prefix": prefix,
    }


def _logged(value: Any) -> list[tuple[str, str]]:
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


def read_weka(sources: list[Source], options: ReadOptions) -> Trace:
    rows = Rows(sources[0].name if len(sources) == 1 else f"{len(sources)} sessions", options, unordered=True)
    sizes: set[int] = set()
    for number, source in enumerate(sources):
        session = document(source, "a session with requests")
        with rows.checked(where=source.name):
            size = length(session.get("block_size"), "block_size", least=1)
            if sizes and size not in sizes:
                raise BadCell("block_size", f"expected {min(sizes)} as in the other sessions, got {size}")
            offset = 0 if session.get("hash_id_scope") == "global" else number << SESSION_BITS
            _weka_session(session.get("requests"), rows, source.name, number, offset)
            sizes.add(size)
    return rows.trace("weka", max(sizes, default=0))


def _weka_session(requests: Any, rows: Rows, where: str, session: int, offset: int) -> None:
    """The main agent's turns in a row, each sub-agent's in a row of its own."""
    answered: list[tuple[int, int]] = []  # (when the main agent's turn was answered, its row's key)
    for number, request in enumerate(listing(requests, "requests"), start=1):
        with rows.checked(where=where, item=f"request {number}"):
            if _field(request, "type") == "subagent":
                _sub_agent(request, rows, where, session, offset, answered)
                continue
            row = _turn(request, session, offset, 0, answered[-1][1] if answered else None)
            answered.append((row["due"] + instant(request.get("api_time", 0), "s", "api_time"), len(rows)))
            rows.add(None, row)


def _sub_agent(
    agent: Mapping[str, Any], rows: Rows, where: str, session: int, offset: int, answered: list[tuple[int, int]]
) -> None:
    begun = max(0, instant(agent.get("t"), "s", "t") - instant(agent.get("duration_ms"), "ms", "duration_ms"))
    born, parent = next(((when, key) for when, key in reversed(answered) if when <= begun), (begun, None))
    for number, request in enumerate(listing(agent.get("requests"), "requests"), start=1):
        with rows.checked(where=where, item=f"sub-agent's request {number}"):
            row = _turn(request, session, offset, begun, parent)
            if number == 1:
                row["think"] = begun - born
            parent = len(rows)
            rows.add(None, row)


def _turn(request: Any, session: int, offset: int, begun: int, parent: int | None) -> Row:
    ids = block_ids(_field(request, "hash_ids"), "hash_ids")
    return {
        "due": begun + instant(request.get("t"), "s", "t"), "prompt_tokens": length(request.get("in"), "in", least=1),
        "output_tokens": length(request.get("out"), "out"), "session": session,
        "prefix": [offset + block for block in ids], "parent": parent,
        "think": instant(request.get("think_time", 0), "s", "think_time"),
    }  # fmt: skip


def _field(request: Any, name: str) -> Any:
    if not isinstance(request, dict) or name not in request:
        raise BadCell(name, f"missing in {shown(request)}")
    return request[name]
