"""A server in a process of its own, for the commands that show or measure one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

from asr_service.commands.serve import SERVER
from asr_service.parent_process import end_with_parent

# The first start after the installation compiles the search, which takes minutes beside other work on a slow machine.
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0
KEPT_LOG_LINES = 50


class ServerProcess:
    """`asr serve` on a free port, from its "serving" log line on until the block ends; then SIGTERM.

    On Linux it ends, too, where this process is killed or the thread that began the block ends. `options` are further
    options of `asr serve`; with several `workers` all of them serve before the block begins.
    Raises RuntimeError with the end of the server's log when it does not come to serve.
    """

    def __init__(self, model: Path | None, *options: str, workers: int = 1) -> None:
        command = [*SERVER, "--address", "localhost:0", *options]
        command += ["--workers", str(workers)] if workers > 1 else []
        self._to_come = workers
        self._command = command if model is None else [*command, "--model", str(model)]
        self._log: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._serving = threading.Event()
        self.address = self.model = ""
        self.start_s = 0.0
        self.exit_code: int | None = None

    def __enter__(self) -> ServerProcess:
        started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock that a thread of ours may hold
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._serving.wait(START_TIMEOUT_S)
        if self._to_come:
            self._stop()
            raise RuntimeError("the server did not start:\n" + "".join(self._log))
        self.start_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._log.append(line)
                with contextlib.suppress(ValueError, AttributeError):  # a traceback, not one of our JSON lines
                    fields = json.loads(line)
                    if fields.get("message") == "serving":
                        self.address, self.model = f"localhost:{fields['port']}", fields["model"]
                        self._to_come = max(0, self._to_come - 1)
                        if not self._to_come:
                            self._serving.set()
        self._serving.set()  # it has ended

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self.exit_code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()
        self._reader.join()
