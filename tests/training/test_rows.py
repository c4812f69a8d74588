"""Long form: joined rows are neighbours in order, inside the batch's seconds, and pauses are where they were drawn."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.augmentation.pauses import background, room_tone_level, with_pauses
from training.augmentation.rows import draw_rows, plain_rows
from training.example import Example
from training.recipe import AugmentConfig

RATE_HZ = 16_000
JOIN = AugmentConfig(join_probability=1.0, join_longest_s=30.0)


def corpus(seed: int, speakers: str = "aaaaaaaabbbbbbbbcccccccc") -> list[Example]:
    rng = random.Random(seed)
    return [Example(n, rng.uniform(1.0, 12.0), (n,), (n, n), speaker) for n, speaker in enumerate(speakers)]


@given(seed=st.integers(0, 300))
def test_joined_rows_are_neighbours_of_one_speaker_in_order_and_no_longer_than_asked(seed: int) -> None:
    examples = corpus(seed)
    batch = random.Random(seed).sample(range(24), 6)
    rows = draw_rows(batch, examples, JOIN, random.Random(seed))
    for row in rows:
        assert row.parts == tuple(range(row.parts[0], row.parts[-1] + 1))
        assert len({examples[part].speaker for part in row.parts}) == 1
        assert len(row.pauses_s) == len(row.parts) + 1
        assert set(row.parts) & set(batch)
        assert row.duration_s(examples) <= 30.0
        assert all(0.2 <= pause <= 1.5 for pause in row.pauses_s[1:-1])


@given(seed=st.integers(0, 300), pad=st.booleans(), join=st.booleans())
def test_rows_fit_into_the_padded_seconds_of_their_batch_unless_there_is_one(seed: int, pad: bool, join: bool) -> None:
    examples = corpus(seed)
    batch = random.Random(seed).sample(range(24), 6)
    config = AugmentConfig(join_probability=float(join), pad_probability=float(pad))
    rows = draw_rows(batch, examples, config, random.Random(seed))
    longest = max(row.duration_s(examples) for row in rows)
    assert len(rows) == 1 or longest * len(rows) <= 6 * max(examples[i].duration_s for i in batch) + 1e-6
    if pad:
        assert all(0.1 <= row.pauses_s[0] <= 1.5 and 0.1 <= row.pauses_s[-1] <= 1.5 for row in rows)


def test_joining_makes_rows_longer_and_speakers_unknown_are_not_joined() -> None:
    rows = [row for seed in range(20) for row in draw_rows([3, 12, 17], corpus(1), JOIN, random.Random(seed))]
    assert sum(len(row.parts) > 1 for row in rows) > len(rows) / 2
    nobody = [Example(n, 1.0, (n,), ()) for n in range(5)]
    assert all(len(row.parts) == 1 for row in draw_rows(range(5), nobody, JOIN, random.Random(0)))


def test_without_probabilities_rows_are_the_utterances() -> None:
    assert draw_rows([4, 2], corpus(0), AugmentConfig(), random.Random(0)) == plain_rows([4, 2])


def noisy_speech(floor: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    wave = floor * torch.randn(RATE_HZ, generator=generator)
    wave[4_000:12_000] += 0.3 * torch.randn(8_000, generator=generator)
    return wave


def test_the_room_tone_is_the_level_of_what_is_quiet() -> None:
    assert float(room_tone_level(noisy_speech(0.01), RATE_HZ)) == pytest.approx(0.01, rel=0.15)
    assert float(room_tone_level(torch.ones(100), RATE_HZ)) == 0.0


def test_utterances_lie_unchanged_between_pauses_of_the_lengths_asked_for() -> None:
    first, second = noisy_speech(0.01), noisy_speech(0.02)
    levels = set()
    for seed in range(20):
        wave = with_pauses([first, second], [100, 3_000, 700], RATE_HZ, (0.0, 2.0), random.Random(seed))
        assert len(wave) == 2 * RATE_HZ + 3_800
        assert torch.equal(wave[100 : 100 + RATE_HZ], first)
        assert torch.equal(wave[RATE_HZ + 3_100 : -700], second)
        pause = float(wave[RATE_HZ + 100 : RATE_HZ + 3_100].square().mean().sqrt())
        levels.add(pause > 0)
        assert pause == 0.0 or pause == pytest.approx(0.01, rel=0.2)
    assert levels == {True, False}


def test_a_lone_utterance_without_pauses_is_itself() -> None:
    wave = noisy_speech(0.01)
    assert torch.equal(with_pauses([wave], [0, 0], RATE_HZ, (0.0, 2.0), random.Random(0)), wave)


def test_the_last_utterance_of_a_speaker_is_joined_with_those_before_it() -> None:
    rows = [row for seed in range(20) for row in draw_rows([7], corpus(1), JOIN, random.Random(seed))]
    assert any(len(row.parts) > 1 for row in rows)
    assert {row.parts[-1] for row in rows} == {7}


def test_pauses_are_drawn_from_the_whole_of_their_ranges() -> None:
    config = AugmentConfig(join_probability=1.0, pad_probability=1.0, pause_s=(0.2, 0.8), pad_s=(1.0, 2.0))
    rows = [row for seed in range(60) for row in draw_rows([3, 12, 17], corpus(1), config, random.Random(seed))]
    gaps = [gap for row in rows for gap in row.pauses_s[1:-1]]
    for drawn, low, high in (
        (gaps, 0.2, 0.8),
        ([row.pauses_s[0] for row in rows], 1.0, 2.0),
        ([row.pauses_s[-1] for row in rows], 1.0, 2.0),
    ):
        assert low <= min(drawn) < low + 0.2 * (high - low)
        assert high >= max(drawn) > high - 0.2 * (high - low)


def test_three_in_ten_rows_have_pauses_of_nothing_at_all() -> None:
    wave = noisy_speech(0.01)
    paused = [with_pauses([wave], [900, 0], RATE_HZ, (0.0, 2.0), random.Random(seed)) for seed in range(200)]
    assert sum(not one[:900].any() for one in paused) / 200 == pytest.approx(0.3, abs=0.1)


def test_a_background_is_from_barely_there_to_as_loud_as_speech() -> None:
    made = [background(800, RATE_HZ, (0.0, 2.0), random.Random(seed), torch.device("cpu")) for seed in range(100)]
    levels_db = [float(10 * torch.log10(wave.square().mean())) for wave in made]
    assert -70.1 < min(levels_db) < -60.0 and -25.0 < max(levels_db) < -14.9
