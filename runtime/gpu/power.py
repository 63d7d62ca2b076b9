"""What the platform tells about power while something is measured: mode, clocks, temperature, throttling.

On a Jetson it is read from the files of the kernel and of nvpmodel, elsewhere from NVML, the library behind nvidia-smi.
What is not told is left out.
"""

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from proscale_deploy.core.gpu import Gpu
from proscale_deploy.core.machine import jetson, output_of

__all__ = ["Jetson", "Nvml", "Power", "PowerMeter"]


@dataclass(frozen=True)
class Power:
    """Over the time of a measurement; None: the platform does not tell."""

    mode: str | None
    """Power mode of a Jetson, power limit of a card."""
    gpu_mhz: tuple[int, int] | None
    """The least and the greatest clock that was seen."""
    gpu_mhz_limits: tuple[int, int] | None
    """What the clock may be at present; equal where it is locked, as by jetson_clocks. (0, greatest) for a card."""
    celsius: float | None
    """The greatest temperature of the GPU that was seen."""
    watts: float | None
    """The mean of what the card drew when it was looked at."""
    throttled: tuple[str, ...] | None
    """What held the clocks down, in the platform's words; empty: nothing."""


class Platform(Protocol):
    """Each method gives None for what is not told."""

    def mode(self) -> str | None: ...

    def mhz(self) -> int | None: ...

    def mhz_limits(self) -> tuple[int, int] | None: ...

    def celsius(self) -> float | None: ...

    def watts(self) -> float | None: ...

    def throttled(self) -> set[str] | None:
        """Since the platform was opened, or at present."""


class PowerMeter:
    """Looks at the platform whenever it is told to, and sums up."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._mhz: list[float] = []
        self._celsius: list[float] = []
        self._watts: list[float] = []
        self._throttled: set[str] | None = None

    @classmethod
    def open(cls, gpu: Gpu | None) -> "PowerMeter | None":
        """For a Jetson, or for the GPU that works; None where nothing is told."""
        if jetson():
            return cls(Jetson())
        nvml = Nvml.open(gpu.bus) if gpu else None
        return cls(nvml) if nvml else None

    def look(self) -> None:
        """While the work runs: at rest clocks are low."""
        for value, values in (
            (self._platform.mhz(), self._mhz),
            (self._platform.celsius(), self._celsius),
            (self._platform.watts(), self._watts),
        ):
            if value is not None:
                values.append(value)
        if (throttled := self._platform.throttled()) is not None:
            self._throttled = (self._throttled or set()) | throttled

    def report(self) -> Power:
        return Power(
            mode=self._platform.mode(),
            gpu_mhz=(int(min(self._mhz)), int(max(self._mhz))) if self._mhz else None,
            gpu_mhz_limits=self._platform.mhz_limits(),
            celsius=max(self._celsius) if self._celsius else None,
            watts=sum(self._watts) / len(self._watts) if self._watts else None,
            throttled=None if self._throttled is None else tuple(sorted(self._throttled)),
        )


class Jetson:
    """``root`` is the file system's.

    Clocks are those of the GPU's devfreq device (17000000.gpu or .ga10b on Orin, gpu-gpc-0 on Thor), temperatures those
    of the GPU's thermal zone. Throttling shows in the cooling devices ``...-throttle-alert`` and ``hot-surface-alert``,
    and in the counts of over-current events.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        devices = sorted((root / "sys/class/devfreq").glob("*"))
        self._gpu = next((path for path in devices if re.search(r"gpu-gpc|\.gpu$|\.g[avp]\d+b$", path.name)), None)
        self._zone = next((zone for zone, kind in self._thermal("thermal_zone") if kind.startswith("gpu")), None)
        self._alerts = [(device, kind) for device, kind in self._thermal("cooling_device") if kind.endswith("-alert")]
        self._counters = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
        self._before = [_number(counter) for counter in self._counters]

    def mode(self) -> str | None:
        """The name of the mode that nvpmodel set last; asked of itself where it has left no note."""
        status = re.search(r"pmode:0*(\d+)", _text(self._root / "var/lib/nvpmodel/status"))
        if status is None:
            told = re.search(r"NV Power Mode: *(\S+)", output_of("nvpmodel", "-q"))
            return told[1] if told else None
        models = _text(self._root / "etc/nvpmodel.conf")
        name = re.search(rf"^\s*<\s*POWER_MODEL\s+ID={status[1]}\s+NAME=(\S+)", models, re.M)
        return name[1] if name else f"mode {status[1]}"

    def mhz(self) -> int | None:
        return self._frequency("cur_freq")

    def mhz_limits(self) -> tuple[int, int] | None:
        least, greatest = self._frequency("min_freq"), self._frequency("max_freq")
        return None if least is None or greatest is None else (least, greatest)

    def celsius(self) -> float | None:
        temperature = _number(self._zone / "temp") if self._zone else None
        return None if temperature is None else temperature / 1000

    def watts(self) -> None:
        """Several rails are measured, under names that differ from board to board."""

    def throttled(self) -> set[str] | None:
        if not self._alerts and not self._counters:
            return None
        found = {kind for device, kind in self._alerts if _number(device / "cur_state")}
        for counter, before in zip(self._counters, self._before, strict=True):
            now = _number(counter)
            if now is not None and before is not None and now > before:
                found.add(f"over-current ({counter.name.partition('_')[0]})")
        return found

    def _thermal(self, prefix: str) -> Iterator[tuple[Path, str]]:
        for device in sorted((self._root / "sys/class/thermal").glob(f"{prefix}*")):
            yield device, _text(device / "type").strip().lower()

    def _frequency(self, name: str) -> int | None:
        hertz = _number(self._gpu / name) if self._gpu else None
        return None if hertz is None else round(hertz / 1e6)


class Nvml:
    """One GPU of a machine that has the driver's libnvidia-ml.so.1."""

    _SM: Final = 1
    """NVML_CLOCK_SM"""
    _REASONS: Final = {
        0x4: "power limit",
        0x8: "hardware slowdown",
        0x20: "thermal limit (software)",
        0x40: "thermal limit (hardware)",
        0x80: "external power brake",
    }
    """Of nvmlClocksThrottleReasons; those for being idle, for clocks that were set and for display are none."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library, self._device = library, device

    @classmethod
    def open(cls, bus: str) -> "Nvml | None":
        """The GPU at a place on the PCI bus; None without the library, or if it does not know it."""
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None
        device = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(device)):
            return None
        return cls(library, device)

    def mode(self) -> str | None:
        limit = self._get("nvmlDeviceGetEnforcedPowerLimit")
        usual = self._get("nvmlDeviceGetPowerManagementDefaultLimit")
        if limit is None:
            return None
        note = f" of usually {usual / 1000:.0f}" if usual is not None and usual != limit else ""
        return f"limited to {limit / 1000:.0f}{note} W"

    def mhz(self) -> int | None:
        return self._get("nvmlDeviceGetClockInfo", self._SM)

    def mhz_limits(self) -> tuple[int, int] | None:
        greatest = self._get("nvmlDeviceGetMaxClockInfo", self._SM)
        return None if greatest is None else (0, greatest)

    def celsius(self) -> float | None:
        return self._get("nvmlDeviceGetTemperature", 0)

    def watts(self) -> float | None:
        milliwatts = self._get("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1000

    def throttled(self) -> set[str] | None:
        bits = self._get("nvmlDeviceGetCurrentClocksThrottleReasons", result=ctypes.c_ulonglong)
        return None if bits is None else {reason for bit, reason in self._REASONS.items() if bits & bit}

    def _get(self, name: str, *arguments: int, result: Any = ctypes.c_uint) -> int | None:
        value = result()
        try:
            function = getattr(self._library, name)
        except AttributeError:
            return None
        return None if function(self._device, *arguments, ctypes.byref(value)) else int(value.value)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
