"""One instance of a training job: the container as process 1 over its own /opt/ml.

In: a folder that is the instance's /opt/ml, and environment variables. Where this process may not make namespaces
the container runs as a plain process with SDXL_NB_ML_ROOT set to the folder: everything else is the same.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

UNSHARE = ["unshare", "--mount", "--propagation", "private", "--uts", "--pid", "--fork", "--mount-proc"]
INSIDE = """
hostname "$1"; mkdir -p /opt/ml && mount --bind "$2" /opt/ml && mount --bind "$3" /etc/hosts || exit 125
shift 3; exec "$@"
"""
KEPT = (
    "PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY",
    "WANDB_MODE", "AWS_EC2_METADATA_DISABLED",
)  # fmt: skip


@functools.cache
def isolation():
    """How namespaces can be made here: the command before `sh`, or None."""
    for user in ([], ["--user", "--map-root-user"]):
        command = [*UNSHARE, *user, "--kill-child=SIGKILL", "sh", "-c", INSIDE, "sh", "algo-1", "/tmp", "/etc/hosts"]
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=1200).returncode == 0:
                return [*UNSHARE, *user, "--kill-child=SIGKILL"]
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


def host_names(count):
    """The instances' names, which resolve inside."""
    return [f"algo-{n + 1}" if isolation() else f"127.0.0.{n + 1}" for n in range(count)]


class Instance:
    """A running container; `line(text)` is called for each line that it prints."""

    def __init__(self, name, folder, environment, line, command=("train",)):
        self.folder, self.line = Path(folder), line
        home = self.folder.parent / f"{self.folder.name}-home"
        home.mkdir(exist_ok=True)
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        environment = {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", **environment}
        command = [sys.executable, "-m", "sdxl_nb.container", *command]
        self.isolated = isolation()
        if self.isolated:
            hosts = self.folder.parent / "hosts"
            hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 algo-{n}\n" for n in range(1, 9)))
            command = [*self.isolated, "sh", "-c", INSIDE, "sh", name, str(folder), str(hosts), *command]
        else:
            environment["SDXL_NB_ML_ROOT"] = str(folder)
        self.process = subprocess.Popen(
            command, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.line(line.rstrip("\n").rpartition("\r")[2])

    def pid(self):
        """The container's process 1, seen from here; None before it is there."""
        if not self.isolated:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            found = children.read_text().split()
        except OSError:
            return None
        return int(found[0]) if found else None

    def terminate(self):
        """SIGTERM to process 1, as docker stop does."""
        for _ in range(10_000):
            if (pid := self.pid()) is not None or self.process.poll() is not None:
                break
            time.sleep(0.02)
        if pid is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(pid, signal.SIGTERM)

    def kill(self):
        """SIGKILL to everything in the container."""
        if self.process.poll() is None:
            if not self.isolated:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()  # --kill-child takes process 1 along, and with it its namespace
        self.process.wait()

    def poll(self):
        """The exit code, or None."""
        return self.process.poll()

    def drain(self):
        """Wait for the last lines."""
        self.reader.join(1200)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
