"""LocalAgreement-2: words on which two hypotheses in a row agree are committed (Liu et al. 2020; for a growing window
Macháček et al. 2023, whisper_streaming).

For decoders that hear a growing window again and again, each time from nothing: two hypotheses share no history, so
that they agree is evidence. Committed words never change. What a later hypothesis says of the same stretch of audio is
passed over: the words that spell the end of what is committed, or else those that lie before its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.stabiliser import shared_length

# A word may begin this long before the committed ones have ended and still be new: times differ a little from one
# hypothesis to the next. In frames of 10 ms.
OVERLAP_FRAMES = 10
# At most so many words at the seam are taken for a repetition of the committed ones.
SEAM_WORDS = 5


class LocalAgreement:
    """Follows one utterance. Frames (10 ms) count from its beginning, wherever the window begins."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin the next utterance."""
        self._committed: tuple[TimedWord, ...] = ()
        self._tail: tuple[TimedWord, ...] = ()
        self._forgotten = 0

    @property
    def committed(self) -> tuple[TimedWord, ...]:
        """The words that every later answer starts with."""
        return self._committed

    @property
    def words(self) -> tuple[TimedWord, ...]:
        """The committed words and what the last hypothesis has after them."""
        return self._committed + self._tail

    def forget(self, words: int) -> None:
        """The window has been cut after so many committed words: later hypotheses begin behind them."""
        self._forgotten = words

    def update(self, hypothesis: Sequence[TimedWord]) -> None:
        """Take the next hypothesis of the window; commit what it has in common with the one before."""
        new = self.beyond(hypothesis)
        agreed = shared_length([word.text for word in new], [word.text for word in self._tail])
        self._committed += new[:agreed]
        self._tail = new[agreed:]

    def beyond(self, hypothesis: Sequence[TimedWord]) -> tuple[TimedWord, ...]:
        """The hypothesis' words after the committed ones, none of them before the end of those."""
        if not self._committed:
            return tuple(hypothesis)
        heard = [word.text for word in self._committed[self._forgotten :]]
        texts = [word.text for word in hypothesis]
        end = self._committed[-1].end_frame
        if heard and texts[: len(heard)] == heard:
            return _from(hypothesis[len(heard) :], end)
        later = [word for word in hypothesis if word.start_frame >= end - OVERLAP_FRAMES]
        tail = [word.text for word in self._committed]
        for length in range(min(SEAM_WORDS, len(later), len(tail)), 0, -1):
            # Only what lies at the seam is a repetition; the same word a second later was said twice.
            repeats = [word.text for word in later[:length]] == tail[-length:]
            if repeats and later[0].start_frame <= end + OVERLAP_FRAMES:
                later = later[length:]
                break
        return _from(later, end)


def _from(words: Sequence[TimedWord], frame: int) -> tuple[TimedWord, ...]:
    """The words, none of them earlier than the frame."""
    return tuple(TimedWord(word.text, max(word.start_frame, frame), max(word.end_frame, frame + 1)) for word in words)
