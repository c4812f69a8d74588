"""Train the detector of voice activity (asr_service/engine/voice_activity.py) and write its weights.

    python -m training.voice_activity train.jsonl --out BUNDLE/voice_activity.safetensors

Recordings are joined with pauses, in noises that come, go and stay, in babble and through a telephone, loud and quiet.
Who speaks when is known from forced alignment of the transcripts by a bundle; voices of the babble are no speech.
"""

# Dimensions: B sequences, T ticks (80 ms), I inputs.

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn
from tqdm import tqdm

from asr_service.commands.option_types import positive
from asr_service.config import Settings
from asr_service.engine.frames import TICK_FRAMES
from asr_service.engine.voice_activity import INPUTS, VoiceBands, tick_inputs
from asr_service.evaluation.forced_alignment import ForcedAligner, SpokenWord
from asr_service.evaluation.references import read_references
from asr_service.evaluation.waveform import read_waveform
from asr_service.features import LogMel
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from training.augmentation.noise import babble, coloured_noise
from training.augmentation.pauses import room_tone_level
from training.augmentation.telephone import telephone
from training.command_errors import told_in_one_line
from training.command_line import command_parser

RATE_HZ = 16_000
TICK_S = 0.08
UNITS = 32
# Gaps between words that are no silence: closures of stops, and what alignment leaves between words.
BRIDGED_S = 0.2
# Alignment places the edges of a word at 40 ms; a word's last sounds are quiet.
EDGE_S = 0.04
SEQUENCE_S = 14.0
# In a babble, from and to.
VOICES = 3, 7
SPEECH_SHARE = 0.4


class Spoken(NamedTuple):
    """A recording, (N,) samples, and its words."""

    wave: Tensor
    words: tuple[SpokenWord, ...]
    speaker: str


class Detector(nn.Module):
    """A layer of gated recurrent units and a logistic output: (B, T, I) → (B, T) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(INPUTS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.output(self.cell(inputs)[0]).squeeze(-1)
        return logits

    def weights(self) -> dict[str, NDArray[np.float32]]:
        return {name: tensor.detach().numpy().astype(np.float32) for name, tensor in self.state_dict().items()}


def sequence(clips: Sequence[Spoken], rng: random.Random) -> tuple[Tensor, Tensor]:
    """One made-up stretch: samples (N,) and whether somebody speaks at each of them (N,)."""
    total = round(SEQUENCE_S * RATE_HZ)
    wave, speech = torch.zeros(total), torch.zeros(total)
    place = round(rng.choice([0.0, rng.uniform(0, 3)]) * RATE_HZ)
    tones = []
    while place < total:
        clip = rng.choice(clips)
        first = rng.randrange(len(clip.words))
        last = min(len(clip.words), first + rng.randint(1, 25))
        begin = max(0, round((clip.words[first].start_s - 0.1) * RATE_HZ))
        end = round((clip.words[last - 1].end_s + 0.1) * RATE_HZ)
        gain = 10 ** (rng.uniform(-6, 6) / 20)
        piece = clip.wave[begin:end] * gain
        tones.append(float(room_tone_level(clip.wave, RATE_HZ)) * gain)
        room = min(len(piece), total - place)
        wave[place : place + room] += piece[:room]
        previous_s = clip.words[first].start_s
        for word in clip.words[first:last]:
            start_s = previous_s if word.start_s - previous_s < BRIDGED_S else word.start_s - EDGE_S
            at = place - begin + round(start_s * RATE_HZ)
            speech[max(0, at) : max(0, place - begin + round((word.end_s + EDGE_S) * RATE_HZ))] = 1.0
            previous_s = word.end_s
        place += len(piece) + round(rng.choice([rng.uniform(0.1, 1), rng.uniform(0.5, 4)]) * RATE_HZ)
    loud = wave.square().mean().sqrt().clamp(min=1e-4)
    if rng.random() < 0.8:  # the room goes on in the pauses
        wave += _noise(rng, total) * min(tones) * rng.uniform(0.5, 1.5)
    if rng.random() < 0.6:
        noise = _babble(clips, rng, total) if rng.random() < 0.3 else _noise(rng, total)
        if rng.random() < 0.3:  # it begins or ends somewhere
            change = rng.randrange(total)
            (noise[:change] if rng.random() < 0.5 else noise[change:]).mul_(rng.choice([0.0, 0.3]))
        wave += noise * loud * 10 ** (-rng.uniform(3, 30) / 20)
    if rng.random() < 0.2:
        low, high = torch.tensor([rng.choice([0.0, 300.0])]), torch.tensor([rng.uniform(3400, 3950)])
        wave = telephone(wave.unsqueeze(0), low, high, rng.choice(["mulaw", "alaw", None]))[0]
    wave = wave / wave.abs().max().clamp(min=1e-4) * 10 ** (-rng.choice([rng.uniform(0, 20), rng.uniform(0, 45)]) / 20)
    return wave, speech


def _noise(rng: random.Random, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    noise = coloured_noise([rng.uniform(-0.5, 2.5)], samples, RATE_HZ, generator, torch.device("cpu"))[0]
    return noise / noise.square().mean().sqrt()


def _babble(clips: Sequence[Spoken], rng: random.Random, samples: int) -> Tensor:
    voices = babble([clip.wave for clip in rng.sample(clips, rng.randint(*VOICES))], samples, rng)
    return voices / voices.square().mean().sqrt()


LOG_MEL = LogMel()


def example(clips: Sequence[Spoken], bands: VoiceBands, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Inputs (T, I) and targets (T,) of one made-up stretch."""
    wave, speech = sequence(clips, rng)
    with torch.inference_mode():
        levels = bands(LOG_MEL.whole(wave).numpy())
    ticks = len(levels) // TICK_FRAMES
    inputs = tick_inputs(levels[: ticks * TICK_FRAMES])
    samples = TICK_FRAMES * 160
    share = speech[: ticks * samples].view(ticks, samples).mean(dim=1)
    # A tick is speech where words fill a good part of it: the first and the last tick of a word are mostly silence.
    return torch.from_numpy(inputs), (share >= SPEECH_SHARE).float()


def load(manifest: Path, corpora: Sequence[str], clips: int, model: Path) -> list[Spoken]:
    aligner = ForcedAligner(load_bundle(model))
    references = read_references(manifest, corpora=corpora)
    spoken = []
    for reference in tqdm(references[:: max(1, len(references) // clips)][:clips], "alignment", mininterval=5):
        wave = read_waveform(reference, Settings())
        words = aligner(wave, reference.text)
        if words:
            spoken.append(Spoken(torch.from_numpy(wave), words, reference.speaker))
    return spoken


def train(inputs: Tensor, targets: Tensor, *, epochs: int, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    detector = Detector()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=5e-3, weight_decay=1e-3)
    steps = -(-len(inputs) // 64) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        for rows in torch.split(torch.randperm(len(inputs)), 64):
            loss = nn.functional.binary_cross_entropy_with_logits(detector(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    return detector


def main() -> None:
    parser = command_parser("voice_activity", __doc__)
    parser.add_argument("manifest", type=Path, help="recordings with transcripts")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--clips", type=positive, default=260, help="recordings that are joined; default: 260")
    parser.add_argument("--sequences", type=positive, default=700, help="made of them; default: 700")
    parser.add_argument("--epochs", type=positive, default=40, help="passes over them; default: 40")
    parser.add_argument("--model", type=Path, default=SHIPPED_DIR / DEFAULT_MODEL, help="bundle that aligns")
    parser.add_argument("--out", type=Path, required=True, help="file of the weights")
    arguments = parser.parse_args()
    with told_in_one_line("voice_activity"):
        clips = load(arguments.manifest, arguments.corpus, arguments.clips, arguments.model)
        if len(clips) < VOICES[1]:
            raise ValueError(f"{arguments.manifest}: {len(clips)} clips that can be aligned, {VOICES[1]} are needed")
    rng = random.Random(0)
    bands = VoiceBands(LOG_MEL.spectrogram.mel_scale.fb.numpy(), RATE_HZ)
    made = [example(clips, bands, rng) for _ in tqdm(range(arguments.sequences), "sequences", mininterval=5)]
    inputs, targets = torch.stack([one for one, _ in made]), torch.stack([one for _, one in made])
    detector = train(inputs, targets, epochs=arguments.epochs)
    save_file(detector.weights(), arguments.out)
    print(f"{arguments.out}: {sum(parameter.numel() for parameter in detector.parameters())} weights")


if __name__ == "__main__":
    main()
