"""What a stream plays: the same at every load, for as long as was asked, with nothing lost between messages."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.bench.playlist import BYTES_PER_SAMPLE, pause_pcm, playlist
from tests.bench.made_up import tone_clip

RATE_HZ = 16_000
CLIPS = [tone_clip(f"clip{number}", number, 0.1 * number, 9 - number) for number in range(5)]


@given(st.integers(0, 40), st.floats(0.5, 20), st.floats(0, 2), st.none() | st.integers(1, 4))
def test_a_playlist_lasts_as_long_as_asked_or_up_to_a_clip_longer(stream, seconds, pause_s, clips_per_call):
    calls = playlist(CLIPS, stream, seconds=seconds, pause_s=pause_s, clips_per_call=clips_per_call)
    total_s = sum(call.duration_s for call in calls)
    longest_s = max(clip.duration_s for clip in CLIPS) + pause_s
    assert seconds <= total_s + 1e-9 and total_s < seconds + longest_s
    assert all(len(call.clips) == clips_per_call for call in calls[:-1])
    if clips_per_call is None:
        assert len(calls) == 1


@given(st.integers(0, 40), st.sampled_from([0.02, 0.1, 0.37]))
def test_messages_are_the_clips_and_pauses_and_each_clip_lies_where_the_playlist_says(stream, message_s):
    (call,) = playlist(CLIPS, stream, seconds=4.0, pause_s=0.5)
    messages = list(call.messages(message_s))
    size = round(message_s * RATE_HZ) * BYTES_PER_SAMPLE
    assert {len(message) for message in messages[:-1]} <= {size}
    assert 0 < len(messages[-1]) <= size
    audio = b"".join(messages)
    assert len(audio) == round(call.duration_s * RATE_HZ) * BYTES_PER_SAMPLE
    assert audio == pause_pcm(0.5).join(played.clip.pcm for played in call.clips)
    for played in call.clips:
        start = round(played.start_s * RATE_HZ) * BYTES_PER_SAMPLE
        assert audio[start : start + len(played.clip.pcm)] == played.clip.pcm


def test_a_longer_playlist_of_a_stream_begins_like_its_shorter_one():
    (short,) = playlist(CLIPS, 3, seconds=2.0, pause_s=0.5)
    (long,) = playlist(CLIPS, 3, seconds=9.0, pause_s=0.5)
    assert long.clips[: len(short.clips)] == short.clips


def test_neighbouring_streams_begin_with_different_clips():
    first = [playlist(CLIPS, stream, seconds=1.0, pause_s=0.5)[0].clips[0].clip.reference for stream in range(4)]
    assert all(one != two for one, two in itertools.pairwise(first))


def test_words_of_a_played_clip_are_in_stream_time():
    (call,) = playlist(CLIPS[1:2], 0, seconds=2.0, pause_s=0.5)
    assert call.clips[1].words[0].start_s == pytest.approx(CLIPS[1].duration_s + 0.5)


def test_nothing_to_play_is_an_error():
    with pytest.raises(ValueError, match="no clip"):
        playlist([], 0, seconds=1.0, pause_s=0.5)
