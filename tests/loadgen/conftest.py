"""One Locust for the runs of a test file that are not about its start and its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .running import Replays


@pytest.fixture(scope="module")
def replayed() -> Iterator[Replays]:
    with Replays() as replays:
        yield replays
