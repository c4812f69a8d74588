"""Our client at a server behind a proxy that has TLS, with a token for it."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile

from asr_service.cli import main
from asr_service.client import AsyncClient, Client, ServiceError
from asr_service.evaluation.forced_alignment import AlignmentCache
from asr_service.model.digest import bundle_digest
from tests.bench.made_up import tone_clip
from tests.engine.conftest import make_tiny_bundle
from tests.fake_engine import linear16, say
from tests.server.conftest import Service
from tests.server.messages import transcript

SPEECH = say(1, 2)
RAW = {"encoding": "linear16", "sample_rate_hertz": 16_000}


class TlsProxy:
    """Ends TLS and passes the bytes on, in a thread."""

    def __init__(self, certificate: Path, key: Path, backend: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self._host, _, self._port = backend.rpartition(":")
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> str:
        self._thread.start()
        self._ready.wait()
        return self.address

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        self._loop, self._calls = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        server = await asyncio.start_server(self._accept, "localhost", 0, ssl=self._context)
        self.address = f"localhost:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        behind, to_behind = await asyncio.open_connection(self._host, int(self._port))
        try:
            await asyncio.gather(_pass_on(reader, to_behind), _pass_on(behind, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, to_behind):
                each.transport.abort()
            self._calls.discard(task)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of localhost; its key lies beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "proxy.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", path.with_suffix(".key"), "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="module")
def proxy(certificate: Path, service: Service) -> Iterator[str]:
    with TlsProxy(certificate, certificate.with_suffix(".key"), service.address) as address:
        yield address


def test_client_reaches_a_server_behind_tls(proxy: str, certificate: Path) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with Client(proxy, credentials=credentials) as client:
        assert client.server_info().models[0].name == "tones"
        assert transcript(client.stream([linear16(SPEECH)], **RAW)) == "one two"


def test_asynchronous_client_reaches_a_server_behind_tls(proxy: str, certificate: Path) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())

    async def scenario() -> str:
        async def chunks() -> AsyncIterator[bytes]:
            yield linear16(SPEECH)

        async with AsyncClient(proxy, credentials=credentials) as client:
            return transcript([response async for response in client.stream(chunks(), **RAW)])

    assert asyncio.run(scenario()) == "one two"


def test_a_proxy_that_nobody_vouches_for_is_not_spoken_to(proxy: str) -> None:
    with Client(proxy, credentials=grpc.ssl_channel_credentials()) as client, pytest.raises(ServiceError) as caught:
        client.server_info()
    assert caught.value.status == "UNAVAILABLE"


@pytest.mark.parametrize("command", ["transcribe", "stream"])
def test_command_line_reaches_a_server_behind_tls(
    proxy: str, certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = str(tmp_path / "a.wav")
    soundfile.write(file, SPEECH, 16_000)
    at_proxy = [command, file, "--server", proxy, "--tls"]
    assert main([*at_proxy, "--ca", str(certificate)]) == 0
    assert capsys.readouterr().out == "one two\n"
    assert main(at_proxy) == 1  # nobody that this machine trusts has signed it
    assert main([*at_proxy, "--ca", str(tmp_path / "missing.pem")]) == 1
    assert "missing.pem" in capsys.readouterr().err
    (tmp_path / "no.pem").write_text("Dear Sir or Madam")
    assert main([*at_proxy, "--ca", str(tmp_path / "no.pem")]) == 1
    assert "no.pem has no certificate" in capsys.readouterr().err


def request_ids(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Of the calls that the server, which is in this process, has had so far."""
    lines = [record for record in caplog.records if (record.name, record.msg) == ("asr.call", "call")]
    return {line.__dict__["fields"]["request_id"] for line in lines}


def test_an_evaluation_reaches_a_server_behind_tls(
    proxy: str,
    certificate: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "asr.call")
    soundfile.write(tmp_path / "a.wav", SPEECH, 16_000)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "one two"}) + "\n")
    report = tmp_path / "report.json"
    at_proxy = ["eval", str(manifest), "--server", proxy, "--tls", "--json", str(report)]
    metadata = ["--metadata", "authorization=Bearer secret", "--metadata", "x-request-id=all-calls"]
    assert main([*at_proxy, "--ca", str(certificate), *metadata]) == 0
    assert "WER   0.00 %" in capsys.readouterr().out
    assert request_ids(caplog) == {"all-calls"}
    assert "secret" not in report.read_text()
    report.unlink()
    assert main(at_proxy) != 0  # nobody that this machine trusts has signed it


def test_a_load_test_reaches_a_server_behind_tls_with_its_token(
    proxy: str,
    certificate: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "asr.call")
    model = make_tiny_bundle(tmp_path / "tiny")
    clip = tone_clip("a", 1, 0.16, 2)
    samples = np.frombuffer(clip.pcm, dtype="<i2")
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    row = {"audio_filepath": "a.wav", "text": clip.reference.text, "duration": clip.duration_s}
    (tmp_path / "set.jsonl").write_text(json.dumps(row) + "\n")
    cache = AlignmentCache(tmp_path / "alignments", bundle_digest(model))
    cache.put((samples / 32768).astype(np.float32), clip.reference.text, clip.words)
    at_proxy = ["bench", "live", str(tmp_path / "set.jsonl"), "--server", proxy, "--tls", "--model", str(model)]
    at_proxy += ["--alignments", str(tmp_path / "alignments"), "--streams", "1", "--seconds", "0.5", "--stagger", "0"]
    report = tmp_path / "report.json"
    options = ["--ca", str(certificate), "--metadata", "authorization=Bearer secret", "--json", str(report)]
    assert main([*at_proxy, *options, "--metadata", "x-request-id=all-calls"]) == 0
    assert "1 held" in capsys.readouterr().out
    assert request_ids(caplog) == {"all-calls"}
    assert "secret" not in report.read_text()
    assert main(at_proxy) == 1  # nobody that this machine trusts has signed it
