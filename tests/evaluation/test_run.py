"""Running a test set: every utterance has an output or a failure, and a run that was killed goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_service.errors import BundleError, ConfigError
from asr_service.evaluation.journal import Journal, references_digest
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.run import Failure, in_order, one_by_one, run
from asr_service.evaluation.shards import over_processes, shard, shard_of
from asr_service.types import Word
from tests.evaluation.counting_system import CountingSystem, references

IDENTITY = {"model_sha256": "abc", "mode": "streaming"}


def test_a_failed_utterance_is_told_and_the_others_are_done() -> None:
    system = CountingSystem(refused=("utt-1",))
    outputs, failures = in_order(references(3), run(references(3), system))
    assert [output.utterance_id for output in outputs] == ["utt-0", "utt-2"]
    assert failures == [Failure("utt-1", "the file is empty (0 bytes)")]


def test_a_reference_that_nothing_came_back_for_has_failed() -> None:
    _, failures = in_order(references(2), one_by_one(CountingSystem(), references(1)))
    assert failures == [Failure("utt-1", "no result came back")]


def test_a_run_in_two_parts_recognises_nothing_twice_and_gives_the_same_bits(tmp_path: Path) -> None:
    calls, path = tmp_path / "calls", tmp_path / "journal"
    system = CountingSystem(calls)
    with Journal(path, IDENTITY) as journal:
        part = run(references(10), system, journal=journal)
        for _ in range(4):
            next(part)
    with Journal(path, IDENTITY) as journal:
        outputs, failures = in_order(references(10), run(references(10), system, journal=journal))
    assert not failures
    assert outputs == list(one_by_one(CountingSystem(), references(10)))
    assert sorted(calls.read_text().split()) == sorted(reference.utterance_id for reference in references(10))


def test_failures_are_tried_again_by_the_next_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", IDENTITY) as journal:
        list(run(references(3), CountingSystem(refused=("utt-1",)), journal=journal))
    with Journal(tmp_path / "journal", IDENTITY) as journal:
        outputs, failures = in_order(references(3), run(references(3), CountingSystem(), journal=journal))
    assert len(outputs) == 3 and not failures


@pytest.mark.parametrize("wrong", ["start_s", "end_s", "confidence"])
def test_an_output_with_a_word_that_is_not_finite_is_a_failure_and_not_in_the_journal(
    tmp_path: Path, wrong: str
) -> None:
    word = dataclasses.replace(Word("w0", 0.0, 1.0, 0.5), **{wrong: math.nan})
    output = Output("utt-0", "w0", (word,))
    with Journal(tmp_path / "journal", IDENTITY) as journal:
        (result,) = run(references(1), CountingSystem(), spread=lambda *_: iter([output]), journal=journal)
    assert result == Failure("utt-0", "a time or a confidence of its output is not finite")
    with Journal(tmp_path / "journal", IDENTITY) as journal:
        assert journal.outputs == {}


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, IDENTITY) as journal:
        done = list(run(references(3), CountingSystem(), journal=journal))
    content = path.read_bytes()
    for cut in (1, 40):
        path.write_bytes(content[:-cut])
        with Journal(path, IDENTITY) as journal:
            assert list(journal.outputs.values()) == done[:2]
            list(run(references(3), CountingSystem(), journal=journal))
        assert path.read_bytes() == content


@pytest.mark.parametrize("left", [b"", b'{"jou', b'{"journal":1,"ident'])
def test_a_header_that_was_cut_off_starts_anew(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(left)
    with Journal(path, IDENTITY) as journal:
        assert journal.outputs == {}
    assert json.loads(path.read_text()) == {"journal": 1, "identity": IDENTITY}


def test_a_journal_of_another_run_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, IDENTITY).close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"mode was streaming, is accurate.*delete it"):
        Journal(path, IDENTITY | {"mode": "accurate"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"notes of mine", b"notes\nof mine\n", b'{"some": "json"}\n', b'["journal"]\n'])
def test_another_file_is_never_taken_for_a_journal_nor_written_to(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no journal"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == content


def test_a_damaged_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, IDENTITY) as journal:
        list(run(references(2), CountingSystem(), journal=journal))
    path.write_bytes(path.read_bytes().replace(b'"text"', b'"tixt"', 1))
    with pytest.raises(ConfigError, match="no output"):
        Journal(path, IDENTITY)


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, IDENTITY).close()
    path.write_bytes(path.read_bytes().replace(b'{"journal":1', b'{"journal":2', 1))
    with pytest.raises(ConfigError, match="is of another run"):
        Journal(path, IDENTITY)


def test_two_runs_cannot_write_one_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", IDENTITY), pytest.raises(ConfigError, match="another run right now"):
        Journal(tmp_path / "journal", IDENTITY)


def test_the_digest_is_of_the_audio_and_knows_no_order_and_no_folder() -> None:
    one = Reference("a", "said", Path("here/a.wav"), 1.0, 2.0)
    other = Reference("b", "said", Path("here/b.wav"))
    digest = references_digest([one, other])
    moved = Reference("a", "corrected", Path("/elsewhere/a.wav"), 1.0, 2.0)
    assert references_digest([other, moved]) == digest
    assert references_digest([one]) != digest
    assert references_digest([Reference("a", "said", Path("here/a.wav"), 1.5, 2.0), other]) != digest
    for part in (
        Reference("a2", "said", Path("here/a.wav"), 1.0, 2.0),
        Reference("a", "said", Path("here/b.wav"), 1.0, 2.0),
        Reference("a", "said", Path("here/a.wav"), 1.0, 2.5),
        Reference("a", "said", Path("here/a.wav"), 1.0, None),
    ):
        assert references_digest([part, other]) != digest


SCRIPT = """
import sys
from pathlib import Path
from asr_service.evaluation.journal import Journal
from asr_service.evaluation.run import in_order, run
from tests.evaluation.counting_system import CountingSystem, references

folder = Path(sys.argv[1])
with Journal(folder / "journal", {"name": "counting"}) as journal:
    system = CountingSystem(folder / "calls", each_s=float(sys.argv[2]))
    outputs, failures = in_order(references(40), run(references(40), system, journal=journal))
print(repr((outputs, failures)))
"""


def test_after_kill_9_in_the_middle_the_same_command_goes_on_to_the_same_result(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]

    def command(folder: Path, each_s: float) -> list[str]:
        folder.mkdir(exist_ok=True)
        return [sys.executable, "-c", SCRIPT, str(folder), str(each_s)]

    killed = subprocess.Popen(command(tmp_path / "killed", 0.02), cwd=root, stdout=subprocess.DEVNULL)
    journal = tmp_path / "killed" / "journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = journal.read_bytes().count(b"\n") - 1
    assert 0 < kept < 40

    resumed, whole = (
        subprocess.run(command(tmp_path / name, 0.0), cwd=root, capture_output=True, text=True, check=True).stdout
        for name in ("killed", "whole")
    )
    assert resumed == whole
    calls = (tmp_path / "killed" / "calls").read_text().split()
    assert len(calls) in (40, 41)  # one may have been recognised and not written


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_hold_every_utterance_once_and_in_order(shards: int) -> None:
    every = references(50)
    parts = shard(every, shards)
    assert sorted((reference for part in parts for reference in part), key=every.index) == every
    assert all(part == sorted(part, key=every.index) for part in parts)
    assert [reference for part in shard(every[::-1], shards) for reference in part[::-1]] == [
        reference for part in parts for reference in part
    ]


def test_the_shard_of_an_utterance_never_changes() -> None:
    assert [shard_of(name, 5) for name in ("a", "b", "librispeech/1673-143396-0000.opus", "ümlaut")] == [
        3,
        3,
        3,
        2,
    ]  # by b2sum


def test_processes_give_the_result_of_one_to_the_last_digit(tmp_path: Path) -> None:
    alone = list(one_by_one(CountingSystem(), references(12)))
    system = CountingSystem(tmp_path / "calls")
    outputs, failures = in_order(references(12), run(references(12), system, spread=over_processes(3)))
    assert outputs == alone and not failures
    assert len((tmp_path / "calls").read_text().split()) == 12


@pytest.mark.parametrize("how", ["fatal", "torn"])
def test_a_process_that_dies_is_told_for_each_utterance_it_had_left_and_the_others_go_on(how: str) -> None:
    every = references(12)
    dead = [reference.utterance_id for reference in every if shard_of(reference.utterance_id, 2) == 0]
    system = CountingSystem(**{how: (dead[1],)})  # type: ignore[arg-type]
    outputs, failures = in_order(every, run(every, system, spread=over_processes(2)))
    assert [failure.utterance_id for failure in failures] == dead[1:]
    assert all("exit code -9" in failure.message for failure in failures)
    assert len(outputs) == 12 - len(failures)


def test_a_system_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        list(run(references(2), CountingSystem(broken=True)))
    with pytest.raises(Exception, match="no such model"):
        list(run(references(2), CountingSystem(broken=True), spread=over_processes(2)))


@pytest.mark.slow
def test_ray_gives_the_result_of_one_process_to_the_last_digit() -> None:
    pytest.importorskip("ray")
    from asr_service.evaluation.ray_cluster import over_cluster

    every = references(12)
    system = CountingSystem(refused=("utt-5",))
    outputs, failures = in_order(every, run(every, system, spread=over_cluster(2)))
    alone, failed = in_order(every, one_by_one(system, every))
    assert (outputs, failures) == (alone, failed)
    assert all(isinstance(output, Output) for output in outputs)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_service.evaluation.ray_cluster import over_cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'asr-service\[ray\]'"):
        over_cluster(2)


def test_the_environment_is_as_it_was_after_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert len(list(over_processes(1)(CountingSystem(), references(1)))) == 1
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OMP_WAIT_POLICY" not in os.environ
