"""Words as the cues of SubRip and WebVTT files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from asr_service.types import Word

# A subtitle: at most two lines that fit a screen, not longer than can be read in comfort, none across a pause.
LINE_CHARACTERS = 42
MAX_CUE_CHARACTERS = 2 * LINE_CHARACTERS
MAX_CUE_S = 7.0
# One that is over sooner stays for as long where nothing follows: it could not be read.
MIN_CUE_S = 1.0
MAX_PAUSE_S = 1.0
# What a second of pause at a cue's end is worth, in squares of the characters that another cue lacks to be full.
_PAUSE_WORTH = 2000.0


def subtitles(words: Sequence[Word], form: str) -> Iterator[str]:
    """Lines of a subtitle file, `form` "srt" or "vtt"."""
    if form == "vtt":
        yield "WEBVTT"
        yield ""
    following = itertools.pairwise(itertools.chain(cues(words), [None]))
    for number, (cue, after) in enumerate(following, 1):
        assert cue is not None
        if form == "srt":
            yield str(number)
        mark = "," if form == "srt" else "."
        readable_s = min(cue[0].start_s + MIN_CUE_S, after[0].start_s if after else math.inf)
        yield f"{_clock(cue[0].start_s, mark)} --> {_clock(max(cue[-1].end_s, readable_s), mark)}"
        yield from _lines([word.text for word in cue])
        yield ""


def cues(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Words that are shown together: cues of like lengths rather than full ones and a rest, and cut where the speaker
    pauses (Knuth and Plass 1981, "Breaking paragraphs into lines", with pauses for their penalties).
    """
    # Of the words before each place: what the best cues cost, and where the last of them begins.
    costs, begins = [0.0], [0]
    for end in range(1, len(words) + 1):
        best, best_begin, characters = math.inf, end - 1, -1
        for begin in range(end - 1, -1, -1):
            cue = words[begin:end]
            characters += len(cue[0].text) + 1
            pause_s = cue[1].start_s - cue[0].end_s if len(cue) > 1 else 0.0
            too_long = cue[-1].end_s - cue[0].start_s > MAX_CUE_S or pause_s > MAX_PAUSE_S
            if len(cue) > 1 and (too_long or not _fit([word.text for word in cue], characters)):
                break
            cost = costs[begin] + (MAX_CUE_CHARACTERS - characters) ** 2 - _worth(words, begin)
            if cost < best:
                best, best_begin = cost, begin
        costs.append(best)
        begins.append(best_begin)
    cuts = [len(words)]
    while cuts[-1] > 0:
        cuts.append(begins[cuts[-1]])
    for begin, end in itertools.pairwise(reversed(cuts)):
        yield words[begin:end]


def _worth(words: Sequence[Word], begin: int) -> float:
    """Of a cut before this word."""
    if begin == 0:
        return 0.0
    pause_s = words[begin].start_s - words[begin - 1].end_s
    return _PAUSE_WORTH * min(max(pause_s, 0.0), MAX_PAUSE_S)


def _fit(words: Sequence[str], characters: int) -> bool:
    """Whether words of so many characters, with the spaces between them, fit into two lines."""
    if not LINE_CHARACTERS < characters <= MAX_CUE_CHARACTERS:
        return characters <= LINE_CHARACTERS
    first_lines = itertools.accumulate(len(word) + 1 for word in words)  # each with the space after it
    return any(first - 1 <= LINE_CHARACTERS and characters - first <= LINE_CHARACTERS for first in first_lines)


def _lines(words: Sequence[str]) -> list[str]:
    """One line, or two of like lengths where one would be too long."""
    whole = " ".join(words)
    if len(whole) <= LINE_CHARACTERS or len(words) == 1:
        return [whole]
    pairs = [(" ".join(words[:place]), " ".join(words[place:])) for place in range(1, len(words))]
    return list(min(pairs, key=lambda pair: max(map(len, pair))))


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"
