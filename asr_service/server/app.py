"""A server's life: listen, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from asr_service.config import ServerSettings, Settings
from asr_service.engine.interface import Engine
from asr_service.errors import ConfigError
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.generated.asr.v1 import speech_pb2_grpc as pb_grpc
from asr_service.server.interceptors import CallInterceptor
from asr_service.server.servicer import SpeechServicer, engine_failed
from asr_service.server.workers import ENGINE_FAILED, TOLD_AGAIN_S, stop_signals, why_not
from asr_service.streaming.session import shutting_down

log = logging.getLogger("asr.server")

SERVICE: str = pb.DESCRIPTOR.services_by_name["Speech"].full_name
HEALTH_CHECK_PERIOD_S = 1.0
ILL_LOOKS = 2  # in a row; to one look an engine may seem stuck whose process was suspended for a while
LAST_STATUS_S = 1.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class SpeechServer:
    """One server on the running event loop.

    Args:
        load: makes the engine, started by the server; runs in a thread.
    """

    def __init__(self, settings: Settings, load: Callable[[], Engine]) -> None:
        self._settings = settings
        self._load = load
        self._servicer = SpeechServicer(settings)
        self._interceptor = CallInterceptor(SERVICE, retry_after_s=settings.server.retry_after_s)
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server: Any = None
        self._watch: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()  # the engine has; only a new process can help
        self.port = 0

    async def open(self) -> None:
        """Listen and load the model. Raises what these raise.

        While the model loads, health checks see NOT_SERVING rather than a refused connection. Where others share the
        port it loads first: the kernel gives whoever listens a share of the connections.
        """
        steps = [self._listen, self._load_model]
        for step in reversed(steps) if self._settings.server.share_port else steps:
            await step()
        assert self._servicer.engine is not None
        log.info("serving", extra={"fields": {"model": self._servicer.engine.info.model, "port": self.port}})

    async def _listen(self) -> None:
        """Open the port. Raises ConfigError where that is not possible."""
        server_settings = self._settings.server
        server = grpc.aio.server(interceptors=[self._interceptor], options=_channel_options(server_settings))
        pb_grpc.add_SpeechServicer_to_server(self._servicer, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if server_settings.reflection:
            names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        await self._set_health(NOT_SERVING if self._servicer.engine is None else SERVING)
        address = server_settings.address
        # gRPC finds out, too, but does not say why, and writes lines of its own to stderr.
        if problem := why_not(address, share_port=server_settings.share_port):
            raise ConfigError(f"cannot listen on {address}: {problem}")
        try:
            self.port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from error
        await server.start()
        self._server = server
        log.info("listening", extra={"fields": {"address": server_settings.address, "port": self.port}})

    async def _load_model(self) -> None:
        """Raises BundleError and the like from the loader."""
        engine = await asyncio.to_thread(self._load)
        engine.start()
        self._servicer.engine = engine
        await self._set_health(SERVING)
        self._watch = asyncio.create_task(self._watch_health(engine))

    async def stop(self, hurry: asyncio.Event | None = None) -> bool:
        """Drain and stop: running streams may end by themselves, then get their finals, then the port closes.

        Args:
            hurry: when set, waits no longer.

        Returns:
            False where the engine has not stopped in what was left of `drain_s` and `grace_s`: it is stuck.
        """
        settings, hurry = self._settings.server, hurry or asyncio.Event()
        deadline = time.monotonic() + settings.drain_s + settings.grace_s
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        self._servicer.begin_drain()
        await _wait(self._servicer.wait_for_calls(), settings.drain_s, hurry)
        self._servicer.end_streams()
        await _wait(self._servicer.wait_for_calls(), settings.grace_s, hurry)
        if self._server is not None:
            log.info("stopping", extra={"fields": {"calls_cut_off": self._servicer.live_calls}})
        self._servicer.fail_calls(shutting_down)
        self._interceptor.stopping = True
        if self._server is not None:
            # A call is no longer live some moments before its status has left.
            await self._server.stop(0 if hurry.is_set() else LAST_STATUS_S)
        if self._servicer.engine is None:
            return True
        patience_s = LAST_STATUS_S if self.failed.is_set() else max(LAST_STATUS_S, deadline - time.monotonic())
        stopped = _stopped(self._servicer.engine)
        await _wait(stopped.wait(), patience_s, hurry)
        return stopped.is_set()

    async def _watch_health(self, engine: Engine) -> None:
        ill = 0
        while ill < ILL_LOOKS:  # the engine's thread cannot tell that it has died or is stuck
            await asyncio.sleep(HEALTH_CHECK_PERIOD_S)
            ill = 0 if engine.healthy else ill + 1
        log.error("the engine has failed")
        # First, for this is what ends the process; and with no await between, for whoever sees it cancels this task.
        self.failed.set()
        self._servicer.fail_calls(engine_failed)
        await self._set_health(NOT_SERVING)

    async def _set_health(self, status: Any) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


async def _wait(event: Coroutine[Any, Any, Any], patience_s: float, hurry: asyncio.Event) -> None:
    waits = [asyncio.create_task(wait) for wait in (event, hurry.wait())]
    await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()


def _stopped(engine: Engine) -> asyncio.Event:
    """Tell the engine to stop; what is set when it has.

    In a daemon thread, which nobody waits for: neither the loop nor the interpreter ends before an executor's.
    """
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        engine.stop()
        with contextlib.suppress(RuntimeError):  # the loop has been closed: it took too long
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=stop, name="engine-stop", daemon=True).start()
    return stopped


async def serve(settings: Settings, load: Callable[[], Engine]) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP, or until the engine fails; return the exit code.

    The exit code is 0 after a signal, 70 where the engine has failed or does not stop, 1 after a second signal (not
    within `TOLD_AGAIN_S` of the first), which ends the process at once. After a signal it ends in `drain_s` and
    `grace_s` and a moment, whatever the engine does.

    A server whose engine has failed ends, so that whoever started it starts another one: it can serve nobody, but on a
    shared port the kernel would go on giving it its share of the connections.
    """
    loop = asyncio.get_running_loop()
    stopping, hurry = asyncio.Event(), asyncio.Event()

    told_s = 0.0

    def on_signal() -> None:
        nonlocal told_s
        if not stopping.is_set():
            told_s = loop.time()
            stopping.set()
        elif loop.time() - told_s >= TOLD_AGAIN_S:
            hurry.set()

    for number in stop_signals():
        loop.add_signal_handler(number, on_signal)
    server = SpeechServer(settings, lambda: _kept_for_good(load()))
    loading = asyncio.create_task(server.open())
    stopped = asyncio.create_task(stopping.wait())
    failed = asyncio.create_task(server.failed.wait())
    try:
        await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        still_loading = not loading.done()
        for task in (loading, stopped, failed):
            task.cancel()
        engine_stopped = await server.stop(hurry)
    # A model that is still loading or stuck cannot be interrupted otherwise, and nobody waits for it any more.
    if hurry.is_set() or still_loading:
        os._exit(int(hurry.is_set()))
    if not engine_stopped:
        log.error("the engine does not stop")
        os._exit(ENGINE_FAILED)
    return ENGINE_FAILED if server.failed.is_set() else 0


def _kept_for_good(engine: Engine) -> Engine:
    """Take what has been loaded out of the garbage collector's sight.

    A model and its lexicon are some 270 000 objects that live as long as the process. A full collection that looks
    through them holds the interpreter lock for 150 ms, in which no stream gets anything, and finds nothing.
    """
    gc.collect()  # else what is garbage now would be kept for good, too
    gc.freeze()
    return engine


class ServerThread:
    """A server in a thread of this process, on a free port of localhost; for one command or one test.

    with ServerThread(settings, load) as address:
        ...
    """

    def __init__(self, settings: Settings, load: Callable[[], Engine]) -> None:
        self._settings = settings
        self._load = load
        self._address: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="asr-server", daemon=True)

    def __enter__(self) -> str:
        """Return the address, when the model is loaded. Raises what loading or listening raises."""
        self._thread.start()
        return self._address.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._address.done():
                raise
            self._address.set_exception(error)  # whatever it is, the owner waits for it

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = SpeechServer(self._settings, self._load)
        try:
            await server.open()
        except BaseException:
            await server.stop()
            raise
        host = self._settings.server.address.rpartition(":")[0]
        self._address.set_result(f"{host}:{server.port}")
        await self._leave.wait()
        await server.stop()


def _channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    ping_ms = round(settings.min_ping_interval_s * 1000)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
        # Where it is longer (60 s by default), gRPC forgets to set the timer of the other.
        ("grpc.http2.ping_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),  # a peer that vanished between two calls is closed, too
        # Connections that never speak HTTP/2: two minutes by default.
        ("grpc.server_handshake_timeout_ms", round(settings.startup_timeout_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", ping_ms),
        ("grpc.so_reuseport", int(settings.share_port)),
    ]
