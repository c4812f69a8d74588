"""Make the demo's clip: `python asr_service/samples/make_demo_clip.py` (needs flite: `apt-get install flite`).

The speech is synthesised, for the project commits no recordings of people. Synthesiser: flite 2.2 of Debian (BSD-like
licence), voice `rms`, a statistical model of one American speaker of the CMU ARCTIC data, who is not among the speakers
of the training data. The text was written for the demo before any model had heard it, and does not occur in the texts
that the models are trained on.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import soundfile

FOLDER = Path(__file__).parent
VOICE = "rms"


def main() -> None:
    text = (FOLDER / "demo.txt").read_text(encoding="utf-8").strip()
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", spoken], check=True)  # noqa: S607
        pcm, rate = soundfile.read(spoken, dtype="int16")
    clip = FOLDER / "demo.flac"
    soundfile.write(clip, pcm, rate)
    print(f"{clip}: {len(pcm) / rate:.2f} s at {rate} Hz, {clip.stat().st_size} bytes")


if __name__ == "__main__":
    main()
