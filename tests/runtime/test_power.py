"""What platforms tell about power, from made-up trees of files and a made-up NVML."""

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from proscale_deploy.core.gpu import Gpu
from proscale_deploy.runtime.gpu import power
from proscale_deploy.runtime.gpu.power import Jetson, Nvml, Power, PowerMeter

CONF = """
# Comments, and
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=MAXN >
GPU MAX_FREQ -1
< POWER_MODEL ID=2 NAME=30W >
GPU MAX_FREQ 624750000
< PM_CONFIG DEFAULT=2 >
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    gpu = "sys/class/devfreq/17000000.gpu/"
    thermal = "sys/class/thermal/"
    return write(
        tmp_path,
        {
            "var/lib/nvpmodel/status": "pmode:0002\n",
            "etc/nvpmodel.conf": CONF,
            "sys/class/devfreq/15340000.vic/cur_freq": "1\n",
            gpu + "cur_freq": "612000000\n",
            gpu + "min_freq": "306000000\n",
            gpu + "max_freq": "624750000\n",
            thermal + "thermal_zone0/type": "cpu-thermal\n",
            thermal + "thermal_zone0/temp": "60000\n",
            thermal + "thermal_zone1/type": "gpu-thermal\n",
            thermal + "thermal_zone1/temp": "51250\n",
            thermal + "cooling_device0/type": "pwm-fan\n",
            thermal + "cooling_device0/cur_state": "3\n",
            thermal + "cooling_device1/type": "gpu-throttle-alert\n",
            thermal + "cooling_device1/cur_state": "0\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
        },
    )


def test_jetson(orin: Path) -> None:
    meter = PowerMeter(Jetson(orin))
    meter.look()
    write(
        orin,
        {
            "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
            "sys/class/thermal/thermal_zone1/temp": "48000\n",
        },
    )
    meter.look()
    assert meter.report() == Power("30W", (306, 612), (306, 625), 51.25, None, ())


def test_a_jetson_that_is_throttled(orin: Path) -> None:
    meter = PowerMeter(Jetson(orin))
    write(orin, {"sys/class/hwmon/hwmon3/oc3_event_cnt": "38\n"})
    write(orin, {"sys/class/thermal/cooling_device1/cur_state": "1\n"})
    meter.look()
    write(orin, {"sys/class/thermal/cooling_device1/cur_state": "0\n"})  # it was seen
    meter.look()
    assert meter.report().throttled == ("gpu-throttle-alert", "over-current (oc3)")


@pytest.mark.parametrize("name", ["17000000.ga10b", "17000000.gv11b", "57000000.gpu", "gpu-gpc-0"])
def test_gpus_of_other_boards(tmp_path: Path, name: str) -> None:
    folder = f"sys/class/devfreq/{name}/"
    frequencies = {f"{folder}{kind}_freq": "1575000000\n" for kind in ("cur", "min", "max")}
    write(tmp_path, frequencies | {"sys/class/devfreq/gpu-nvd-0/cur_freq": "1\n"})
    assert (Jetson(tmp_path).mhz(), Jetson(tmp_path).mhz_limits()) == (1575, (1575, 1575))


def test_what_a_jetson_does_not_tell_is_left_out(tmp_path: Path) -> None:
    meter = PowerMeter(Jetson(tmp_path))
    meter.look()
    assert meter.report() == Power(None, None, None, None, None, None)
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0007 fmode:quiet\n", "etc/nvpmodel.conf": CONF})
    assert Jetson(tmp_path).mode() == "mode 7"
    write(tmp_path, {"var/lib/nvpmodel/status": "\n"})
    assert Jetson(tmp_path).mode() is None


def test_nvpmodel_is_asked_where_it_has_left_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvpmodel"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for script, mode in (
        ('[ "$1" = -q ] && printf "NV Fan Mode:quiet\\nNV Power Mode: MAXN_SUPER\\n2\\n"', "MAXN_SUPER"),
        ("echo Error opening; exit 1", None),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert Jetson(tmp_path).mode() == mode


class FakeNvml:
    """The library as ctypes gives it; ``values`` by function, None for what the GPU does not support."""

    def __init__(self, values: dict[str, int | None]) -> None:
        self._values = values

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus: bytes, device: Any) -> int:
        device._obj.value = 7
        return 0 if bus == b"0000:65:00.0" else 6

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(name)

        def get(device: ctypes.c_void_p, *arguments: Any) -> int:
            assert device.value == 7
            value = self._values[name]
            if value is not None:
                arguments[-1]._obj.value = value
            return 3 if value is None else 0

        return get


L4 = {
    "nvmlDeviceGetEnforcedPowerLimit": 60000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 72000,
    "nvmlDeviceGetClockInfo": 1800,
    "nvmlDeviceGetMaxClockInfo": 2040,
    "nvmlDeviceGetTemperature": 55,
    "nvmlDeviceGetPowerUsage": 41500,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
}


def open_meter(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], bus: str = "0000:65:00.0") -> PowerMeter | None:
    monkeypatch.setattr(power, "jetson", lambda: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeNvml(values))
    return PowerMeter.open(Gpu("L4", "8.9", 24 << 30, bus))


def test_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = open_meter(monkeypatch, L4)
    assert meter is not None
    meter.look()
    throttled = ("power limit", "thermal limit (hardware)")
    assert meter.report() == Power("limited to 60 of usually 72 W", (1800, 1800), (0, 2040), 55, 41.5, throttled)


@pytest.mark.parametrize("values", [{}, dict.fromkeys(L4)])
def test_what_nvml_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    """An old library without the functions, a card that does not support them."""
    meter = open_meter(monkeypatch, values)
    assert meter is not None
    meter.look()
    assert meter.report() == Power(None, None, None, None, None, None)


def test_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_meter(monkeypatch, L4, bus="0000:01:00.0") is None
    assert PowerMeter.open(None) is None

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert Nvml.open("0000:65:00.0") is None


def test_a_jetson_is_asked_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "jetson", lambda: "NVIDIA Jetson AGX Orin")
    monkeypatch.setattr(power, "Jetson", lambda: "files")
    meter = PowerMeter.open(None)
    assert meter is not None
    assert meter._platform == "files"
