"""Sends requests from inside the servers' network namespace: a pickled (Target, [Call], at once) on standard input, the
finished exchanges on standard output. A fresh interpreter with our client alone, as a Locust worker has it."""

import pickle
import sys

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from targets import connect
from targets.clock import Clock
from targets.exchange import Call, Exchange
from targets.target import Target


def drive(spec: Target, asks: list[Call], at_once: int) -> list[Exchange]:
    target = connect(spec, Clock())
    over: list[Exchange] = []
    room, everything = Semaphore(at_once), Event()

    def done(exchange: Exchange) -> None:
        over.append(exchange)
        room.release()
        if len(over) == len(asks):
            everything.set()

    for ask in asks:
        room.acquire()
        target.start(ask, done)
        gevent.sleep(0)
    everything.wait(300)
    target.close()
    return sorted(over, key=lambda exchange: exchange.index)


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(drive(*pickle.load(sys.stdin.buffer))))
