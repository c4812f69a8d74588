r"""A manifest's clips in noise, or through a telephone or a codec, as files: any recogniser can be tried on them.

    python -m training.distort ../shared/speech/dev.jsonl --corpus librispeech_dev_clean_part \
        --noise pink --snr-db 10 --out runs/distorted/pink10
    asr eval runs/distorted/pink10/manifest.jsonl

`--noise` is a colour or `babble` (five other speakers of the manifest); `--telephone` writes 8 kHz mu-law WAV files,
`--codec` what a codec leaves at a low bit rate.
A clip's noise is a function of its name and offset: the same for every call.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from asr_service.commands.option_types import positive
from asr_service.evaluation.references.rows import Row, text_field
from asr_service.evaluation.references.text import seconds
from training.augmentation.codec import CODECS, coded
from training.augmentation.noise import add_noise, babble, coloured_noise
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.data import SAMPLE_RATE_HZ, read_waveform
from training.manifest import read_rows

SLOPES = {"white": 0.0, "pink": 1.0, "brown": 2.0}
VOICES = 5
TELEPHONE_HZ = 8_000
# Full scale that a noisy clip is scaled down to where it would be clipped.
PEAK = 0.99


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of a manifest, and the audio that it names.

    Attributes:
        part_s: where it begins in its file and how long it lasts; None: it is the file.
    """

    row: Row
    name: str
    part_s: tuple[float, float] | None

    @property
    def seed(self) -> str:
        """Of its noise: parts of one recording have different noise."""
        return self.name if self.part_s is None else f"{self.name}@{self.part_s[0]}"


def clip_of(row: Row) -> Clip:
    """Raises ValueError, which names the field that is missing or wrong."""
    if not (name := text_field(row, ("audio_filepath",))):
        raise ValueError("no audio_filepath")
    if row.get("offset") is None:
        return Clip(row, name, None)
    if row.get("duration") is None:
        raise ValueError("no duration")
    return Clip(row, name, (seconds(row["offset"], "offset"), seconds(row["duration"], "duration")))


def read_audio(clip: Clip, folder: Path) -> NDArray[np.float32]:
    """(N,) mono samples at 16 kHz in [-1, 1]. Raises ValueError that names a file in which there are none."""
    path = folder / clip.name
    try:
        return read_waveform(path, clip.part_s)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def noisy(
    pcm: NDArray[np.float32], kind: str, snr_db: float, voices: Sequence[NDArray[np.float32]], seed: str
) -> NDArray[np.float32]:
    """(N,) samples with noise of `kind`, a key of `SLOPES` or babble of `voices`, at `snr_db`; never clipped."""
    rng = random.Random(seed)
    if kind == "babble":
        noise = babble([torch.from_numpy(voice) for voice in voices], len(pcm), rng).unsqueeze(0)
    else:
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        noise = coloured_noise([SLOPES[kind]], len(pcm), SAMPLE_RATE_HZ, generator, torch.device("cpu"))
    mixed = add_noise(
        torch.from_numpy(pcm).unsqueeze(0), torch.tensor([len(pcm)]), noise, torch.tensor([float(snr_db)])
    )[0].numpy()
    return np.asarray(mixed * (PEAK / max(PEAK, float(np.abs(mixed).max(initial=0.0)))), dtype=np.float32)


def main() -> None:
    parser = command_parser("distort", __doc__)
    parser.add_argument("manifest", type=Path, help="JSONL manifest")
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=positive, default=1, help="only every Nth utterance")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--noise", choices=[*SLOPES, "babble"], help="added at --snr-db")
    what.add_argument("--telephone", action="store_true", help="8 kHz mu-law")
    what.add_argument("--codec", choices=sorted(CODECS), help="at its lowest bit rate of training")
    parser.add_argument("--snr-db", type=float, default=10.0, help="of --noise; default: 10")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips and manifest.jsonl")
    arguments = parser.parse_args()
    with told_in_one_line("distort"):
        _distort(arguments)


def _distort(arguments: argparse.Namespace) -> None:
    clips = read_rows(arguments.manifest, clip_of)
    wanted = [clip for clip in clips if not arguments.corpus or clip.row.get("corpus") in arguments.corpus]
    chosen = wanted[:: arguments.every]
    there = {clip.row.get("corpus") for clip in clips}
    missing = ", ".join(corpus for corpus in arguments.corpus if corpus not in there)
    if missing or not chosen:
        raise ValueError(f"{arguments.manifest}: no utterance of {missing or 'any corpus'}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = arguments.manifest.parent
    lines = []
    for number, clip in enumerate(tqdm(chosen, mininterval=5)):
        pcm = read_audio(clip, folder)
        path = arguments.out / f"{number:05d}.wav"
        if arguments.telephone:
            soundfile.write(path, soxr.resample(pcm, SAMPLE_RATE_HZ, TELEPHONE_HZ), TELEPHONE_HZ, subtype="ULAW")
        elif arguments.codec:
            soundfile.write(path, coded(pcm, arguments.codec, 1.0), SAMPLE_RATE_HZ)
        else:
            rng = random.Random(clip.seed)
            others = [other for other in chosen if other.row.get("speaker") != clip.row.get("speaker")]
            voices: list[NDArray[np.float32]] = []
            if arguments.noise == "babble":
                if len(others) < VOICES:
                    raise ValueError(f"{arguments.manifest}: babble is of {VOICES} utterances of other speakers")
                voices = [read_audio(other, folder) for other in rng.sample(others, VOICES)]
            mixed = noisy(pcm, arguments.noise, arguments.snr_db, voices, clip.seed)
            soundfile.write(path, mixed, SAMPLE_RATE_HZ)
        whole = {name: value for name, value in clip.row.items() if name != "offset"}
        lines.append(json.dumps({**whole, "audio_filepath": path.name}))
    (arguments.out / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} clips in {arguments.out}")


if __name__ == "__main__":
    main()
