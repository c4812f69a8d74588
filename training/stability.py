"""How soon words become stable while somebody speaks, and how often a rule for that is wrong; on dev, streaming mode.

    python -m training.stability --bundle asr_service/models/en-s --every 8

For each rule of `Stabiliser`: the mean time from a word's end to its being called stable, the words per hundred that
the search would later have taken back (they are kept: that is what stable means), and the WER with that.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.stabiliser import Stabiliser, shared_length
from asr_service.engine.frames import PHONE_FRAME_S
from asr_service.model.bundle import load_bundle
from asr_service.types import Mode
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.dev_set import add_dev_options, dev_set
from training.posteriors import DevUtterance, posteriors

AGREEMENTS = (2, 4, 6, 8, 12, 24)


def measure(
    tree: PronunciationTree, dev: Sequence[DevUtterance], options: LexiconBeamOptions, chunk_frames: int
) -> list[tuple[float, float, float, float]]:
    """(delay in s, share of words stable before the end, revoked words per hundred, WER) for each of `AGREEMENTS`."""
    beam = LexiconBeam(tree, options)
    totals = {agreement: [0.0, 0, 0, 0] for agreement in AGREEMENTS}  # delay, stable words, revoked, errors
    said = spoken = 0
    for utterance in dev:
        beam.begin()
        rules = {agreement: Stabiliser(agreement) for agreement in AGREEMENTS}
        phones = utterance.encoded.phones
        for start in range(0, len(phones), chunk_frames):
            beam.step(phones[start : start + chunk_frames])
            best = beam.best().words
            for agreement, rule in rules.items():
                before = len(rule.stable)
                rule.update(best, beam.sure_words(before))
                news = rule.stable[before:]
                totals[agreement][0] += sum(beam.frames - word.end_frame for word in news) * PHONE_FRAME_S
                totals[agreement][1] += len(news)
        found = beam.finish(1)
        final = found[0].words if found else ()
        texts = [word.text for word in final]
        reference = utterance.text.split()
        said += len(texts)
        spoken += len(reference)
        for agreement, rule in rules.items():
            stable = [word.text for word in rule.stable]
            totals[agreement][2] += len(stable) - shared_length(stable, texts)
            totals[agreement][3] += Levenshtein.distance([word.text for word in rule.splice(final)], reference)
    return [
        (delay / max(1, stable), stable / max(1, said), 100 * revoked / max(1, said), errors / spoken)
        for delay, stable, revoked, errors in totals.values()
    ]


def main() -> None:
    parser = command_parser("stability", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the model")
    add_dev_options(parser, every=8)
    arguments = parser.parse_args()
    with told_in_one_line("stability"):
        _report(arguments)


def _report(arguments: argparse.Namespace) -> None:
    bundle = load_bundle(arguments.bundle)
    if bundle.lexicon is None or bundle.lm_path is None:
        raise ValueError(f"{arguments.bundle} has no lexicon or no language model: nothing to measure")
    dev = posteriors(bundle, *dev_set(arguments), Mode.STREAMING, arguments.out)
    tree = PronunciationTree(bundle.lexicon, bundle.lm_path)
    options = LexiconBeamOptions(**bundle.decoding.get("streaming", {}))
    print(f"{len(dev)} utterances, updates every {bundle.streaming.chunk_frames * PHONE_FRAME_S:.2f} s")
    print("agreement  delay   stable before the end  revoked of 100 words    WER")
    results = measure(tree, dev, options, bundle.streaming.chunk_frames)
    for agreement, (delay, share, revoked, rate) in zip(AGREEMENTS, results, strict=True):
        print(f"{agreement:9d}  {delay:5.2f} s  {share:21.1%}  {revoked:20.2f}  {rate:6.2%}")


if __name__ == "__main__":
    main()
