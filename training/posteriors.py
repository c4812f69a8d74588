"""What a bundle's encoder says of dev utterances, kept on disk, so that searches can be compared without running it.

Dimensions: T4 and T8 encoder frames (40 and 80 ms), N phones, V word pieces, D model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from asr_service.decoding.config import DecodingConfig
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.model.bundle import WEIGHTS_FILE, Bundle
from asr_service.types import Mode
from training.atomic import atomic_path
from training.data import PcmStore, Utterance


@dataclass(frozen=True, slots=True)
class DevUtterance:
    """One utterance with its reference and its posteriors."""

    text: str
    corpus: str
    encoded: Encoded


def posteriors(
    bundle: Bundle, utterances: list[Utterance], store: PcmStore, rows: list[int], mode: Mode, folder: Path
) -> list[DevUtterance]:
    """Encode utterances `rows` whole or in chunks, or read what an earlier call that would give the same has left."""
    weights = hashlib.sha256((bundle.directory / WEIGHTS_FILE).read_bytes()).hexdigest()
    streaming = bundle.streaming
    geometry = dataclasses.astuple(streaming) if mode is Mode.STREAMING else (streaming.lead_frames,)
    recordings = [store.recordings[row] for row in rows]
    lower_phones = DecodingConfig.from_dict(bundle.decoding).lower_phones
    made_of = [weights, rows, recordings, mode.value, geometry, lower_phones]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    path = folder / f"posteriors-{mode.value}-{key}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        runner = ModelRunner(bundle, streams=1, threads=1)
        arrays: dict[str, np.ndarray] = {}
        for row in tqdm(rows, desc=f"encoding ({mode.value})", mininterval=5):
            encoded = encode(runner, store[row].astype(np.float32) / 32768.0, mode)
            arrays[f"phones{row}"] = encoded.phones.astype(np.float16)
            arrays[f"pieces{row}"] = encoded.pieces.astype(np.float16)
            arrays[f"hidden{row}"] = encoded.hidden.numpy().astype(np.float16)
        with atomic_path(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    with np.load(path) as saved:
        return [
            DevUtterance(
                utterances[row].text,
                utterances[row].corpus,
                Encoded(
                    saved[f"phones{row}"].astype(np.float32),
                    saved[f"pieces{row}"].astype(np.float32),
                    torch.from_numpy(saved[f"hidden{row}"].astype(np.float32)),
                ),
            )
            for row in rows
        ]


def encode(runner: ModelRunner, pcm: np.ndarray, mode: Mode) -> Encoded:
    """Encode one utterance, (samples,) float32 in [-1, 1], as the engine does in `mode`."""
    features, _, _ = runner.features(pcm, np.zeros(0, dtype=np.float32), last=True)
    if mode is Mode.ACCURATE:
        return runner.encode_whole(features)
    runner.reset(0)
    parts, begin = [], 0
    while begin < len(features):
        window = features[begin : begin + runner.chunk_features + runner.lookahead_features]
        last = begin + len(window) == len(features)
        kept = len(window) if last else runner.chunk_features
        parts += runner.encode_chunks([0], [window], [kept])
        begin += kept
    return Encoded(
        np.concatenate([part.phones for part in parts]),
        np.concatenate([part.pieces for part in parts]),
        torch.cat([part.hidden for part in parts]),
    )
