"""Who is next, and what fits: the longest waiting first, budgets that end, batches that are bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_service.engine.accurate_queue import AccurateQueue, Utterance
from asr_service.engine.scheduler import MOST_PADDING, Budget, batches, plan
from asr_service.engine.stream import Stream
from asr_service.engine.voice_activity import BANDS
from asr_service.types import Mode
from tests.engine.test_stream import CHUNK, LOOK, LOUD, MELS, EndAt, make_stream


def test_plan_takes_the_longest_waiting_first_and_tells_live_from_accurate() -> None:
    live = [make_stream(Mode.STREAMING, EndAt(), slot)[0] for slot in range(3)]
    files = [make_stream(Mode.ACCURATE, EndAt(0.08), slot)[0] for slot in (3, 4)]
    for turn, stream in ((5, live[0]), (2, live[1]), (9, files[0]), (7, files[1])):
        stream.add(np.ones((CHUNK + LOOK, MELS), np.float32), np.full((CHUNK + LOOK, BANDS), LOUD, np.float32), turn)
    ready = plan([*live, *files])
    assert [stream.handle.slot for stream, _ in ready.chunks] == [1, 0]
    assert [stream.handle.slot for stream in ready.utterances] == [4, 3]
    assert plan([live[2]]).chunks == ()


def test_a_stream_whose_final_is_due_has_no_other_work() -> None:
    stream, _ = make_stream(Mode.STREAMING, EndAt())
    stream.add(np.ones((CHUNK + LOOK, MELS), np.float32), np.full((CHUNK + LOOK, BANDS), LOUD, np.float32), 1)
    stream.final_since = 1
    assert plan([stream]).chunks == ()
    stream.final_since = None
    assert len(plan([stream]).chunks) == 1


@given(st.floats(0.01, 10), st.lists(st.floats(0.0, 3), min_size=1, max_size=50))
def test_a_budget_lets_one_thing_through_and_is_overdrawn_by_one_thing_at_most(limit: float, costs: list) -> None:
    budget, spent = Budget(limit), []
    for cost in costs:
        if not budget.left:
            break
        budget.spend(cost)
        spent.append(cost)
    assert spent
    assert sum(spent[:-1]) <= limit + 1e-9
    assert len(spent) == len(costs) or sum(spent) >= limit - 1e-9


@given(st.lists(st.integers(1, 3000), max_size=30), st.integers(1, 8000))
def test_batches_hold_everything_once_within_their_bound_and_padding(lengths: list, most: int) -> None:
    made = list(batches(lengths, most=most))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or max(sizes) * len(batch) <= most
        assert max(sizes) <= (1 + MOST_PADDING) * min(sizes) or len(batch) == 1


def utterance(stream: Stream, frames: int) -> Utterance:
    return Utterance(stream, np.zeros((frames, MELS), np.float32), frames, 0, frames, False)


def test_a_short_file_need_not_wait_for_all_that_a_long_one_has_brought_before() -> None:
    queue = AccurateQueue(frames_per_stream=1000)
    long, short = (make_stream(Mode.ACCURATE, EndAt(), slot)[0] for slot in (0, 1))
    of_long = [utterance(long, 300) for _ in range(3)]
    for one in of_long:
        queue.add(one)
    of_short = utterance(short, 100)
    queue.add(of_short)
    order = []
    while len(queue):
        order.append(queue.next())
        queue.done(order[-1])
    assert order == [of_long[0], of_short, of_long[1], of_long[2]]


def test_a_streams_queue_is_full_when_it_holds_its_frames_and_takes_on_when_some_are_done() -> None:
    queue = AccurateQueue(frames_per_stream=500)
    stream, other = (make_stream(Mode.ACCURATE, EndAt(), slot)[0] for slot in (0, 1))
    for frames in (200, 299):
        queue.add(utterance(stream, frames))
        assert queue.has_room(stream)
    queue.add(utterance(stream, 3000))
    assert not queue.has_room(stream) and queue.has_room(other)
    queue.done(queue.next())
    queue.done(queue.next())
    queue.drop(stream)
    assert queue.has_room(stream) and not len(queue)


def test_utterances_of_one_stream_and_of_several_are_encoded_together_when_their_lengths_are_near() -> None:
    queue = AccurateQueue(frames_per_stream=10_000)
    one, two = (make_stream(Mode.ACCURATE, EndAt(), slot)[0] for slot in (0, 1))
    waiting = [utterance(one, 400), utterance(one, 900), utterance(one, 380), utterance(two, 410)]
    for each in waiting:
        queue.add(each)
    encoded = utterance(two, 400)
    encoded.parts = iter(())
    queue.add(encoded)
    batch = queue.batch_with(queue.next(), most_frames=1300)
    assert batch == [waiting[0], waiting[3], waiting[2]]
    assert queue.batch_with(waiting[0], most_frames=100) == [waiting[0]]
