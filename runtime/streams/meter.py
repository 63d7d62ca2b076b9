"""Rates and latencies of a stream: of the last seconds, and of all of it."""

import math
import threading
from collections import deque
from collections.abc import Mapping
from statistics import fmean, median
from time import perf_counter

__all__ = ["STAGES", "Meter"]

STAGES = ("decode", "upload", "preprocess", "inference", "postprocess", "download", "draw", "write")
"""In the order of the way. "write" is per output."""

_WINDOW = 5.0
"""Seconds that current figures look back."""
_MOST = 1024
"""Values per stage that are kept for them."""


class Meter:
    """Collects from the threads of a stream; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[tuple[float, float]]] = {}
        self._totals: dict[str, tuple[int, float]] = {}
        self._ages: deque[tuple[float, float]] = deque(maxlen=_MOST)
        self._start = perf_counter()
        self.frames = 0

    def start(self) -> None:
        """The clock of rates starts here."""
        self._start = perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        """One of :data:`STAGES` took so long for a frame."""
        with self._lock:
            self._recent.setdefault(stage, deque(maxlen=_MOST)).append((perf_counter(), seconds))
            count, total = self._totals.get(stage, (0, 0.0))
            self._totals[stage] = count + 1, total + seconds

    def segmented(self, age: float) -> None:
        """A result is there, ``age`` seconds after its frame was decoded."""
        with self._lock:
            self._ages.append((perf_counter(), age))
            self.frames += 1

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._start

    @property
    def frames_per_second(self) -> float:
        with self._lock:
            now = perf_counter()
            seen = len(_since(self._ages, now - _WINDOW))
            # Of a fast stream not all of the window is kept.
            window = now - self._ages[0][0] if seen == _MOST else _WINDOW
        return seen / max(1e-3, min(window, self.elapsed))

    @property
    def age(self) -> float:
        """Mean of the last seconds; that of the last frame if there is none, NaN before the first."""
        with self._lock:
            recent = _since(self._ages, perf_counter() - _WINDOW) or [age for _, age in list(self._ages)[-1:]]
        return fmean(recent) if recent else math.nan

    def recent(self) -> Mapping[str, float]:
        """Milliseconds by stage, the median of the last seconds."""
        with self._lock:
            since = perf_counter() - _WINDOW
            seen = {stage: _since(values, since) for stage, values in self._recent.items()}
        return {stage: 1000 * median(seen[stage]) for stage in STAGES if seen.get(stage)}

    def means(self) -> Mapping[str, float]:
        """Milliseconds by stage, the mean of all."""
        with self._lock:
            totals = dict(self._totals)
        return {stage: 1000 * totals[stage][1] / totals[stage][0] for stage in STAGES if stage in totals}


def _since(values: deque[tuple[float, float]], moment: float) -> list[float]:
    found = []
    for when, value in reversed(values):
        if when < moment:
            break
        found.append(value)
    return found
