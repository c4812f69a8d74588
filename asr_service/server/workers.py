"""Several server processes that share one port, one engine each: how one machine uses all of its cores.

The kernel shares out connections (SO_REUSEPORT), not streams: a channel with fifty streams lands on one worker, and
each worker has the settings' limits for itself. The parent imports neither grpc nor the model: it holds the port,
starts the workers, starts one again that was killed, and passes SIGTERM and SIGINT on.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from asr_service.errors import ConfigError

log = logging.getLogger("asr.workers")

MAX_WORKERS = 256
ENGINE_FAILED = 70
"""Exit code of a server whose engine has failed (EX_SOFTWARE of sysexits.h): another one may do better."""
_POLL_S = 0.2
_PR_SET_PDEATHSIG = 1
_STOPPED = (0, -signal.SIGTERM, -signal.SIGINT)


def reserve(address: str) -> tuple[socket.socket, str]:
    """Hold a port that several processes will share; returns the socket, not listening, and host:port with its number.

    Raises ConfigError where another program has the port, or the host is unknown.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)  # fails where somebody listens, which SO_REUSEPORT would not
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(place)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror}") from error
    return held, f"{host}:{held.getsockname()[1]}"


def _end_with_parent() -> None:
    """In a worker that begins: when its parent is gone, killed without a word, the kernel sends it SIGTERM (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Workers:
    """The processes. `run` returns when all have ended."""

    def __init__(self, command: Sequence[str], count: int, *, restart_s: float) -> None:
        """`command` starts one worker; one that was killed is started again after `restart_s`."""
        self._command = list(command)
        self._restart_s = restart_s
        self._stopping = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._count = count

    def run(self) -> int:
        """Return 0 after a signal to stop, or the exit code of a worker that ended by itself: the others end then, too.

        A worker ends by itself where settings or model are wrong, and another one would too. One that was killed (out
        of memory, a crash), or whose engine has failed, is started again.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while len(self._processes) < self._count and not self._stopping:
                self._processes.append(self._start())
            return self._watch()
        finally:
            self._pass_on(signal.SIGTERM)
            for process in self._processes:
                process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, preexec_fn=_end_with_parent)  # noqa: PLW1509  # there are no threads
        if self._stopping:  # the signal came while it was started, and went to those before it
            process.send_signal(signal.SIGTERM)
        return process

    def _watch(self) -> int:
        while not self._stopping or any(process.poll() is None for process in self._processes):
            for index, process in enumerate(self._processes):
                code = process.poll()
                if code is None or self._stopping:
                    continue
                if code >= 0 and code != ENGINE_FAILED:
                    log.error("a worker ended by itself", extra={"fields": {"pid": process.pid, "exit_code": code}})
                    return code or 1
                fields = {"pid": process.pid} | ({"signal": -code} if code < 0 else {"exit_code": code})
                why = "was killed" if code < 0 else "has lost its engine"
                log.error("a worker %s; another one starts", why, extra={"fields": fields})
                time.sleep(self._restart_s)
                if not self._stopping:
                    self._processes[index] = self._start()
            time.sleep(_POLL_S)
        # A worker that has not come as far as to handle the signal ends by it.
        return int(any(process.returncode not in _STOPPED for process in self._processes))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A second signal goes through to the workers too, which then stop at once.
        self._stopping = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
