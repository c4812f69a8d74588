"""`asr demo`: a real server process, the clip as it ships, and figures that come from counting."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from asr_service.cli import build_parser, main
from asr_service.commands.demo import CLIP, REFERENCE, print_errors
from asr_service.commands.serve import run_workers
from asr_service.commands.server_process import ServerProcess
from asr_service.config import ServerSettings
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR


def test_the_clip_is_short_mono_and_small() -> None:
    info = soundfile.info(CLIP)
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert 5 < info.duration < 12
    assert CLIP.stat().st_size < 400_000


def test_no_sentence_of_the_clip_is_in_the_training_texts(speech_dir: Path) -> None:
    sentences = [sentence.strip().lower() for sentence in re.split(r"[.,]", REFERENCE.read_text()) if sentence.strip()]
    assert len(sentences) == 3
    for manifest in ("train.jsonl", "dev.jsonl"):
        texts = (speech_dir / manifest).read_text(encoding="utf-8").lower()
        assert [sentence for sentence in sentences if sentence in texts] == []


def test_the_word_error_rate_is_counted_and_not_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    print_errors("They carried it home.", "they carry it back home")
    out = capsys.readouterr().out
    assert "reference:        they carried it home\n" in out
    assert "50.0 % (1 substituted, 0 deleted, 1 inserted, of 4 words" in out


def test_a_server_that_does_not_start_is_reported_with_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--model", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "the server did not start" in error
    assert "config.json" in error


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process is told that its parent has ended")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_command_that_started_it(number: signal.Signals) -> None:
    serving = json.dumps({"message": "serving", "port": 1, "model": "none"})
    server = f"import sys, time; print({serving!r}, file=sys.stderr, flush=True); time.sleep(100)"
    command = (
        "import sys, time; from asr_service.commands.server_process import ServerProcess\n"
        f"process = ServerProcess(None); process._command = [sys.executable, '-c', {server!r}]\n"
        "with process: print('ready', flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        started.send_signal(number)
        # The server has this output, too: it ends when both have.
        assert started.communicate(timeout=60) == ("", None)


def test_modules_in_the_current_folder_are_not_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argparse", "asr_service", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for another')\n")
    monkeypatch.chdir(tmp_path)
    commands = [ServerProcess(None)._command]
    workers = SimpleNamespace(run=lambda: 0)
    monkeypatch.setattr(
        "asr_service.server.workers.Workers", lambda command, *_, **__: commands.append(command) or workers
    )
    run_workers(build_parser().parse_args(["serve", "--workers", "2"]), ServerSettings(address="127.0.0.1:0"))
    for command in commands:
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_recording_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "none.wav")]) == 1
    assert "none.wav: No such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_shows_partials_a_final_and_its_figures() -> None:
    if not (SHIPPED_DIR / DEFAULT_MODEL).is_dir():
        pytest.skip("no model in the package")
    done = subprocess.run(
        [sys.executable, "-m", "asr_service.cli", "demo"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    partials = [line for line in done.stdout.splitlines() if line.startswith("... ")]
    assert len(partials) > 3
    for name in ("final", "reference", "word error rate", "latency", "real-time factor"):
        assert re.search(rf"^{name}: +\S", done.stdout, flags=re.MULTILINE), name
    assert "stopped with exit code 0" in done.stdout
