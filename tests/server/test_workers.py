"""Several workers on one port: all serve, a killed one comes back, one signal ends them all."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from asr_service.commands.serve import run_workers
from asr_service.config import ServerSettings, Settings
from asr_service.errors import ConfigError
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.app import ServerThread
from asr_service.server.workers import RestartDelay, Workers, reserve, why_not
from tests.engine.conftest import make_tiny_bundle
from tests.fake_engine import FakeEngine


class Parent:
    """`asr serve --workers 2`; `lines` are the log of it and its workers."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "asr_service.server", "--workers", "2", "--address", "localhost:0"]
        self.process = subprocess.Popen(
            [*command, "--model", str(model)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.lines: list[dict] = []
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._arrived:
                    if line.startswith("{"):
                        self.lines.append(json.loads(line))
                    self._arrived.notify_all()

    def wait_for(self, message: str, count: int) -> list[dict]:
        def found() -> list[dict]:
            return [line for line in self.lines if line["message"] == message]

        with self._arrived:
            assert self._arrived.wait_for(lambda: len(found()) >= count, timeout=60), self.lines
            return found()

    @property
    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(make_tiny_bundle(tmp_path / "tiny"))
    yield parent
    parent.process.kill()
    parent.process.wait()


def connections(port: int, pid: int) -> int:
    """Connections of clients that a process holds on `port`."""
    inodes = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}  # noqa: PTH115
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
    ours = [row for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "01"]
    return sum(f"socket:[{row[9]}]" in inodes for row in ours)


def connect(port: int) -> grpc.Channel:
    """A connection of its own: channels of one process to one address would share theirs."""
    channel = grpc.insecure_channel(f"localhost:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    info = pb_grpc.SpeechStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=20)
    assert [model.name for model in info.models] == ["tiny"]
    return channel


@pytest.mark.timeout(180)
def test_connections_are_shared_out_and_a_killed_worker_comes_back_without_one_that_fails(parent: Parent) -> None:
    (port,) = {line["port"] for line in parent.wait_for("serving", 2)}
    channels = [connect(port) for _ in range(16)]
    assert all(connections(port, pid) for pid in parent.workers), "one worker has all connections"
    for channel in channels:
        channel.close()
    first, second = parent.workers
    os.kill(first, signal.SIGKILL)
    parent.wait_for("a worker was killed; another one starts", 1)
    while sum(line["message"] == "serving" for line in parent.lines) < 3:
        connect(port).close()  # none goes to the worker that still loads
    assert parent.workers.count(second) == 1
    assert len(parent.workers) == 2
    for _ in range(8):
        connect(port).close()
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


@pytest.mark.timeout(180)
def test_workers_end_when_their_parent_is_killed(parent: Parent) -> None:
    parent.wait_for("serving", 2)
    workers = parent.workers
    parent.process.kill()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_ends_by_itself_ends_them_all_with_its_code(tmp_path: Path) -> None:
    first_ends = """
import os, sys, time
try:
    os.mkdir(sys.argv[1])
except FileExistsError:
    time.sleep(60)
else:
    sys.exit(3)
"""
    for number in range(2):
        command = [sys.executable, "-c", first_ends, str(tmp_path / str(number))]
        assert Workers(command, 4, restart_s=0.0, restart_most_s=0.0, stop_s=20.0).run() == 3


def test_a_worker_whose_engine_has_failed_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "failed"
    first_fails = f"import sys, pathlib as p; m = p.Path({str(mark)!r}); sys.exit(3 if m.exists() else m.touch() or 70)"
    assert (
        Workers([sys.executable, "-S", "-c", first_fails], 1, restart_s=0.0, restart_most_s=0.0, stop_s=20.0).run() == 3
    )


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the next starts of a process succeed; all others do."""
    outcomes: list[bool] = []
    start = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        if outcomes and not outcomes.pop(0):
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*args, **options)

    monkeypatch.setattr("asr_service.server.workers.subprocess.Popen", popen)
    return outcomes


def test_a_worker_that_cannot_be_started_again_is_tried_until_it_can(
    starts: list[bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "failed"
    first_fails = f"import sys, pathlib as p; m = p.Path({str(mark)!r}); sys.exit(3 if m.exists() else m.touch() or 70)"
    starts += [True, False, False, True]
    workers = Workers([sys.executable, "-S", "-c", first_fails], 1, restart_s=0.1, restart_most_s=60.0, stop_s=20.0)
    assert workers.run() == 3
    told = [record.__dict__["fields"] for record in caplog.records if "cannot be started" in record.msg]
    assert told == [{"error": "Resource temporarily unavailable", "in_s": delay_s} for delay_s in (0.2, 0.4)]


def test_first_workers_that_cannot_be_started_are_told_of_in_one_line(starts: list[bool]) -> None:
    starts += [True, False]
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    workers = Workers(sleeping, 2, restart_s=0.0, restart_most_s=0.0, stop_s=20.0)
    with pytest.raises(ConfigError, match="cannot start 2 workers: Resource temporarily unavailable"):
        workers.run()


def test_a_worker_that_dies_again_and_again_is_started_ever_later_up_to_a_bound() -> None:
    delay = RestartDelay(1.0, 60.0)
    assert [delay.after(4.0) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [delay.after(lived_s) for lived_s in (61.0, 4.0, 4.0)] == [1, 2, 4]
    at_once = RestartDelay(0.0, 60.0)
    assert [at_once.after(0.0) for _ in range(3)] == [0, 0, 0]


@pytest.mark.timeout(60)
def test_workers_that_wait_to_be_started_again_hold_up_neither_signal_nor_the_others(tmp_path: Path) -> None:
    first = tmp_path / "first"
    one_dies = f"import pathlib, sys, time; m = pathlib.Path({str(first)!r}); "
    one_dies += "m.exists() or m.touch() or sys.exit(70); time.sleep(60)"
    both = "import sys; from asr_service.server.workers import Workers\n"
    both += f"command = [sys.executable, '-S', '-c', {one_dies!r}]\n"
    both += "sys.exit(Workers(command, 2, restart_s=50.0, restart_most_s=60.0, stop_s=20.0).run())"
    parent = subprocess.Popen([sys.executable, "-c", both], stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    with parent.stderr as log:
        assert "has lost its engine" in log.readline()
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0


@pytest.mark.timeout(60)
def test_a_signal_while_workers_are_started_ends_them_and_starts_no_more() -> None:
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    many = "from asr_service.server.workers import Workers\n"
    many += "import sys; print('begins', flush=True)\n"
    many += f"sys.exit(Workers({sleeping!r}, 100_000, restart_s=0.0, restart_most_s=0.0, stop_s=20.0).run())"
    parent = subprocess.Popen([sys.executable, "-c", many], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as begins:
        begins.readline()
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while len(children.read_text().split()) < 2:
        time.sleep(0.01)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 0


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("stop_s", "signals"), [(0.5, 1), (600.0, 2)])
def test_a_worker_that_does_not_stop_is_killed(stop_s: float, signals: int) -> None:
    both = f"""
import sys
from asr_service.server import workers
workers._TOLD_TWICE_S, workers.TOLD_AGAIN_S = 0.5, 0.05
command = [sys.executable, "-S", "-c", {STUBBORN!r}]
sys.exit(workers.Workers(command, 1, restart_s=0.0, restart_most_s=0.0, stop_s={stop_s}).run())
"""
    parent = subprocess.Popen([sys.executable, "-c", both], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stderr is not None
    with parent.stdout as said, parent.stderr as log:
        assert said.readline() == "deaf\n"
        for _ in range(signals):
            parent.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert parent.wait(30) == 1
        assert "it is killed" in log.read()


def test_a_port_that_somebody_has_is_refused() -> None:
    with socket.create_server(("localhost", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on localhost:{port}: the port is taken by"):
            reserve(f"localhost:{port}", share_port=False)


def test_a_host_that_is_unknown_is_refused_as_that() -> None:
    for host, told in (
        ("no-such-host.invalid", "the host is unknown"),
        ("192.0.2.1", "not this machine"),
        ("a..b", "host is unknown"),
    ):
        with pytest.raises(ConfigError, match=told):
            reserve(f"{host}:0", share_port=False)


@pytest.mark.parametrize(
    ("host", "told"), [("127.0.0.1", "the port is taken by"), ("no-such-host.invalid", "the host is unknown")]
)
def test_one_server_says_which_of_the_two_it_is(host: str, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = Settings(server=ServerSettings(address=f"{host}:{listening.getsockname()[1]}"))
        with pytest.raises(ConfigError, match=told), ServerThread(settings, FakeEngine):
            pass


@pytest.mark.parametrize("more", [[], ["--share-port"]])
def test_the_command_says_so_in_one_line(more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "asr_service.server", "--address", address, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"asr serve: cannot listen on {address}: the port is taken by another program\n"


def test_of_a_host_with_several_addresses_one_that_is_free_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()
        places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in (taken, ("127.0.0.2", taken[1]))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        assert why_not(f"both:{taken[1]}", share_port=False) is None
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places[:1])
        assert why_not(f"both:{taken[1]}", share_port=False) == "the port is taken by another program"


def test_servers_that_share_a_port_are_not_in_each_others_way() -> None:
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind(("127.0.0.1", 0))
        sharing.listen()
        address = f"127.0.0.1:{sharing.getsockname()[1]}"
        assert why_not(address, share_port=True) is None
        assert why_not(address, share_port=False) == "the port is taken by another program"
        held, reserved = reserve(address, share_port=True)
        held.close()
        assert reserved == address
        with pytest.raises(ConfigError, match="the port is taken by another program"):
            reserve(address, share_port=False)


def test_workers_have_the_options_of_the_command_and_the_time_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[list[str], int, dict[str, float]]] = []

    class Noted:
        def __init__(self, command: list[str], count: int, **times: float) -> None:
            made.append((command, count, times))

        def run(self) -> int:
            return 0

    monkeypatch.setattr("asr_service.server.workers.Workers", Noted)
    arguments = argparse.Namespace(model=Path("bundle"), config=Path("asr.toml"), max_streams=7, workers=3)
    times = {"worker_restart_s": 0.5, "worker_restart_most_s": 9.0, "worker_stop_margin_s": 4.0}
    assert run_workers(arguments, ServerSettings("127.0.0.1:0", drain_s=1.0, grace_s=2.0, **times)) == 0
    ((command, count, given),) = made
    assert command[-6:] == ["--model", "bundle", "--config", "asr.toml", "--max-streams", "7"]
    assert (count, given) == (3, {"restart_s": 0.5, "restart_most_s": 9.0, "stop_s": 7.0})


@pytest.mark.parametrize("share_port", [True, False])
def test_several_workers_share_their_port_with_others_where_the_settings_say_so(
    share_port: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "run", lambda _: 0)
    arguments = argparse.Namespace(model=None, config=None, max_streams=None, workers=2)
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind(("127.0.0.1", 0))
        sharing.listen()
        settings = ServerSettings(address=f"127.0.0.1:{sharing.getsockname()[1]}", share_port=share_port)
        if share_port:
            assert run_workers(arguments, settings) == 0
        else:
            with pytest.raises(ConfigError, match="the port is taken by another program"):
                run_workers(arguments, settings)
