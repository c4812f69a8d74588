"""Manifests, the store of decoded audio, and batches by seconds."""

from __future__ import annotations

import fcntl
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import Corpus
from training import data
from training.data import MAX_PADDING, PcmStore, Utterance, batches_by_seconds, decode, epoch_batches, read_manifest

DURATIONS = st.lists(st.floats(0.1, 30.0), min_size=1, max_size=60)


@given(durations=DURATIONS, shuffle=st.booleans(), seed=st.integers(0, 99))
def test_no_padded_batch_is_longer_than_asked_unless_one_utterance_is(
    durations: list[float], shuffle: bool, seed: int
) -> None:
    batches = batches_by_seconds(
        durations, range(len(durations)), batch_s=40.0, rng=random.Random(seed), shuffle=shuffle
    )
    assert sorted(index for batch in batches for index in batch) == list(range(len(durations)))
    for batch in batches:
        assert len(batch) == 1 or max(durations[i] for i in batch) * len(batch) <= 40.0


@given(durations=DURATIONS)
def test_without_shuffling_the_shortest_come_first(durations: list[float]) -> None:
    batches = batches_by_seconds(durations, range(len(durations)), batch_s=40.0, rng=random.Random(0), shuffle=False)
    order = [durations[index] for batch in batches for index in batch]
    assert order == sorted(durations)


def epoch(seed: int, number: int) -> list[list[int]]:
    rng = random.Random(4)
    durations = [rng.uniform(1, 15) for _ in range(200)]
    return list(epoch_batches(durations, range(200), batch_s=60.0, seed=seed, epoch=number, shortest_first=False))


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    assert epoch(1, 3) == epoch(1, 3)
    assert epoch(1, 3) != epoch(1, 4)
    assert epoch(1, 3) != epoch(2, 3)


def test_a_store_gives_back_what_was_decoded(corpus: Corpus) -> None:
    assert len(corpus.store) == len(corpus.utterances)
    for index, utterance in enumerate(corpus.utterances):
        expected, _ = soundfile.read(utterance.path, dtype="float32")
        np.testing.assert_array_equal(corpus.store[index] / 32768.0, expected)


def test_a_store_larger_than_memory_is_mapped_and_nobody_can_change_it(tmp_path: Path) -> None:
    (utterance,) = utterances = recordings(tmp_path, "a")
    soundfile.write(utterance.path, np.full(1_600, 0.25), 16_000)
    store = PcmStore.build(utterances, tmp_path / "store", workers=1)
    with pytest.raises(ValueError, match="read-only"):
        store[0][0] = 1
    # Sparse: it takes no room on the disk.
    size = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    os.truncate(store.folder / data.SAMPLES_FILE, size)
    samples = PcmStore(store.folder).samples(torch.device("cpu"))
    assert samples.shape == (size // 2,)
    assert samples[1_598:1_602].tolist() == [8_192, 8_192, 0, 0]


def test_what_is_decoded_before_it_can_be_written_is_bounded(tmp_path: Path) -> None:
    asked: list[str] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, function: Callable[..., Any], part: Sequence[Utterance]) -> Future[Any]:
            asked.extend(utterance.text for utterance in part)
            return super().submit(function, part)

    names = [str(number) for number in range(500)]
    with Pool(1) as pool:
        decoded = data._decoded(pool, recordings(tmp_path, *names), 1)
        first = next(decoded)
        assert len(asked) == data.TASKS_PER_WORKER * data.TASK_UTTERANCES < 100
        found = [first, *decoded]
    assert asked == names
    for name, reason in zip(names, found, strict=True):
        assert isinstance(reason, str) and f"/{name}.wav" in reason


def test_samples_beyond_full_scale_are_cut(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.25]), 16_000, subtype="FLOAT")
    assert decode(Utterance(tmp_path / "a.wav", 0.1, "a", "", "")).tolist() == [32767, -32768, 8192]


def test_a_store_resamples_and_mixes(tmp_path: Path) -> None:
    stereo = np.stack([np.full(8_000, 0.5), np.full(8_000, 0.1)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 8_000)
    store = PcmStore.build([Utterance(tmp_path / "a.wav", 1.0, "a", "", "")], tmp_path / "store", workers=1)
    assert len(store[0]) == pytest.approx(16_000, abs=2)
    assert np.median(store[0]) / 32767 == pytest.approx(0.3, abs=0.01)


def test_channels_that_cancel_each_other_are_heard_as_the_server_hears_them(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([0.5 * loud, -0.5 * loud], axis=1), 16_000, subtype="FLOAT")
    samples = decode(Utterance(tmp_path / "a.wav", 1.0, "a", "", ""))
    np.testing.assert_allclose(samples / 32768.0, 0.5 * loud, atol=1e-4)


def test_a_store_is_built_again_for_other_files(tmp_path: Path) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(1_600 if name == "a" else 3_200), 16_000)

    def lengths(*names: str) -> list[int]:
        utterances = [Utterance(tmp_path / f"{name}.wav", 0.1, name, "", "") for name in names]
        store = PcmStore.build(utterances, tmp_path / "store", workers=1)
        return [len(store[index]) for index in range(len(store))]

    assert lengths("a") == [1_600]
    assert lengths("a", "b") == [1_600, 3_200]
    assert lengths("b") == [3_200]


def test_a_manifest_is_read_with_normalised_text(tmp_path: Path) -> None:
    row = {"audio_filepath": "a/1.opus", "duration": 2.5, "text": "It's TIME, now.", "speaker": "s", "corpus": "one"}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert read_manifest(path) == [
        Utterance(tmp_path / "a/1.opus", 2.5, "it's time now", "s", "one", written="It's TIME, now.")
    ]


def test_an_utterance_with_an_offset_is_that_part_of_its_file(tmp_path: Path) -> None:
    samples = np.linspace(-0.9, 0.9, 4 * 16_000)
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    rows = [
        {"audio_filepath": "long.wav", "duration": 0.5, "offset": 1.25, "text": "one"},
        {"audio_filepath": "long.wav", "duration": 1.0, "offset": 3.5, "text": "two"},
        {"audio_filepath": "long.wav", "duration": 1.0, "offset": 9.0, "text": "three"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PcmStore.build(read_manifest(path), tmp_path / "store", workers=1)
    np.testing.assert_allclose(store[0] / 32767.0, samples[20_000:28_000], atol=1e-4)
    np.testing.assert_allclose(store[1] / 32767.0, samples[56_000:], atol=1e-4)
    assert store.skipped == {2: "no samples"}


def test_parts_late_in_a_long_recording_have_sources_of_their_own() -> None:
    parts = [Utterance(Path("long.wav"), 1.5, "one", "", "", begin) for begin in (1.25, 12_345.67, 12_345.69)]
    assert [part.source for part in parts] == ["long.wav@1.25+1.5", "long.wav@12345.67+1.5", "long.wav@12345.69+1.5"]


def test_every_wrong_line_of_a_manifest_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [
        '{"audio_filepath": "a", "duration": 1, "text": "a"}',
        '{"audio_filepath": "b", "text": "b"}',
        '{"duration": 1, "text": "c"}',
        '{"audio_filepath": "d", "duration": "one"}',
        '{"audio_filepath": "e", "duration": 1, "offset": -1}',
        '{"audio_filepath": "f", "duration": 1, "text": ["f"]}',
        '{"audio_filepath": "g"',
        "7",
    ]
    path.write_text("\n".join(lines))
    expected = [
        ":2: no duration",
        ":3: no audio_filepath",
        ":4: duration is 'one', not a number of seconds",
        ":5: offset is -1, not a number of seconds",
        ":6: text is not a text",
        ":7: not JSON",
        ":8: not a JSON object",
    ]
    with pytest.raises(ValueError, match="no duration") as raised:
        read_manifest(path)
    named = str(raised.value).splitlines()
    assert [line.startswith(f"{path}{start}") for line, start in zip(named, expected, strict=True)] == [True] * 7


def test_empty_lines_are_none_and_a_text_of_null_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"audio_filepath": "a", "duration": 1, "text": null}\n\n')
    assert read_manifest(path) == [Utterance(tmp_path / "a", 1.0, "", "", "")]


@given(durations=DURATIONS, seed=st.integers(0, 99), shuffle=st.booleans())
def test_padding_is_a_bounded_share_of_a_batch(durations: list[float], seed: int, shuffle: bool) -> None:
    batches = batches_by_seconds(
        durations, range(len(durations)), batch_s=40.0, rng=random.Random(seed), shuffle=shuffle
    )
    for batch in batches:
        chosen = [durations[index] for index in batch]
        assert sum(chosen) >= (1.0 - MAX_PADDING) * max(chosen) * len(chosen) - 1e-9


def test_a_store_built_anew_leaves_the_samples_of_a_running_reader_alone(tmp_path: Path) -> None:
    for name, level in (("a", 0.1), ("b", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(1_600, level), 16_000)
    utterances = [Utterance(tmp_path / f"{name}.wav", 0.1, name, "", "") for name in "ab"]
    reader = PcmStore.build(utterances[:1], tmp_path / "store", workers=1)
    before = reader[0].copy()
    PcmStore.build(utterances[1:], tmp_path / "store", workers=1)
    np.testing.assert_array_equal(reader[0], before)


def recordings(folder: Path, *names: str) -> list[Utterance]:
    return [Utterance(folder / f"{name}.wav", 0.1, name, "", "") for name in names]


def test_a_recording_that_was_missing_is_decoded_when_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = recordings(tmp_path, "a", "b")
    soundfile.write(utterances[1].path, np.zeros(1_600), 16_000)
    assert [*PcmStore.build(utterances, tmp_path / "store", workers=1).skipped] == [0]
    assert "a.wav: cannot be read" in capsys.readouterr().out
    soundfile.write(utterances[0].path, np.zeros(3_200), 16_000)
    store = PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert store.skipped == {}
    assert [len(store[0]), len(store[1])] == [3_200, 1_600]


@pytest.mark.parametrize("length", [1_600, 3_200])
def test_a_recording_replaced_at_its_path_is_decoded_again(tmp_path: Path, length: int) -> None:
    """Also by one of the same size, which only the time of change tells."""
    utterances = recordings(tmp_path, "a", "b")
    for utterance in utterances:
        soundfile.write(utterance.path, np.zeros(1_600), 16_000)
    PcmStore.build(utterances, tmp_path / "store", workers=1)
    before = utterances[1].path.stat().st_mtime_ns
    soundfile.write(utterances[1].path, np.full(length, 0.5), 16_000)
    os.utime(utterances[1].path, ns=(before + 1, before + 1))
    store = PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert (len(store[1]), int(store[1][0])) == (length, 16_384)
    assert store.sources == [utterance.source for utterance in utterances]


def test_a_recording_replaced_while_it_is_decoded_is_decoded_again_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (utterance,) = utterances = recordings(tmp_path, "a")
    soundfile.write(utterance.path, np.zeros(1_600), 16_000)
    save = np.save

    def replace_and_save(*given: Any) -> None:
        soundfile.write(utterance.path, np.zeros(3_200), 16_000)
        save(*given)

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", replace_and_save)
        PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert len(PcmStore.build(utterances, tmp_path / "store", workers=1)[0]) == 3_200


def test_what_can_never_be_decoded_does_not_cost_a_second_decoding(tmp_path: Path) -> None:
    utterances = recordings(tmp_path, "a", "b")
    soundfile.write(utterances[1].path, np.zeros(1_600), 16_000)
    PcmStore.build(utterances, tmp_path / "store", workers=1)
    built = (tmp_path / "store" / "samples.i16").stat().st_ino
    PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert (tmp_path / "store" / "samples.i16").stat().st_ino == built


def test_a_store_of_nothing_is_refused_with_the_reason_and_the_old_one_stays(tmp_path: Path) -> None:
    here, gone = recordings(tmp_path, "here"), recordings(tmp_path, "a", "b")
    soundfile.write(here[0].path, np.zeros(1_600), 16_000)
    PcmStore.build(here, tmp_path / "store", workers=1)
    before = {path: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    with pytest.raises(ValueError, match=r"store: none of 2 recordings can be decoded; the first, .*a\.wav: cannot be"):
        PcmStore.build(gone, tmp_path / "store", workers=1)
    assert {path: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
    with pytest.raises(ValueError, match="none of 0 recordings"):
        PcmStore.build([], tmp_path / "store", workers=1)


def test_a_second_run_waits_for_the_one_that_decodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    utterances = recordings(tmp_path, "a")
    soundfile.write(utterances[0].path, np.zeros(1_600), 16_000)
    store = tmp_path / "store"
    store.mkdir()
    with ProcessPoolExecutor(1) as pool, (store / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        second = pool.submit(PcmStore.build, utterances, store, workers=1)
        deadline = time.monotonic() + 30
        while "waiting for another run" not in capfd.readouterr().out:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [path.name for path in store.iterdir()] == ["lock"]
        fcntl.lockf(lock, fcntl.LOCK_UN)
        assert len(second.result(30)[0]) == 1_600


def test_decoding_uses_the_cores_that_the_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utterances = recordings(tmp_path, "a")
    soundfile.write(utterances[0].path, np.zeros(1_600), 16_000)
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: object) -> None:
            asked.append(workers)
            super().__init__(1)

    monkeypatch.setattr(data, "ProcessPoolExecutor", Pool)
    PcmStore.build(utterances, tmp_path / "store")
    assert asked == [len(os.sched_getaffinity(0))]


def test_parts_of_a_recording_that_lie_elsewhere_by_now_are_decoded_again(tmp_path: Path) -> None:
    samples = np.linspace(-0.9, 0.9, 16_000)
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    for first in (0, 8_000):
        part = Utterance(tmp_path / "long.wav", 0.1, "one", "", "", offset_s=first / 16_000)
        store = PcmStore.build([part], tmp_path / "store", workers=1)
        np.testing.assert_allclose(store[0] / 32767.0, samples[first : first + 1_600], atol=1e-4)


def test_a_store_that_was_being_replaced_when_its_process_was_killed_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances = recordings(tmp_path, "a", "b")
    for utterance, level in zip(utterances, (0.25, 0.5), strict=True):
        soundfile.write(utterance.path, np.full(1_600, level), 16_000)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    PcmStore.build(utterances, tmp_path / "store", workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            PcmStore.build(utterances[::-1], tmp_path / "store", workers=1)
    store = PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert [round(float(store[index].mean()) / 32768, 2) for index in range(2)] == [0.25, 0.5]


@pytest.mark.parametrize("name", ["two\nlines", "a\rb", 'q"uoted', "tab\tbed", "back\\nslash"])
def test_a_name_that_no_line_can_hold_is_that_of_its_own_samples(tmp_path: Path, name: str) -> None:
    utterances = recordings(tmp_path, name, "last")
    for utterance, length in zip(utterances, (1_600, 3_200), strict=True):
        soundfile.write(utterance.path, np.zeros(length), 16_000)
    store = PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert store.sources == [utterance.source for utterance in utterances]
    assert store.recordings == [data.recording(utterance) for utterance in utterances]
    built = (tmp_path / "store" / "samples.i16").stat().st_ino
    PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert (tmp_path / "store" / "samples.i16").stat().st_ino == built, "it is complete"


def test_a_name_that_begins_with_a_quotation_mark_is_not_taken_for_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    utterances = recordings(Path(), '"a', "b")
    for utterance in utterances:
        soundfile.write(utterance.path, np.zeros(1_600), 16_000)
    assert PcmStore.build(utterances, Path("store"), workers=1).sources == ['"a.wav', "b.wav"]


def test_a_listing_of_ordinary_names_is_a_line_each_so_that_a_store_stays_what_it_is(tmp_path: Path) -> None:
    utterances = recordings(tmp_path, "a", "b c")
    for utterance in utterances:
        soundfile.write(utterance.path, np.zeros(1_600), 16_000)
    PcmStore.build(utterances, tmp_path / "store", workers=1)
    assert (tmp_path / "store" / "files.txt").read_text() == "\n".join(map(data.recording, utterances))
