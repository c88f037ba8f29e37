"""Work done ahead in a thread, so that reading overlaps with detecting."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")
_WAIT_S = 0.1


def ahead(items: Iterable[T], room: int = 1) -> Generator[T, None, None]:
    """Yield the items while a thread makes the next ones, at most `room` beside the one that it works on.

    An exception of the thread is raised here, behind the items before it; the thread ends with the generator.
    """
    made: Queue[tuple[str, Any]] = Queue(room)
    stopped = Event()

    def put(kind: str, value: object) -> None:
        while not stopped.is_set():
            try:
                made.put((kind, value), timeout=_WAIT_S)
                return
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = Thread(target=work, name="ctnet-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                kind, value = made.get(timeout=_WAIT_S)
            except Empty:  # waiting in slices lets signals through
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join(timeout=1)  # a camera without a frame may keep it
