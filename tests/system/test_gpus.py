"""What is said of a machine's GPUs: with NVIDIA's library, without it, and where a GPU tells less."""

import sys
import types

import pytest

from sdxl_nb.system import gpus


class Library(types.ModuleType):
    """NVML's functions that are used, of a machine with these GPUs."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, *names):
        super().__init__("pynvml")
        self.names = names

    def nvmlInit(self):
        if self.names == ("no driver",):
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, number):
        return number

    def nvmlDeviceGetName(self, gpu):
        return self.names[gpu]

    def nvmlDeviceGetUtilizationRates(self, gpu):
        return types.SimpleNamespace(gpu=98)

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return types.SimpleNamespace(used=20_100_000_000, total=24_100_000_000)

    def nvmlDeviceGetTemperature(self, gpu, kind):
        if gpu:
            raise self.NVMLError("not supported")
        return 61


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (None, [gpus.NONE]),
        (Library("no driver"), [gpus.NONE]),
        (Library(), [gpus.NONE]),
        (
            Library("NVIDIA A10G", b"GRID T4"),
            ["NVIDIA A10G: 98 % busy, 20.1 of 24.1 GB, 61 °C", "GRID T4: 98 % busy, 20.1 of 24.1 GB"],
        ),
    ],
)
def test_what_is_said(monkeypatch, library, said):
    monkeypatch.setitem(sys.modules, "pynvml", library)  # None: it cannot be imported
    monkeypatch.setattr(gpus, "DRIVER", gpus.Path("/nowhere"))
    gpus._library.cache_clear()
    assert gpus.gpu_lines() == said
    gpus._library.cache_clear()


def test_a_gpu_without_the_package_says_which(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path)
    gpus._library.cache_clear()
    assert gpus.gpu_lines() == [gpus.NO_PACKAGE]
    gpus._library.cache_clear()


def test_only_linux_is_sure_that_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "SIGNS", (tmp_path / "nvidiactl", tmp_path / "kfd"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert not gpus.may_have_gpu()
    (tmp_path / "kfd").touch()
    assert gpus.may_have_gpu()
    (tmp_path / "kfd").unlink()
    monkeypatch.setattr(sys, "platform", "win32")
    assert gpus.may_have_gpu()
