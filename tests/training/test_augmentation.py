"""Each distortion does what it is asked for, no more, and the same again for the same seed."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.augmentation.fourier import fast_length
from training.augmentation.noise import add_noise, babble, coloured_noise
from training.augmentation.speed import change_speed, changed_lengths
from training.augmentation.telephone import compand, telephone
from training.augmentation.waveform import WaveformAugmentation
from training.recipe import AugmentConfig

CPU = torch.device("cpu")
RATE_HZ = 16_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def power_db(waves: torch.Tensor) -> float:
    return float(10 * torch.log10(waves.square().mean()))


def above_db(wave: torch.Tensor, hz: float) -> float:
    """Energy above a frequency, relative to all of it."""
    energy = torch.fft.rfft(wave.double()).abs().square()
    frequency = torch.linspace(0, RATE_HZ / 2, len(energy))
    return float(10 * torch.log10(energy[frequency > hz].sum() / energy.sum()))


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_divides_the_length_and_multiplies_the_pitch(speed: float) -> None:
    tone = torch.sin(2 * torch.pi * 500 * torch.arange(RATE_HZ) / RATE_HZ)
    changed = change_speed(tone, speed)
    assert len(changed) == math.ceil(RATE_HZ / speed)
    spectrum = torch.fft.rfft(changed * torch.hann_window(len(changed))).abs()
    assert int(spectrum.argmax()) * RATE_HZ / len(changed) == pytest.approx(500 * speed, abs=2)


@pytest.mark.parametrize("speed", [0.9, 0.95, 1.0, 1.1])
def test_padded_rows_change_speed_as_each_alone_does(speed: float) -> None:
    rows = [torch.randn(samples, generator=seeded(samples)) for samples in (16_000, 900, 15_999, 16_001, 7_777)]
    together = change_speed(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), speed)
    lengths = changed_lengths([len(row) for row in rows], speed)
    for row, changed, length in zip(rows, together, lengths, strict=True):
        assert torch.equal(changed[:length], change_speed(row, speed))
    assert together.shape[1] == max(lengths)


@pytest.mark.parametrize("samples", [1, 93, 300_020, 300_111])
def test_lengths_are_those_of_the_resampler_where_single_precision_rounds_them(samples: int) -> None:
    assert changed_lengths([samples], 0.93) == [len(change_speed(torch.zeros(samples), 0.93))]


def smooth(number: int) -> bool:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1


@given(samples=st.integers(1, 100_000))
def test_a_fast_length_is_the_least_even_one_of_small_factors(samples: int) -> None:
    length = fast_length(samples)
    assert length % 2 == 0
    assert smooth(length)
    assert not any(smooth(shorter) for shorter in range(samples + samples % 2, length, 2))


@settings(max_examples=30)
@given(snr_db=st.floats(-10, 40), slope=st.floats(0, 2), level=st.floats(1e-3, 1.0), seed=st.integers(0, 99))
def test_the_noise_added_is_at_the_ratio_asked_for(snr_db: float, slope: float, level: float, seed: int) -> None:
    lengths = torch.tensor([4_000, 2_500])
    waves = torch.randn(2, 4_000, generator=seeded(seed)) * level
    waves[1, 2_500:] = 0.0
    noise = coloured_noise([slope, slope], 4_000, RATE_HZ, seeded(seed + 1), CPU)
    noisy = add_noise(waves, lengths, noise, torch.tensor([snr_db, snr_db + 3]))
    for row, length in enumerate(lengths):
        added = (noisy - waves)[row, :length]
        assert power_db(waves[row, :length]) - power_db(added) == pytest.approx(snr_db + 3 * row, abs=0.1)
    assert not noisy[1, 2_500:].any()


def test_silence_stays_silence_under_noise_relative_to_it() -> None:
    noise = coloured_noise([1.0], 1_000, RATE_HZ, seeded(), CPU)
    assert not add_noise(torch.zeros(1, 1_000), torch.tensor([1_000]), noise, torch.tensor([10.0])).any()


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_by_its_slope(slope: float) -> None:
    noise = coloured_noise([slope], 20 * RATE_HZ, RATE_HZ, seeded(), CPU)[0]
    density = torch.fft.rfft(noise).abs().square()
    frequency = torch.linspace(0, RATE_HZ / 2, len(density))

    def around_db(hz: float) -> float:
        return float(10 * torch.log10(density[(frequency > 0.8 * hz) & (frequency < 1.25 * hz)].mean()))

    assert around_db(400) - around_db(4_000) == pytest.approx(10 * slope, abs=0.7)


def test_babble_is_all_its_voices_at_equal_power_however_long_or_loud_they_are() -> None:
    tones = {100: (900, 0.01), 300: (5_000, 1.0), 700: (40_000, 3_000.0)}
    voices = [
        torch.sin(2 * torch.pi * hz * torch.arange(samples) / RATE_HZ) * level for hz, (samples, level) in tones.items()
    ]
    mixed = babble(voices, RATE_HZ, random.Random(0))
    assert mixed.shape == (RATE_HZ,)
    spectrum = torch.fft.rfft(mixed * torch.hann_window(RATE_HZ)).abs().square()
    powers = [10 * torch.log10(spectrum[hz - 30 : hz + 30].sum()) for hz in tones]
    assert max(powers) - min(powers) < 1.0


def test_a_voice_of_the_babble_begins_anywhere_and_goes_round() -> None:
    voice = torch.linspace(1.0, 2.0, 500)
    mixed = [babble([voice], 1_200, random.Random(seed)) for seed in range(20)]
    begins = [int(((one[0] / one.max()) * 2.0 - 1.0) * 499 + 0.5) for one in mixed]
    assert min(begins) < 125 and max(begins) > 375
    for begin, one in zip(begins, mixed, strict=True):
        torch.testing.assert_close(one / one.max() * 2.0, voice[(begin + torch.arange(1_200)) % 500])


def test_babble_of_a_recording_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        babble([torch.zeros(0)], 100, random.Random(0))


def line(waves: torch.Tensor, low_hz: float, high_hz: float, law: str | None) -> torch.Tensor:
    rows = torch.ones(len(waves))
    return telephone(waves, low_hz * rows, high_hz * rows, law)


@pytest.mark.parametrize("law", ["mulaw", "alaw", None])
@pytest.mark.parametrize(("low_hz", "high_hz"), [(0.0, 3_950.0), (300.0, 3_400.0)])
def test_a_telephone_line_leaves_nothing_above_4_khz_and_speech_below(
    law: str | None, low_hz: float, high_hz: float
) -> None:
    wave = 0.1 * torch.randn(1, 15_001, generator=seeded())
    out = line(wave, low_hz, high_hz, law)
    assert out.shape == wave.shape
    assert above_db(out[0], 4_050) < -50
    if law is None:
        assert above_db(out[0], high_hz + 50) < -40
    tone = 0.3 * torch.sin(2 * torch.pi * 1_000 * torch.arange(RATE_HZ) / RATE_HZ)
    error = line(tone[None], low_hz, high_hz, law)[0] - tone
    assert power_db(tone[500:-500]) - power_db(error[500:-500]) > 30


def test_what_is_low_passes_a_line_unless_it_is_cut() -> None:
    hum = 0.3 * torch.sin(2 * torch.pi * 100 * torch.arange(RATE_HZ) / RATE_HZ)[None]
    inside = slice(2_000, -2_000)
    assert power_db(line(hum, 0.0, 3_950.0, "mulaw")[:, inside]) == pytest.approx(power_db(hum), abs=0.5)
    assert power_db(line(hum, 300.0, 3_950.0, "mulaw")[:, inside]) < power_db(hum) - 40


def test_rows_go_through_lines_of_their_own() -> None:
    waves = 0.1 * torch.randn(2, 8_000, generator=seeded())
    both = telephone(waves, torch.tensor([0.0, 300.0]), torch.tensor([3_950.0, 3_400.0]), "alaw")
    torch.testing.assert_close(both[:1], line(waves[:1], 0.0, 3_950.0, "alaw"))
    torch.testing.assert_close(both[1:], line(waves[1:], 300.0, 3_400.0, "alaw"))


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_companding_rounds_to_values_that_have_a_code(law: str) -> None:
    ramp = torch.linspace(-1.2, 1.2, 200_001)
    rounded = compand(ramp, law)
    assert len(rounded.unique()) in (255, 256)
    assert torch.equal(compand(rounded, law), rounded)
    inside = ramp.abs() < 0.98
    assert ((rounded - ramp)[inside].abs() <= ramp[inside].abs() / 32 + 0.001).all()


def distorter(**settings: object) -> WaveformAugmentation:
    def voices(rng: random.Random, speaker: str, count: int) -> list[torch.Tensor]:
        return [torch.randn(3_000, generator=seeded(rng.randrange(99))) for _ in range(count)]

    return WaveformAugmentation(AugmentConfig(**settings), voices, None, RATE_HZ)  # type: ignore[arg-type]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    waves, lengths = 0.1 * torch.randn(8, 6_000, generator=seeded()), torch.tensor([6_000] * 4 + [3_500] * 4)
    return waves.masked_fill(torch.arange(6_000) >= lengths.unsqueeze(1), 0.0), lengths


EVERYTHING = {"noise_probability": 0.7, "gain_probability": 0.7, "telephone_probability": 0.5}


def test_a_batch_is_distorted_alike_for_one_seed_and_differently_for_another() -> None:
    waves, lengths = batch()
    distort = distorter(**EVERYTHING)
    first, again, other = (distort(waves, lengths, "aabbccdd", random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()
    assert first.abs().max() < 4.0
    assert not first[4:, 3_500:].any()


def test_half_of_the_rows_or_so_are_distorted_when_half_are_to_be() -> None:
    waves, lengths = batch()
    distort = distorter(noise_probability=0.5)
    changed = [
        bool((distort(waves, lengths, "aabbccdd", random.Random(seed))[row] != waves[row]).any())
        for seed in range(40)
        for row in range(8)
    ]
    assert 0.4 < np.mean(changed) < 0.6


def test_babble_is_made_of_other_speakers() -> None:
    asked = []

    def voices(rng: random.Random, speaker: str, count: int) -> list[torch.Tensor]:
        asked.append((speaker, count))
        return [torch.ones(count)]

    waves, lengths = batch()
    config = AugmentConfig(noise_probability=1.0, babble_share=1.0, babble_voices=(2, 4))
    WaveformAugmentation(config, voices, None, RATE_HZ)(waves, lengths, "aabbccdd", random.Random(0))
    assert [speaker for speaker, _ in asked] == list("aabbccdd")
    assert {count for _, count in asked} <= {2, 3, 4}


def test_nothing_asked_for_is_nothing_done() -> None:
    waves, lengths = batch()
    assert torch.equal(distorter()(waves, lengths, "aabbccdd", random.Random(0)), waves)


def test_a_gain_is_inside_its_range_and_never_takes_samples_beyond_full_scale() -> None:
    waves, lengths = batch()
    out = distorter(gain_probability=1.0, gain_db=(-20.0, 60.0))(waves, lengths, "aabbccdd", random.Random(0))
    assert out.abs().max() <= 1.0 + 1e-6
    ratios = out[:, :3_500] / waves[:, :3_500]
    np.testing.assert_allclose(ratios, ratios[:, :1].expand_as(ratios), rtol=1e-4)
    assert ratios.min() >= 0.1 - 1e-6
    assert len(ratios[:, 0].unique()) == 8


@pytest.mark.parametrize("what", ["room", "noise", "gain", "telephone", "codec"])
def test_each_distortion_falls_on_its_share_of_the_rows(what: str) -> None:
    waves, lengths = batch()
    rooms = torch.zeros(1, 50)
    rooms[0, ::7] = 0.3
    config = AugmentConfig(**{f"{what}_probability": 0.25})  # type: ignore[arg-type]
    distort = WaveformAugmentation(config, lambda *_: [], rooms, RATE_HZ)
    changed = [
        bool((distorted[row] != waves[row]).any())
        for distorted in (distort(waves, lengths, "aabbccdd", random.Random(seed)) for seed in range(40))
        for row in range(8)
    ]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.08)


def test_ratios_of_noise_are_drawn_from_their_range() -> None:
    waves, lengths = batch()
    noise = distorter(noise_probability=1.0, noise_snr_db=(0.0, 20.0))
    added = [noise(waves, lengths, "aabbccdd", random.Random(seed)) - waves for seed in range(8)]
    ratios_db = [power_db(waves[row, :3_500]) - power_db(noise[row, :3_500]) for noise in added for row in range(8)]
    assert -0.5 < min(ratios_db) < 3.0 and 17.0 < max(ratios_db) < 20.5
    assert np.mean(ratios_db) == pytest.approx(10.0, abs=2.5)


def test_noise_has_the_colour_and_the_share_of_voices_asked_for() -> None:
    waves, lengths = batch()
    for slope, least, most in ((0.0, -4.0, -2.0), (2.0, -40.0, -10.0)):
        coloured = distorter(noise_probability=1.0, noise_slope=(slope, slope), babble_share=0.0)
        added = coloured(waves, lengths, "aabbccdd", random.Random(0)) - waves
        assert least < above_db(added[0], 4_000) < most
    asked: list[str] = []
    config = AugmentConfig(noise_probability=1.0, babble_share=0.2)
    voices = WaveformAugmentation(config, lambda _, speaker, count: asked.append(speaker) or [], None, RATE_HZ)
    for seed in range(40):
        voices(waves, lengths, "aabbccdd", random.Random(seed))
    assert len(asked) / 320 == pytest.approx(0.2, abs=0.08)


def test_lines_are_of_all_laws_and_half_of_them_let_through_what_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    laws, lows, highs = set(), [], []

    def heard(waves: torch.Tensor, low_hz: torch.Tensor, high_hz: torch.Tensor, law: str | None) -> torch.Tensor:
        laws.add(law)
        lows.extend(low_hz.tolist())
        highs.extend(high_hz.tolist())
        return waves

    monkeypatch.setattr("training.augmentation.waveform.telephone", heard)
    for seed in range(20):
        distorter(telephone_probability=1.0)(*batch(), "aabbccdd", random.Random(seed))
    assert laws == {"mulaw", "alaw", None}
    assert lows.count(0.0) / len(lows) == pytest.approx(0.5, abs=0.12)
    assert max(lows) <= 300.0 and min(highs) >= 3_400.0 and max(highs) <= 3_950.0
