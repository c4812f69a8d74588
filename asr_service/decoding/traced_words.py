"""The words along a hypothesis' trace: which phones they have, and where those lie.

T frames of 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_service.lexicon import BLANK_ID


class TracedWord(NamedTuple):
    """A word of a trace.

    Attributes:
        history: that it completed.
        phones: since the word before it; none where they came before the trace.
        frames: in which these begin, or the one in which the word was completed where there are none.
        end: the frame after its last phone.
    """

    history: int
    phones: list[int]
    frames: list[int]
    end: int


def traced_words(sounds: NDArray[np.int64], histories: NDArray[np.int64], before: int) -> Iterator[TracedWord]:
    """The words of a trace of (T,) phones and (T,) histories; `before`: the history that it begins with.

    A word ends with the run of its last phone, which may go on when it is complete.
    """
    begins = np.flatnonzero((sounds != BLANK_ID) & (sounds != np.concatenate([[BLANK_ID], sounds[:-1]])))
    places = np.flatnonzero(histories != np.concatenate([[before], histories[:-1]]))
    heard = np.searchsorted(begins, places, side="right")
    changes = np.append(np.flatnonzero(sounds[1:] != sounds[:-1]) + 1, len(sounds))
    ends = changes[np.searchsorted(changes, places, side="right")]
    phones, frames = sounds[begins].tolist(), begins.tolist()
    first = 0
    for place, history, after, end in zip(
        places.tolist(), histories[places].tolist(), heard.tolist(), ends.tolist(), strict=True
    ):
        yield TracedWord(history, phones[first:after], frames[first:after] or [place], end)
        first = after
