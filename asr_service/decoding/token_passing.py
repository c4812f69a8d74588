"""One frame of the lexicon beam, compiled: CTC token passing over a pronunciation tree (Young et al. 1989).

A hypothesis is a place in the search: the words before (its history), the node of the tree reached since, and the
phone of the frame, 0 for blank. Hypotheses in the same place are one. Of those that differ only in words so long ago
that nothing depends on them any more (histories of one context) the likeliest goes on, and is said to have beaten the
others. CTC in a tree: a phone lasts, or gives way to blank, or to a phone that the tree has next; an equal one wants a
blank in between. A word ends in the first frame of its last phone, which may then last on at the root.

The functions release the interpreter lock. The n-gram is Python's: `missing_words` says which words it must score
before `advance` can take the frame.

Dimensions as in `search_arrays`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.compiled import compiled
from asr_service.decoding.search_arrays import (
    BEATEN,
    EMPTY,
    HISTORY,
    NODE,
    PARENT,
    PHONE,
    WINNER,
    Beam,
    Candidates,
    Frame,
    Integers,
    Keys,
    Merged,
    Scores,
    TreeArrays,
)

# One that was beaten by more than this, in nepers, is forgotten.
MOST_BEHIND = 20.0
# Fibonacci hashing (Knuth, The Art of Computer Programming 6.4): 2^64 over the golden ratio.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(36)


@compiled
def pair_slot(keys: Keys, history: int, word: int) -> tuple[np.int64, np.int64]:
    """Where the pair of a history and a word is in an open-addressing table, or where it belongs, and its key."""
    key = (np.int64(history) << 32) | np.int64(word)
    mask = len(keys) - 1
    slot = np.int64((np.uint64(key) * _MULTIPLIER) >> _SHIFT) & mask
    while keys[slot] != EMPTY and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot, key


@compiled
def remember(keys: Keys, values: Integers, histories: Keys, words: Keys, following: Keys) -> None:
    """Enter (n,) pairs of history and word with the histories that they make; the table must have room."""
    for index in range(len(histories)):
        slot, key = pair_slot(keys, histories[index], words[index])
        keys[slot] = key
        values[slot] = following[index]


@compiled
def _estimate(tree: TreeArrays, frame: Frame, threshold: float, beam: Beam, estimates: Scores) -> tuple[int, float]:
    """What hypotheses will score, with a word that ends taken for as likely as its look-ahead says.

    Writes those that count to `estimates` and returns how many, and the best score of those that end no word.
    """
    best, count = -math.inf, 0
    for index in range(len(beam.scores)):
        node, phone, score = beam.places[index, NODE], beam.places[index, PHONE], beam.scores[index]
        lasting = score + max(frame.log_probs[0], frame.log_probs[phone])
        best = max(best, lasting)
        if count < len(estimates):
            estimates[count] = lasting
            count += 1
        for at in range(tree.first_child[node], tree.first_child[node + 1]):
            below = tree.child[at]
            sound = tree.phone[below]
            if not frame.may_begin[sound] or sound == phone:
                continue
            arrived = score + frame.log_probs[sound] - tree.ahead[node]
            inside = arrived + tree.ahead[below]
            # A leaf is no place to stay, and its word may be far less likely than it looks: it must not set the bar.
            has_children = tree.first_child[below] < tree.first_child[below + 1]
            if has_children:
                best = max(best, inside)
            if inside < best - threshold:
                continue
            if has_children and count < len(estimates):
                estimates[count] = inside
                count += 1
            for entry in range(tree.first_word[below], tree.first_word[below + 1]):
                if count < len(estimates):
                    estimates[count] = arrived + tree.word_ahead[entry]
                    count += 1
    return count, best


@compiled
def missing_words(
    tree: TreeArrays,
    frame: Frame,
    threshold: float,
    room: int,
    beam: Beam,
    keys: Keys,
    missing: Keys,
    estimates: Scores,
) -> tuple[int, float, float]:
    """Which words may end in this frame after which histories, where nobody has asked for that yet.

    A word is asked for only where its look-ahead gets it into the beam.

    Args:
        tree: what is searched.
        frame: the frame to come.
        threshold: how far below the best a hypothesis may be.
        room: how many hypotheses there may be.
        beam: before the frame.
        keys: the table of pairs that are known, with room for `missing`; what is written to that gets its key.
        missing: (M, 2), gets the pairs of history and word.
        estimates: (C,), room to work in.

    Returns:
        How many (when `missing` is full, there may be more); the score that a hypothesis must reach in this frame; and
        what it must reach by look-ahead where a word ends.
    """
    count, best = _estimate(tree, frame, threshold, beam, estimates)
    least = best - threshold
    wanted = least
    if count > room:
        wanted = max(least, np.partition(estimates[:count], count - room)[count - room])
    count = 0
    for index in range(len(beam.scores)):
        node, phone, history = beam.places[index, NODE], beam.places[index, PHONE], beam.places[index, HISTORY]
        for at in range(tree.first_child[node], tree.first_child[node + 1]):
            below = tree.child[at]
            sound = tree.phone[below]
            if not frame.may_begin[sound] or sound == phone:
                continue
            arrived = beam.scores[index] + frame.log_probs[sound] - tree.ahead[node]
            for entry in range(tree.first_word[below], tree.first_word[below + 1]):
                if arrived + tree.word_ahead[entry] < wanted:
                    continue
                slot, key = pair_slot(keys, history, tree.word[entry])
                if keys[slot] == EMPTY and count < len(missing):
                    keys[slot] = key
                    missing[count, 0], missing[count, 1] = history, tree.word[entry]
                    count += 1
    return count, least, wanted


@compiled
def _slot(stamps: Keys, history: int, node: int, phone: int) -> np.int64:
    """Where a place in the search is first looked for in the hash table."""
    key = (np.int64(history) << 32) ^ (np.int64(node) << 6) ^ np.int64(phone)
    return np.int64((np.uint64(key) * _MULTIPLIER) >> _SHIFT) & (len(stamps) - 1)


@compiled
def _offer(
    node: int, phone: int, history: int, score: float, parent: int, log_add: bool, count: int, into: Candidates
) -> int:
    """Add a candidate, or join it with that in the same place; returns how many there are."""
    mask = len(into.stamps) - 1
    slot = _slot(into.stamps, history, node, phone)
    while into.stamps[slot] == into.stamp[0]:
        other = into.owners[slot]
        place = into.places[other]
        if place[NODE] == node and place[PHONE] == phone and place[HISTORY] == history:
            if score > into.leading[other]:
                into.leading[other] = score
                into.parents[other] = parent
            held = into.scores[other]
            if log_add:
                into.scores[other] = max(held, score) + math.log1p(math.exp(-abs(held - score)))
            else:
                into.scores[other] = max(held, score)
            return count
        slot = (slot + 1) & mask
    if count == len(into.scores):
        return count
    into.stamps[slot] = into.stamp[0]
    into.owners[slot] = count
    into.places[count, NODE], into.places[count, PHONE], into.places[count, HISTORY] = node, phone, history
    into.parents[count] = parent
    into.scores[count] = into.leading[count] = score
    return count + 1


@compiled
def _expand(
    tree: TreeArrays,
    root: int,
    frame: Frame,
    least: float,
    wanted: float,
    log_add: bool,
    beam: Beam,
    keys: Keys,
    values: Integers,
    gains: Scores,
    into: Candidates,
) -> int:
    """Write all that the frame makes of the beam to `into`; returns how many."""
    into.stamp[0] += 1
    blank, count = frame.log_probs[0], 0
    for index in range(len(beam.scores)):
        node, phone, history = beam.places[index, NODE], beam.places[index, PHONE], beam.places[index, HISTORY]
        score = beam.scores[index]
        if score + blank >= least:
            count = _offer(node, 0, history, score + blank, index, log_add, count, into)
        if phone and score + frame.log_probs[phone] >= least:
            count = _offer(node, phone, history, score + frame.log_probs[phone], index, log_add, count, into)
        for at in range(tree.first_child[node], tree.first_child[node + 1]):
            below = tree.child[at]
            sound = tree.phone[below]
            if not frame.may_begin[sound] or sound == phone:
                continue
            arrived = score + frame.log_probs[sound] - tree.ahead[node]
            inside = arrived + tree.ahead[below]
            if inside >= least and tree.first_child[below] < tree.first_child[below + 1]:
                count = _offer(below, sound, history, inside, index, log_add, count, into)
            for entry in range(tree.first_word[below], tree.first_word[below + 1]):
                if arrived + tree.word_ahead[entry] < wanted:
                    continue
                following = values[pair_slot(keys, history, tree.word[entry])[0]]
                if following >= 0 and arrived + gains[following] >= least:
                    count = _offer(root, sound, following, arrived + gains[following], index, log_add, count, into)
    return count


@compiled
def _contest(count: int, contexts: Integers, into: Candidates) -> int:
    """Find the winner of each of `count` candidates, which may be itself; `leading` gets the (n,) winners' scores."""
    into.stamp[0] += 1
    mask = len(into.stamps) - 1
    for index in range(count):
        node, phone, history = into.places[index, NODE], into.places[index, PHONE], into.places[index, HISTORY]
        slot = _slot(into.stamps, contexts[history], node, phone)
        while into.stamps[slot] == into.stamp[0]:
            other = into.owners[slot]
            place = into.places[other]
            if place[NODE] == node and place[PHONE] == phone and contexts[place[HISTORY]] == contexts[history]:
                break
            slot = (slot + 1) & mask
        if into.stamps[slot] != into.stamp[0]:
            into.stamps[slot] = into.stamp[0]
            into.owners[slot] = index
        elif into.scores[index] > into.scores[into.owners[slot]]:
            into.owners[slot] = index
        into.winners[index] = slot
    winners = 0
    for index in range(count):
        into.winners[index] = into.owners[into.winners[index]]
        if into.winners[index] == index:
            into.leading[winners] = into.scores[index]
            winners += 1
    return winners


@compiled
def advance(
    tree: TreeArrays,
    root: int,
    frame: Frame,
    least: float,
    wanted: float,
    threshold: float,
    log_add: bool,
    beam: Beam,
    keys: Keys,
    values: Integers,
    gains: Scores,
    contexts: Integers,
    candidates: Candidates,
    after: Beam,
    parents: Integers,
    merged: Merged,
) -> tuple[int, int]:
    """Take one frame.

    Args:
        tree: what is searched.
        root: its root.
        frame: the frame.
        least: what a hypothesis must reach, by `missing_words`.
        wanted: what it must reach by look-ahead where a word ends, likewise.
        threshold: how far below the best a hypothesis may be.
        log_add: whether a place's score is the sum over its alignments, or that of the best.
        beam: before the frame.
        keys: the table of pairs that are known.
        values: the history that each pair makes, negative where that is not known.
        gains: what the last word of each history adds to a score.
        contexts: of each history what later words depend on, by number.
        candidates: room to work in.
        after: gets the beam after the frame; it is as long as the beam may be.
        parents: gets the hypothesis of `beam` from which each comes.
        merged: gets whom the hypotheses of `after` have beaten, as many as it has room for.

    Returns:
        How many hypotheses there are after the frame, and how many are written to `merged`.
    """
    count = _expand(tree, root, frame, least, wanted, log_add, beam, keys, values, gains, candidates)
    if count == 0:
        return 0, 0
    winners, room = _contest(count, contexts, candidates), len(after.scores)
    found = candidates.leading[:winners]
    least = found.max() - threshold
    if winners > room:
        least = max(least, np.partition(found, winners - room)[winners - room])
    held = 0
    for index in range(count):
        candidates.kept[index] = EMPTY
        if candidates.winners[index] == index and candidates.scores[index] >= least and held < room:
            after.places[held] = candidates.places[index]
            after.scores[held] = candidates.scores[index]
            parents[held] = candidates.parents[index]
            candidates.kept[index] = held
            held += 1
    beaten = 0
    for index in range(count):
        winner = candidates.winners[index]
        behind = candidates.scores[winner] - candidates.scores[index]
        if (
            winner != index
            and candidates.kept[winner] != EMPTY
            and behind < MOST_BEHIND
            and beaten < len(merged.behind)
        ):
            merged.columns[beaten, WINNER] = candidates.kept[winner]
            merged.columns[beaten, PARENT] = candidates.parents[index]
            merged.columns[beaten, BEATEN] = candidates.places[index, HISTORY]
            merged.behind[beaten] = behind
            beaten += 1
    return held, beaten


@compiled
def trace_back(
    index: int, parents: Integers, phones: NDArray[np.int8], histories: Integers, path: NDArray[np.int64]
) -> None:
    """Follow a hypothesis back through T frames: that of the last frame which is number `index` there.

    `path` (3, T) gets phone, history and number in each frame; the others are (T or more, K).
    """
    for frame in range(path.shape[1] - 1, -1, -1):
        path[0, frame], path[1, frame], path[2, frame] = phones[frame, index], histories[frame, index], index
        index = parents[frame, index]
