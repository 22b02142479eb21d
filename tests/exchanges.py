"""Calls and exchanges made from their facts, for the tests of whatever reads them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from targets.exchange import Call, Exchange
from traces.request import Request

OF_REQUEST = {"session", "turn", "prefix", "parent", "think"}
OF_CALL = {field.name for field in fields(Call)} - {"request", "target", "due"}


def make_call(
    index: int = 0,
    due: int = 0,
    prompt: str | list[int] = "",
    prompt_tokens: int = 1,
    output_tokens: int = 1,
    *,
    target: str = "t",
    **facts: Any,
) -> Call:
    """A call; `facts` are fields of Call and of its Request."""
    of_request = {name: facts.pop(name) for name in OF_REQUEST & facts.keys()}
    request = Request(index, due, prompt_tokens, output_tokens, **of_request)
    return Call(request=request, target=target, due=due, prompt=prompt, **facts)


def make_exchange(
    index: int = 0, target: str = "t", due: int = 0, prompt_tokens: int = 1, output_tokens: int = 1, **facts: Any
) -> Exchange:
    """An exchange; `facts` are fields of Exchange, of its Call and of its Request."""
    of_call = {name: facts.pop(name) for name in (OF_REQUEST | OF_CALL) & facts.keys()}
    call = make_call(index, due, "", prompt_tokens, output_tokens, target=target, **of_call)
    return Exchange(call, **facts)
