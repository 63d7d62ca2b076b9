"""How threads hand on frames: a short queue that either makes the giver wait or forgets the oldest."""

import threading
from collections import deque
from time import perf_counter
from typing import Generic, TypeVar

__all__ = ["Channel"]

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """A queue of at most ``capacity`` items for one giver and one taker.

    Where it is full, ``newest=False`` makes :meth:`put` wait, and nothing is lost; ``newest=True`` replaces the oldest
    item, so that a slow taker neither holds up the giver nor falls behind.
    """

    def __init__(self, capacity: int, *, newest: bool) -> None:
        self._items: deque[Item] = deque()
        self._capacity, self._newest = capacity, newest
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = 0
        """Items that were replaced."""

    def put(self, item: Item) -> bool:
        """Whether it was taken in: not after :meth:`close`."""
        with self._changed:
            while len(self._items) == self._capacity and not self._closed:
                if self._newest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> Item | None:
        """The oldest item; None if none comes within ``timeout`` seconds (None: for ever), or ever again."""
        deadline = None if timeout is None else perf_counter() + timeout
        with self._changed:
            while not self._items:
                left = None if deadline is None else deadline - perf_counter()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, *, discard: bool = False) -> None:
        """Take in nothing more; what is in can still be got, unless it is discarded."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Closed and empty: nothing comes any more."""
        with self._changed:
            return self._closed and not self._items
