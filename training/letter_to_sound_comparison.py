"""Which letter-to-sound method is better: our joint n-gram or espeak-ng? Both on held-out dictionary words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from rapidfuzz.distance import Levenshtein

from asr_service.lexicon import PHONES, Pronunciation

# espeak-ng's American phones in the IPA, longest match first, as ARPAbet. Its long and reduced vowels fall together
# with CMU's; a diphthong with r is two CMU phones.
_IPA: Mapping[str, str] = {
    "aɪɚ": "AY ER",
    "aɪə": "AY AH",
    "əl": "AH L",
    "oːɹ": "AO R",
    "ɔːɹ": "AO R",
    "ɑːɹ": "AA R",
    "tʃ": "CH",
    "dʒ": "JH",
    "aɪ": "AY",
    "aʊ": "AW",
    "eɪ": "EY",
    "oʊ": "OW",
    "ɔɪ": "OY",
    "iə": "IY AH",
    "ʊɹ": "UH R",
    "ɛɹ": "EH R",
    "ɪɹ": "IH R",
    "ɜː": "ER",
    "ɑː": "AA",
    "ɔː": "AO",
    "iː": "IY",
    "uː": "UW",
    "oː": "AO",
    "n̩": "AH N",
    "ɚ": "ER",
    "a": "AE",
    "æ": "AE",
    "ʌ": "AH",
    "ə": "AH",
    "ɐ": "AH",
    "ɛ": "EH",
    "e": "EH",
    "ɪ": "IH",
    "ᵻ": "IH",
    "i": "IY",
    "ʊ": "UH",
    "u": "UW",
    "o": "OW",
    "ɔ": "AO",
    "ɑ": "AA",
    "ɾ": "T",
    "ʔ": "T",
    "ŋ": "NG",
    "ɡ": "G",
    "ɹ": "R",
    "r": "R",
    "ʃ": "SH",
    "ʒ": "ZH",
    "θ": "TH",
    "ð": "DH",
    "j": "Y",
    "h": "HH",
    "x": "K",
    "ɬ": "L",
    **{letter.lower(): letter for letter in PHONES if len(letter) == 1},
}
_LONGEST = max(map(len, _IPA))
HELD_OUT_EVERY = 20


def espeak_pronunciations(words: Sequence[str]) -> list[Pronunciation]:
    """What espeak-ng says of each word, as ARPAbet; () where it says something that the table does not know."""
    command = ["espeak-ng", "-q", "--ipa=1", "-v", "en-us"]
    text = "\n\n".join(words) + "\n"
    lines = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.split("\n")
    spoken = [line.strip() for line in lines if line.strip()]
    if len(spoken) != len(words):
        raise RuntimeError(f"espeak-ng answered {len(spoken)} lines for {len(words)} words")
    return [from_ipa(line) for line in spoken]


def from_ipa(transcription: str) -> Pronunciation:
    """Greedy longest match through the table; stress, spaces and unknown symbols are skipped."""
    phones: list[str] = []
    text = transcription.replace("ˈ", "").replace("ˌ", "")
    position = 0
    while position < len(text):
        for width in range(_LONGEST, 0, -1):
            match = _IPA.get(text[position : position + width])
            if match is not None:
                phones += match.split()
                position += width
                break
        else:
            position += 1
    return tuple(phones)


def compare(
    entries: dict[str, tuple[Pronunciation, ...]],
    learn: Callable[[dict[str, tuple[Pronunciation, ...]]], Callable[[str], Pronunciation]],
) -> None:
    """Print phone and word error rates on every 20th word; the nearest dictionary pronunciation is the reference."""
    words = sorted(word for word in entries if len(word) > 2)
    held_out = words[::HELD_OUT_EVERY]
    kept = set(held_out)
    pronounce = learn({word: entry for word, entry in entries.items() if word not in kept})
    _report("joint n-gram", entries, held_out, [pronounce(word) for word in held_out])
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is not installed: not compared")
        return
    _report("espeak-ng", entries, held_out, espeak_pronunciations(held_out))


def _report(
    name: str,
    entries: Mapping[str, tuple[Pronunciation, ...]],
    words: Sequence[str],
    answers: Sequence[Pronunciation],
) -> None:
    errors = phones = wrong = 0
    for word, answer in zip(words, answers, strict=True):
        distance, length = min((Levenshtein.distance(answer, reference), len(reference)) for reference in entries[word])
        errors += distance
        phones += length
        wrong += distance > 0
    print(f"{name:13s} phone error rate {errors / phones:6.2%}, word error rate {wrong / len(words):6.2%}", end="")
    print(f" on {len(words)} held-out words")
