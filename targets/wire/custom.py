"""A user's own wire format, described in a small TOML file: `type = "mine.toml"`. docs/protocols.md shows one with all
keys. A mistake raises InputError with the file and the key."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from traces.errors import InputError
from traces.files import read_text, toml

from ..exchange import Call, Exchange, Outcome
from ..rules import KEYS_ELSEWHERE, OURS_ALONE, own_header
from ..secrets import literal_field, literal_header
from . import lenient
from .interface import Json, Reader, RequestFields, Wire, WireError, merged, messages, prompt


@dataclass(frozen=True)
class Paths:
    """Where an answer's parts are found: the [answer] table."""

    text: str = ""
    tokens: str = ""
    cumulative: bool = False
    end: str = ""
    ended: str = ""
    prompt_tokens: str = ""
    output_tokens: str = ""
    finish_reason: str = ""
    error: str = "error"


class CustomReader(Reader):
    """`parse` makes a class of each format's own: what proves a stream's frame makes readers by their class alone."""

    paths: Paths
    _chars = _tokens = 0  # so far, where they are cumulative

    def feed(self, event: bytes | memoryview, name: str, exchange: Exchange) -> int:
        paths = self.paths
        if paths.end and event == paths.end.encode():
            self.finished = True
            return 0
        data = lenient.load(event)
        if error := find(data, paths.error):
            raise WireError(lenient.complaint(error), Outcome.HTTP_ERROR)
        self.finished = self.finished or bool(find(data, paths.ended))
        if paths.text.startswith("choices."):
            lenient.only_choice(lenient.mappings(data.get("choices")))
        self._note(data, exchange)
        text = lenient.text(find(data, paths.text))
        new = text[self._chars :]
        exchange.add_text(new)
        if paths.cumulative:
            self._chars += len(new)
        count = lenient.count(find(data, paths.tokens))
        if count is None:
            return int(bool(new))
        if not paths.cumulative:
            return count
        grown, self._tokens = max(0, count - self._tokens), max(count, self._tokens)
        return grown

    def _note(self, data: Json, exchange: Exchange) -> None:
        paths = self.paths
        lenient.note(
            exchange,
            usage_prompt=lenient.count(find(data, paths.prompt_tokens)),
            usage_output=lenient.total(find(data, paths.output_tokens)),
            finish_reason=lenient.name(find(data, paths.finish_reason)),
        )


def find(data: object, path: str) -> object:
    """The value at a path such as `choices.0.text`, None where there is none."""
    if not path:
        return None
    for part in path.split("."):
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def _body(template: Json, call: Call, target: RequestFields) -> Json:
    words = {
        "prompt": prompt(call), "messages": messages(call), "model": target.model,
        "prompt_tokens": call.request.prompt_tokens, "output_tokens": call.max_tokens,
    }  # fmt: skip
    return merged(_filled(template, words), target.extra_body)


def _filled(template: Any, words: Json) -> Any:
    if isinstance(template, dict):
        return {key: _filled(value, words) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, words) for value in template]
    if not isinstance(template, str):
        return template
    alone = re.fullmatch(r"\{(\w+)\}", template)
    if alone and alone[1] in words:
        return words[alone[1]]
    return re.sub(r"\{(\w+)\}", lambda m: str(words.get(m[1], m[0])), template)


def read(path: str) -> Json:
    """The tables of a format's file. Raises InputError."""
    return toml(read_text(path), path)


def parse(tables: Json, where: str) -> Wire:
    """The format of a file's tables. Raises InputError."""
    for key in tables:
        if key not in ("path", "headers", "body", "answer"):
            raise InputError("unknown key", where=where, column=key, remedy="known: path, headers, body, answer")
    path, headers, body, answer = (tables.get(key) for key in ("path", "headers", "body", "answer"))
    if not isinstance(path, str) or not path.startswith("/"):
        raise InputError('expected a path such as "/generate"', where=where, column="path")
    for key, table in (("body", body), ("answer", answer), ("headers", headers or {})):
        if not isinstance(table, dict):
            raise InputError("expected a table", where=where, column=key, remedy=f"add [{key}]")
    assert isinstance(answer, dict) and isinstance(body, dict)
    named = {key: str(value) for key, value in (headers or {}).items()}
    if (own := own_header([("Host", ""), *named.items()])) is not None:
        raise InputError(f"no header {own}: {OURS_ALONE}", where=where, column="headers")
    if secret := literal_header(named.items()) or literal_field(body):
        raise InputError(f"{secret} would be stored with the run", where=where, column=secret, remedy=KEYS_ELSEWHERE)
    if not any(word in str(body) for word in ("{prompt}", "{messages}")):
        raise InputError("has neither {prompt} nor {messages}: nothing would be asked", where=where, column="body")
    paths = _paths(answer, where)
    reader = type("Reader", (CustomReader,), {"paths": paths, "open_ended": not (paths.end or paths.ended)})
    return Wire(path, partial(_body, body), reader, tuple(named.items()))


def _paths(answer: Json, where: str) -> Paths:
    kinds = {field.name: type(field.default) for field in fields(Paths)}
    for key, value in answer.items():
        if key not in kinds:
            raise InputError("unknown key", where=where, column=f"answer.{key}", remedy=f"known: {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise InputError(f"expected {kinds[key].__name__}, got {value!r}", where=where, column=f"answer.{key}")
    if not answer.get("text"):
        raise InputError('expected where the text is, such as "choices.0.text"', where=where, column="answer.text")
    return Paths(**answer)
