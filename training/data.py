"""Manifests, the decoded-audio store, and batches by seconds.

A manifest is JSON lines in NeMo's fields: `audio_filepath` (relative to the manifest's folder), `duration` (s), `text`,
`offset` (s) where the utterance is a part of the file, and here also `speaker` and `corpus`. Audio is decoded once into
one int16 file, so an epoch costs no decoding.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack
from tqdm import tqdm

from asr_service.audio.mix import Mixer
from asr_service.evaluation.normalizer import normalize_transcript
from asr_service.evaluation.references.rows import Row, text_field
from asr_service.evaluation.references.text import seconds
from asr_service.parent_process import end_with_parent
from training.manifest import corpus_and_text, read_rows
from training.spoken import as_said

SAMPLE_RATE_HZ = 16_000
SPEECH_DIR_VARIABLE = "ASR_SPEECH_DIR"
LISTING_FILE = "files.txt"
SAMPLES_FILE = "samples.i16"
OFFSETS_FILE = "offsets.npy"
SKIPPED_FILE = "skipped.json"
# Share of a batch that may be padding.
MAX_PADDING = 0.2
# Share of a GPU's free memory that samples may take: the rest is for training.
MAX_GPU_SHARE = 0.5
# What a decoding process is given at once, and how much of that may be under way or waiting to be written.
TASK_UTTERANCES = 8
TASKS_PER_WORKER = 8
# What stands in a line of LISTING_FILE as JSON: names that no line can hold, and those that would be read as JSON.
_QUOTED = re.compile(r'^"|[\r\n\ud800-\udfff]')


def speech_dir() -> Path:
    """The corpora's folder: `ASR_SPEECH_DIR`, by default `../shared/speech` beside the repository."""
    return Path(os.environ.get(SPEECH_DIR_VARIABLE, Path(__file__).parents[2] / "shared" / "speech")).resolve()


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a manifest.

    Attributes:
        text: normalised, as it is said: what a model learns and what it is measured against.
        offset_s: where it begins in its file; None: it is the file.
        written: the text as it stands in the manifest.
    """

    path: Path
    duration_s: float
    text: str
    speaker: str
    corpus: str
    offset_s: float | None = None
    written: str = ""

    @property
    def source(self) -> str:
        """Which audio it is: no two utterances of a manifest share it."""
        return str(self.path) if self.offset_s is None else f"{self.path}@{self.offset_s:.10g}+{self.duration_s:g}"


def read_manifest(path: Path) -> list[Utterance]:
    """Read a manifest; raises ValueError naming each line that lacks a field or has a wrong one, and the field."""
    return read_rows(path, lambda row: _utterance(row, path.parent))


def _utterance(row: Row, folder: Path) -> Utterance:
    """Raises ValueError, which names the field."""
    corpus, text = corpus_and_text(row)
    if not (name := text_field(row, ("audio_filepath",))):
        raise ValueError("no audio_filepath")
    if row.get("duration") is None:
        raise ValueError("no duration")
    return Utterance(
        path=folder / name,
        duration_s=seconds(row["duration"], "duration"),
        text=as_said(normalize_transcript(text)),
        speaker=text_field(row, ("speaker",)),
        corpus=corpus,
        offset_s=None if row.get("offset") is None else seconds(row["offset"], "offset"),
        written=text,
    )


def read_waveform(path: Path, part_s: tuple[float, float] | None) -> NDArray[np.float32]:
    """(N,) samples of a file at 16 kHz in [-1, 1], channels mixed as the server mixes them: of all of it, or of a part
    that is given by its begin and its length. Raises ValueError, which does not name the file, for what nothing can be
    learned from.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, -1
            if part_s is not None:
                offset_s, duration_s = part_s
                file.seek(min(round(offset_s * rate), file.frames))
                frames = round(duration_s * rate)
            pcm = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    if not len(pcm):
        raise ValueError("no samples")
    if not np.isfinite(pcm).all():
        raise ValueError("samples that are not finite (NaN or infinite)")
    mixer = Mixer(rate, pcm.shape[1])
    mono = np.concatenate([mixer.push(pcm), mixer.flush()])
    return mono if rate == SAMPLE_RATE_HZ else soxr.resample(mono, rate, SAMPLE_RATE_HZ)


def decode(utterance: Utterance) -> NDArray[np.int16]:
    """(N,) samples at 16 kHz; raises ValueError as `read_waveform` does."""
    part_s = None if utterance.offset_s is None else (utterance.offset_s, utterance.duration_s)
    mono = read_waveform(utterance.path, part_s)
    samples: NDArray[np.int16] = np.rint(mono * 32768.0).clip(-32768, 32767).astype(np.int16)
    return samples


def _decode_or_reason(utterance: Utterance) -> NDArray[np.int16] | str:
    try:
        return decode(utterance)
    except ValueError as error:
        return str(error)


def _decode_some(utterances: Sequence[Utterance]) -> list[NDArray[np.int16] | str]:
    return [_decode_or_reason(utterance) for utterance in utterances]


class PcmStore:
    """All utterances' samples in one int16 file, memory-mapped: `store[i]` is utterance i, shape (N,), read-only.

    Attributes:
        sources: of the recordings, in order.
        recordings: the same with size and time of their files, which say what was decoded.
        skipped: why there are no samples of an utterance, by its number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        skipped = folder / SKIPPED_FILE
        reasons = json.loads(skipped.read_text()) if skipped.exists() else {}
        self.skipped: dict[int, str] = {int(index): reason for index, reason in reasons.items()}
        lines = (folder / LISTING_FILE).read_text(encoding="utf-8").split("\n")
        self.recordings = [json.loads(line) if line.startswith('"') else line for line in lines]
        self.sources = [line.rsplit("\t", 2)[0] for line in self.recordings]
        self.offsets: NDArray[np.int64] = np.load(folder / OFFSETS_FILE)
        # Not copy on write: Linux refuses a private mapping larger than memory.
        self._samples: NDArray[np.int16] = np.memmap(folder / SAMPLES_FILE, dtype=np.int16, mode="r")

    def __reduce__(self) -> tuple[type[PcmStore], tuple[Path]]:
        """Another process opens the same file."""
        return PcmStore, (self.folder,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int16]:
        start, end = self.extent(index)
        return self._samples[start:end]

    def extent(self, index: int) -> tuple[int, int]:
        """Where utterance `index` begins and ends in `samples`."""
        return int(self.offsets[index]), int(self.offsets[index + 1])

    def samples(self, device: torch.device) -> torch.Tensor:
        """All samples in one int16 row: a copy on the GPU if it has room for that, else the mapped file itself, which
        nobody may write into.
        """
        # Not from_numpy, which warns of memory that is read-only.
        samples = from_dlpack(self._samples)
        if device.type == "cuda" and samples.nbytes > MAX_GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return samples
        return samples.to(device)

    @staticmethod
    def build(utterances: Sequence[Utterance], folder: Path, *, workers: int | None = None) -> PcmStore:
        """Decode `utterances` in order into `folder`, or open what an earlier run left there for the same files: those
        of the same path, size and time of change.

        Recordings that cannot be decoded have no samples in it; they are printed with the reason, each time, and when
        one of them can be decoded after all, everything is decoded again. A second run waits for the first. `workers`
        are processes, by default one for each core that this one may use. Raises ValueError when no recording can be
        decoded.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            # Before decoding: what is replaced meanwhile is decoded again the next time.
            recordings = map(recording, utterances)
            listing = "\n".join(json.dumps(each) if _QUOTED.search(each) else each for each in recordings)
            if not _is_complete(utterances, listing, folder):
                _decode_all(utterances, listing, folder, workers or _cores())
            store = PcmStore(folder)
        for index, reason in store.skipped.items():
            print(f"{store.sources[index]}: {reason}; left out")
        return store


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is inside, whatever runs it belongs to."""
    with (folder / "lock").open("w") as file:
        # Not flock: decoding processes would inherit it, and hold it after this one was killed.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print(f"{folder}: waiting for another run that decodes there", flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def recording(utterance: Utterance) -> str:
    """Its source, and its file's size in bytes and time of change in ns: a file replaced at its path has others."""
    try:
        status = utterance.path.stat()
    except OSError:
        return f"{utterance.source}\t-\t-"
    return f"{utterance.source}\t{status.st_size}\t{status.st_mtime_ns}"


def _is_complete(utterances: Sequence[Utterance], listing: str, folder: Path) -> bool:
    """Whether `folder` holds all of the utterances that can be decoded."""
    marker = folder / LISTING_FILE
    if not marker.exists() or marker.read_text(encoding="utf-8") != listing:
        return False
    return all(isinstance(_decode_or_reason(utterances[index]), str) for index in PcmStore(folder).skipped)


def _decoded(pool: Executor, utterances: Sequence[Utterance], workers: int) -> Iterator[NDArray[np.int16] | str]:
    """Each utterance's samples, or why there are none, in order. What is decoded before it can be written is bounded:
    `map` would keep a whole corpus where the disk is slower than the decoders.
    """
    running: deque[Future[list[NDArray[np.int16] | str]]] = deque()
    for begin in range(0, len(utterances), TASK_UTTERANCES):
        running.append(pool.submit(_decode_some, utterances[begin : begin + TASK_UTTERANCES]))
        if len(running) == TASKS_PER_WORKER * workers:
            yield from running.popleft().result()
    while running:
        yield from running.popleft().result()


def _decode_all(utterances: Sequence[Utterance], listing: str, folder: Path, workers: int) -> None:
    """Write the files of a store. Raises ValueError, and leaves those that are there, when nothing can be decoded."""
    lengths, skipped = [0], {}
    # Beside the old file, not into it: a run may have it mapped.
    partial = folder / "samples.partial"
    try:
        with partial.open("wb") as file, ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
            decoded = _decoded(pool, utterances, workers)
            for index, pcm in enumerate(tqdm(decoded, total=len(utterances), desc="decoding")):
                if isinstance(pcm, str):
                    skipped[index] = pcm
                else:
                    file.write(pcm.tobytes())
                lengths.append(0 if isinstance(pcm, str) else len(pcm))
        if len(skipped) == len(utterances):
            first = f"; the first, {utterances[0].source}: {skipped[0]}" if skipped else ""
            raise ValueError(f"{folder}: none of {len(utterances)} recordings can be decoded{first}")
        (folder / LISTING_FILE).unlink(missing_ok=True)
        partial.replace(folder / SAMPLES_FILE)
    finally:
        partial.unlink(missing_ok=True)
    np.save(folder / OFFSETS_FILE, np.cumsum(lengths, dtype=np.int64))
    (folder / SKIPPED_FILE).write_text(json.dumps(skipped))
    (folder / LISTING_FILE).write_text(listing, encoding="utf-8")  # last, so that an interrupted build is built again


def batches_by_seconds(
    durations_s: Sequence[float], indices: Sequence[int], *, batch_s: float, rng: random.Random, shuffle: bool = True
) -> list[list[int]]:
    """Group utterances of similar duration: a padded batch holds at most `batch_s` seconds, or one utterance.

    A batch ends sooner where more than `MAX_PADDING` of it would be padding. With `shuffle`, durations are jittered by
    10 % before sorting, so that batches differ between epochs, and batches come in random order; without it they come
    shortest first (a curriculum for the first epoch).
    """
    jitter = 0.1 if shuffle else 0.0
    order = sorted(indices, key=lambda i: durations_s[i] * (1.0 + jitter * (rng.random() - 0.5)))
    batches: list[list[int]] = []
    current: list[int] = []
    longest = total = 0.0
    for index in order:
        duration = durations_s[index]
        padded = max(longest, duration) * (len(current) + 1)
        if current and (padded > batch_s or total + duration < (1.0 - MAX_PADDING) * padded):
            batches.append(current)
            current, longest, total = [], 0.0, 0.0
        longest, total = max(longest, duration), total + duration
        current.append(index)
    if current:
        batches.append(current)
    if shuffle:
        rng.shuffle(batches)
    return batches


def epoch_batches(
    durations_s: Sequence[float], indices: Sequence[int], *, batch_s: float, seed: int, epoch: int, shortest_first: bool
) -> Iterator[list[int]]:
    """The batches of one epoch: a function of (seed, epoch) alone, so that a resumed run sees what it would have."""
    rng = random.Random(f"{seed}/{epoch}")
    yield from batches_by_seconds(durations_s, indices, batch_s=batch_s, rng=rng, shuffle=not shortest_first)
