"""How far a recogniser's word times are off: of a manifest's clips, and of synthesised speech with known times.

    python -m benchmarks.word_times ../shared/speech/dev.jsonl --every 20 [--mode accurate balanced low]

A manifest's words are placed by forced alignment of the reference with the whole clip in view: what a live stream loses
by seeing less shows against it. That alignment comes from the model itself, so its own bias shows only against speech
whose times are known: espeak-ng (where it is installed) speaks the same texts and says when each phone begins. Only
words that were recognised count. `bias` is the mean of recognised minus true: below 0 is early.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from asr_service.config import LATENCIES, EngineSettings, Settings
from asr_service.evaluation.alignment import align
from asr_service.evaluation.forced_alignment import ForcedAligner, SpokenWord
from asr_service.evaluation.in_process import BundleSystem, InProcess
from asr_service.evaluation.normalizer import normalize_transcript
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from asr_service.evaluation.waveform import read_waveform
from asr_service.types import Mode
from benchmarks.espeak import Espeak

RATE_HZ = 16_000
MODES = ("offline", *LATENCIES)
Recogniser = Callable[[Reference], Sequence[SpokenWord]]


class Errors:
    """Start and end errors, in seconds, of the words of one recogniser that were recognised."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.words = self.clips = self.misplaced = 0
        self.cpu_s = 0.0

    def add(self, truth: Sequence[SpokenWord], found: Sequence[SpokenWord], length_s: float) -> None:
        (operations,) = align([([word.text for word in truth], [word.text for word in found])])
        said, heard = iter(truth), iter(found)
        for operation in operations:
            true = next(said) if operation != "I" else None
            own = next(heard) if operation != "D" else None
            if operation == "C" and true is not None and own is not None and not math.isnan(true.start_s):
                self.starts.append(own.start_s - true.start_s)
                self.ends.append(own.end_s - true.end_s)
        self.words += len(truth)
        self.clips += 1
        self.misplaced += misplaced(found, length_s)

    def line(self, name: str) -> str:
        if not self.starts:
            return f"{name:28}  no word of {self.words} was recognised"
        columns = [
            f"{where} mean {1000 * np.abs(errors).mean():4.0f}  median {1000 * np.median(np.abs(errors)):4.0f}  "
            f"p95 {1000 * np.quantile(np.abs(errors), 0.95):4.0f}  bias {1000 * np.mean(errors):+4.0f} ms"
            for where, errors in (("start", self.starts), ("end", self.ends))
        ]
        counts = f"{len(self.starts)} of {self.words} words, {self.clips} clips, {self.misplaced} misplaced"
        return f"{name:28}  {'   '.join(columns)}   {counts}, {self.cpu_s:.0f} s CPU"


def misplaced(words: Sequence[SpokenWord], length_s: float) -> int:
    """Words that end before they begin, begin before the word before them has ended, or lie outside of the clip."""
    reached_s, wrong = 0.0, 0
    for word in words:
        wrong += not reached_s - 1e-6 <= word.start_s < word.end_s <= length_s + 1e-6
        reached_s = word.end_s
    return wrong


def recognisers(modes: Sequence[str], model: Path | None, stack: ExitStack) -> Iterator[tuple[str, Recogniser]]:
    """The forced aligner, which is told the words, and the modes, which are not."""
    aligner = ForcedAligner(BundleSystem(model_dir=model).load())
    yield "forced alignment", lambda clip: aligner(read_waveform(clip, Settings()), clip.text)
    for mode in modes:
        engine = EngineSettings(latency="balanced" if mode == "offline" else mode)
        system = BundleSystem(
            mode=Mode.ACCURATE if mode == "offline" else Mode.STREAMING,
            model_dir=model,
            settings=dataclasses.replace(Settings(), engine=engine),
        )
        opened = stack.enter_context(system.open())

        yield (mode if mode == "offline" else f"live, {mode}"), functools.partial(recognised, opened)


def recognised(system: InProcess, clip: Reference) -> list[SpokenWord]:
    return [SpokenWord(word.text.lower(), word.start_s, word.end_s) for word in system.recognise(clip).words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=int, default=1, help="only every Nth utterance")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES, help="offline is the mode `accurate`")
    parser.add_argument("--model", type=Path, help="bundle directory (default: the shipped model)")
    arguments = parser.parse_args()
    references = read_references(arguments.manifest, corpora=arguments.corpus)[:: arguments.every]
    with ExitStack() as stack:
        all_recognisers = list(recognisers(arguments.mode, arguments.model, stack))
        truths = [all_recognisers[0][1](reference) for reference in tqdm(references, "alignment", mininterval=5)]
        print("against forced alignment of the reference by the offline model")
        report(references, truths, all_recognisers[1:])
        if not Espeak.installed():
            print("espeak-ng is not installed: no synthesised speech")
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spoken: list[Reference] = []
        truths = []
        for reference in references:
            pcm, words = Espeak().say(normalize_transcript(reference.text))
            path = folder / f"{len(spoken)}.wav"
            soundfile.write(path, soxr.resample(pcm, Espeak().rate_hz, RATE_HZ), RATE_HZ)
            spoken.append(dataclasses.replace(reference, audio_path=path, offset_s=0.0, duration_s=None))
            truths.append(words)
        print("against espeak-ng's times of the same texts")
        report(spoken, truths, all_recognisers)


def report(
    clips: Sequence[Reference], truths: Sequence[Sequence[SpokenWord]], systems: Sequence[tuple[str, Recogniser]]
) -> None:
    for name, recognise in systems:
        errors = Errors()
        begun_s = time.process_time()
        for clip, truth in zip(tqdm(clips, name, mininterval=5), truths, strict=True):
            errors.add(truth, recognise(clip), len(read_waveform(clip, Settings())) / RATE_HZ)
        errors.cpu_s = time.process_time() - begun_s
        print(errors.line(name), flush=True)


if __name__ == "__main__":
    main()
