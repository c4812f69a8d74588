"""What a fine-tuning run learns from: target texts that the bundle can write and pronounce, and a share of old data."""

from __future__ import annotations

import math
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_service.evaluation.normalizer import dropped_characters, normalize_transcript
from asr_service.lexicon import Lexicon
from asr_service.tokenizer import WORD_START, WordPieces
from training.data import Utterance
from training.lexicon import Pronouncer, build, words_of
from training.tokenizer import normalizer_of

MAX_NAMED = 20


def check_tokenizer(ours: WordPieces, theirs: WordPieces, source: Path) -> None:
    """Raise ValueError naming the first difference between the bundle's tokenizer and the one in `source`.

    With other pieces every output of the model would mean something else, and training would quietly begin anew.
    """
    if ours.vocab_size != theirs.vocab_size:
        raise ValueError(f"{source}: a tokenizer of {theirs.vocab_size} pieces, the bundle's has {ours.vocab_size}")
    for index, (own, other) in enumerate(zip(ours.pieces, theirs.pieces, strict=True)):
        if own != other:
            raise ValueError(f"{source}: piece {index} of the tokenizer is {other!r}, the bundle's is {own!r}")
    if normalizer_of(theirs) is not normalizer_of(ours):
        raise ValueError(f"{source}: for texts by {theirs.normalization}, the bundle's is by {ours.normalization}")
    for piece in ours.pieces[ours.eos_id + 1 :]:
        word = piece.removeprefix(WORD_START)
        if word and ours.encode(word) != theirs.encode(word):
            raise ValueError(f"{source}: the tokenizer has the bundle's pieces, but splits {word!r} another way")


def unwritable(text: str, pieces: WordPieces) -> list[str]:
    """Characters of a transcript, as it stands in the manifest, whose sound would be missing from the tokens.

    That is every letter, number or sign that normalisation drops ("7", "ß", "%"), and every letter that the tokenizer
    lacks. Marks that are not spoken (commas, quotation marks) are no loss.
    """
    return [char for char in text if not _is_written(char, pieces)]


def _is_written(char: str, pieces: WordPieces) -> bool:
    if written := normalize_transcript(f"a{char}a")[1:-1].strip():  # between letters, where an apostrophe stays
        return pieces.has_bytes or not pieces.unknown_characters(written)
    if dropped_characters(char):
        return False
    category = unicodedata.category(char)
    # P punctuation, Z spaces, C controls, M accents, Sk spacing accents (the backtick): not spoken.
    return category[0] in "PZCM" or category == "Sk"


def check_texts(manifest: Path, utterances: Sequence[Utterance], pieces: WordPieces, *, drop: bool) -> list[Utterance]:
    """The utterances whose texts the tokenizer can write.

    Raises ValueError that names each character it cannot write, with its count, unless such utterances may be dropped.
    """
    lost: Counter[str] = Counter()
    written = []
    for utterance in utterances:
        characters = unwritable(utterance.written, pieces)
        lost.update(characters)
        if not characters:
            written.append(utterance)
    if not lost:
        return written
    named = ", ".join(f"{char!r} (U+{ord(char):04X}) {count}×" for char, count in lost.most_common(MAX_NAMED))
    more = f" and {len(lost) - MAX_NAMED} more" if len(lost) > MAX_NAMED else ""
    found = f"{len(utterances) - len(written)} of {len(utterances)} texts have characters the tokenizer cannot write: "
    if not drop:
        raise ValueError(f"{manifest}: {found}{named}{more}. Spell them out, or set finetune.drop_unwritable")
    print(f"{manifest.name}: {found}{named}{more}; left out")
    return written


def short_enough(manifest: str, utterances: Sequence[Utterance], max_utterance_s: float) -> list[Utterance]:
    """The utterances of at most `max_utterance_s`; prints how many are longer."""
    kept = [utterance for utterance in utterances if utterance.duration_s <= max_utterance_s]
    if longer := len(utterances) - len(kept):
        print(
            f"{manifest}: {longer} of {len(utterances)} utterances are longer than data.max_utterance_s "
            f"({max_utterance_s:g}); left out"
        )
    return kept


def extended_lexicon(
    lexicon: Lexicon, extra: Lexicon | None, texts: Iterable[str], pronouncer: Pronouncer
) -> tuple[Lexicon, list[str]]:
    """The bundle's lexicon with `extra`'s entries, which go before, and every further word of `texts`.

    Also returns the words that are new. One that nothing pronounces stays out; training counts its utterances.
    """
    entries = {word: lexicon[word] for word in lexicon}
    added = {} if extra is None else {word: extra[word] for word in extra}
    words = {word for text in texts for word in words_of(text)}
    missing = sorted(words - entries.keys() - added.keys())
    if missing:
        pronounced = build(missing, pronouncer)
        added |= {word: pronounced[word] for word in pronounced}
    if not added:
        return lexicon, []
    return Lexicon(entries | added), sorted(added.keys() - entries.keys())


@dataclass(frozen=True, slots=True)
class Mix:
    """How often the target is gone through, and the old data beside it, each utterance of it once."""

    passes: int
    old: tuple[Utterance, ...]

    def share(self, target_s: float) -> float:
        """Of the seconds, how many are old."""
        old_s = sum(utterance.duration_s for utterance in self.old)
        return old_s / (old_s + self.passes * target_s)


def mix(target: Sequence[Utterance], old: Sequence[Utterance], *, share: float, run_s: float, seed: int) -> Mix:
    """Old data for a run of `run_s` seconds of which `share` are old.

    One epoch is made as long as the run, the target as often in it as needed: so old utterances do not come again
    before all have been seen. Where there is too little old data for that, the epoch is shorter; where there is too
    little for one pass of the target, all of it is taken and the share is smaller.
    """
    target_s = sum(utterance.duration_s for utterance in target)
    seen = {utterance.source for utterance in target}
    candidates = [utterance for utterance in old if utterance.source not in seen]
    available_s = sum(utterance.duration_s for utterance in candidates)
    per_pass_s = target_s * share / (1.0 - share)
    passes = max(1, math.ceil(run_s * (1.0 - share) / target_s))
    if per_pass_s > 0.0:
        passes = max(1, min(passes, int(available_s / per_pass_s)))
    random.Random(f"{seed}/old").shuffle(candidates)
    chosen, chosen_s = [], 0.0
    for utterance in candidates:
        if chosen_s >= passes * per_pass_s:
            break
        chosen.append(utterance)
        chosen_s += utterance.duration_s
    return Mix(passes, tuple(chosen))
