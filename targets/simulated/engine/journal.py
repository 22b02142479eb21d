"""When each decode step of a replica ended: from it the instants of every token can be read without stepping."""

from __future__ import annotations

from array import array


class Journal:
    """`ends[i]` is the end of step `start + i`."""

    __slots__ = ("ends", "start")

    def __init__(self) -> None:
        self.ends: array[float] = array("d")
        self.start = 0

    def between(self, first: int, last: int) -> array[float]:
        """Ends of the steps `first` .. `last - 1`."""
        return self.ends[first - self.start : last - self.start]

    def forget(self, before: int) -> None:
        """Steps before this one are asked for no more."""
        del self.ends[: before - self.start]
        self.start = before
