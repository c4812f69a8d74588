"""Several server processes that share one port, one engine each: how one machine uses all of its cores.

The kernel shares out connections (SO_REUSEPORT), not streams: a channel with fifty streams lands on one worker, and
each worker has the settings' limits for itself. The parent imports neither grpc nor the model: it holds the port,
starts the workers, starts one again that was killed or has lost its engine, and passes SIGTERM and SIGINT on.
"""

from __future__ import annotations

import errno
import logging
import math
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from asr_service.errors import ConfigError
from asr_service.parent_process import end_with_parent

log = logging.getLogger("asr.workers")

MAX_WORKERS = 256
ENGINE_FAILED = 70
"""Exit code of a server whose engine has failed (EX_SOFTWARE of sysexits.h): another one may do better."""
TOLD_AGAIN_S = 1.0
"""A signal so soon after the first is the same one on another way: Ctrl-C goes to every process of the terminal's group
and systemd's SIGTERM to every one of the service, and a parent passes on to its child what the child has had, too.
"""
_POLL_S = 0.2
_TOLD_TWICE_S = 5.0  # how long a worker may take to end at once
# How a worker ends that was told to: before it handles signals by one, or with the 130 of the command line.
_STOPPED = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 130)


def reserve(address: str, *, share_port: bool) -> tuple[socket.socket, str]:
    """Hold a port that several processes will share; returns the socket, not listening, and host:port with its number.

    Raises ConfigError where another program has the port, with `share_port` only where that one does not share it; or
    the host is unknown.
    """
    host = address.rpartition(":")[0]
    try:
        family, kind, protocol, _, place = _places(address)[0]
        _bind_alone(family, kind, protocol, place, share_port=share_port)
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(place)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot listen on {address}: {_told(error)}") from error
    return held, f"{host}:{held.getsockname()[1]}"


def why_not(address: str, *, share_port: bool) -> str | None:
    """Why nobody can listen on `address`, from the operating system; None where somebody can.

    Of a host with several addresses, one that is free is enough, as it is for gRPC.
    """
    told = None
    try:
        for family, kind, protocol, _, place in _places(address):
            try:
                _bind_alone(family, kind, protocol, place, share_port=share_port)
            except OSError as error:
                told = told or _told(error)
            else:
                return None
    except (OSError, UnicodeError) as error:
        return _told(error)
    return told


def _places(address: str) -> list[Any]:
    host, _, port = address.rpartition(":")
    return socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)


def _bind_alone(family: int, kind: int, protocol: int, place: Any, *, share_port: bool) -> None:
    """Raises OSError where somebody listens; with `share_port` not where that one shares the port."""
    with socket.socket(family, kind, protocol) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        alone.bind(place)


def _told(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "the host is unknown (it is no host name)"
    if isinstance(error, socket.gaierror):
        return f"the host is unknown ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another program"
    if error.errno == errno.EADDRNOTAVAIL:
        return "the host is not this machine"
    return error.strerror or str(error)


class RestartDelay:
    """How long a worker that died stays down: each time twice as long, up to a bound, and from the start again for one
    that lived for longer than the bound.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = self._next_s = first_s
        self._most_s = most_s

    def after(self, lived_s: float) -> float:
        """The delay in seconds for one that has lived so long."""
        if lived_s > self._most_s:
            self._next_s = self._first_s
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return delay_s


@dataclass
class _Worker:
    """One place among the workers: its process, since when, and when the next one starts, where it has died."""

    process: subprocess.Popen[bytes]
    delay: RestartDelay
    started_s: float
    due_s: float | None = None


def stop_signals() -> list[signal.Signals]:
    """Those that tell a server to drain and stop: of a service manager, a terminal, and a terminal that is closed,
    unless whoever started the process wants it to outlive that (`nohup`).
    """
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hang_up]


class Workers:
    """The processes. `run` returns when all have ended."""

    def __init__(
        self, command: Sequence[str], count: int, *, restart_s: float, restart_most_s: float, stop_s: float
    ) -> None:
        """`command` starts one worker; one that was killed is started again as `RestartDelay` says. One that was told
        to stop and has not after `stop_s` is killed.
        """
        self._command = list(command)
        self._restart_s = (restart_s, restart_most_s)
        self._stop_s = stop_s
        self._stopping = False
        self._told_s = math.inf  # when a signal said so first
        self._kill_s = math.inf  # when those are killed that have not ended by then
        self._workers: list[_Worker] = []
        self._count = count

    def run(self) -> int:
        """Return 0 after a signal to stop, or the exit code of a worker that ended by itself: the others end then, too.

        A worker ends by itself where settings or model are wrong, and another one would too. One that was killed (out
        of memory, a crash), or whose engine has failed, is started again, as often as it takes. Raises ConfigError
        where one of the first cannot be started.
        """
        before = {number: signal.signal(number, self._on_signal) for number in stop_signals()}
        try:
            while len(self._workers) < self._count and not self._stopping:
                try:
                    process = self._start()
                except OSError as error:
                    raise ConfigError(f"cannot start {self._count} workers: {error.strerror or error}") from error
                self._workers.append(_Worker(process, RestartDelay(*self._restart_s), time.monotonic()))
            code = self._watch()
        finally:
            if not self._stopping:
                self._tell(signal.SIGTERM)
            self._wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        if code is not None:
            return code
        # One that was to be started again has died before.
        ended = [worker.process.returncode for worker in self._workers if worker.due_s is None]
        return int(any(code not in _STOPPED for code in ended))

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, preexec_fn=end_with_parent)  # noqa: PLW1509  # there are no threads
        if self._stopping:  # the signal came while it was started, and went to those before it
            process.send_signal(signal.SIGTERM)
        return process

    def _watch(self) -> int | None:
        """The exit code of a worker that has ended by itself; None when a signal says to stop."""
        while not self._stopping:
            for worker in self._workers:
                code = worker.process.poll()
                if code is None or self._stopping:
                    continue
                if code >= 0 and code != ENGINE_FAILED:
                    fields = {"pid": worker.process.pid, "exit_code": code}
                    log.error("a worker ended by itself", extra={"fields": fields})
                    return code or 1
                self._start_again(worker, code)
            time.sleep(_POLL_S)
        return None

    def _wait(self) -> None:
        """Until all have ended that were told to."""
        while running := [worker.process for worker in self._workers if worker.process.poll() is None]:
            if time.monotonic() >= self._kill_s:
                for process in running:
                    log.error("a worker does not stop; it is killed", extra={"fields": {"pid": process.pid}})
                    process.kill()
                    process.wait()
            time.sleep(_POLL_S)

    def _start_again(self, worker: _Worker, code: int) -> None:
        """Now, or note when: the others are watched meanwhile, and signals come through."""
        now_s = time.monotonic()
        if worker.due_s is None:
            delay_s = worker.delay.after(now_s - worker.started_s)
            worker.due_s = now_s + delay_s
            fields = {"pid": worker.process.pid, "in_s": delay_s}
            fields |= {"signal": -code} if code < 0 else {"exit_code": code}
            why = "was killed" if code < 0 else "has lost its engine"
            log.error("a worker %s; another one starts", why, extra={"fields": fields})
        if now_s < worker.due_s:
            return
        try:
            worker.process, worker.started_s, worker.due_s = self._start(), now_s, None
        except OSError as error:  # no process or memory is left for it now; the others go on
            delay_s = worker.delay.after(0.0)
            worker.due_s = now_s + delay_s
            told = {"error": error.strerror or str(error), "in_s": delay_s}
            log.error("a worker cannot be started; another try follows", extra={"fields": told})

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self._stopping:
            self._told_s = now_s
        elif now_s - self._told_s < TOLD_AGAIN_S:
            return
        self._tell(number)

    def _tell(self, number: int) -> None:
        """To stop; told twice, they stop at once."""
        patience_s = _TOLD_TWICE_S if self._stopping else self._stop_s
        self._kill_s = min(self._kill_s, time.monotonic() + patience_s)
        self._stopping = True
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)
