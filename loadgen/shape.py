"""The load shape: one user a worker, from the start of a run until every shard is done."""

from __future__ import annotations

from collections.abc import Callable

from locust import LoadTestShape, User


class ReplayShape(LoadTestShape):  # type: ignore[misc]
    """`workers()` says how many processes take part, `over()` whether the run has ended."""

    abstract = True

    def __init__(self, user: type[User], workers: Callable[[], int], over: Callable[[], bool]) -> None:
        super().__init__()
        self._user, self._workers, self._over = user, workers, over

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        if self._over():
            return None
        workers = self._workers()
        return workers, max(1, workers), [self._user]
