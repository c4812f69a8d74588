"""Messages go out by the clock, without drift, and who was late is told: the generator, or whom it sends to."""

from __future__ import annotations

import asyncio

import pytest

from asr_service.bench import pacing
from asr_service.bench.figures import percentiles
from asr_service.bench.pacing import TICK_S, PaceLog, in_real_time, watch_event_loop


class Clock:
    """Time that goes on only where somebody sleeps or works; each sleep wakes `oversleeps_s` late."""

    def __init__(self, oversleeps_s: float = 0.0, most_sleeps: int = 50) -> None:
        self.now_s = 100.0
        self.oversleeps_s = oversleeps_s
        self.sleeps, self.most_sleeps = 0, most_sleeps

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        if self.sleeps > self.most_sleeps:
            raise asyncio.CancelledError
        self.now_s += seconds + self.oversleeps_s


def use(monkeypatch, clock):
    monkeypatch.setattr(pacing.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(pacing.asyncio, "sleep", clock.sleep)
    return clock


async def sent_at(clock, log, *, messages=5, work_s=0.0, away=()):
    """The call takes `work_s` for each message, and then each of `away`: seconds, and whether the loop runs in them."""
    times, absences = [], iter(away)
    paced = in_real_time([b"x"] * messages, begun=100.0, message_s=0.1, duration_s=0.1 * messages - 0.04, log=log)
    async for _ in paced:
        times.append(clock.now_s - 100.0)
        clock.now_s += work_s
        for seconds, loop_runs in next(absences, ()):
            log.loop_runs(clock.now_s)
            log.seen_s = clock.now_s
            clock.now_s += seconds
            if loop_runs:
                log.seen_s = clock.now_s
    return times


@pytest.mark.asyncio
async def test_each_message_goes_when_its_last_sample_has_been_spoken(monkeypatch):
    clock, log = use(monkeypatch, Clock()), PaceLog()
    assert await sent_at(clock, log) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.46])
    assert log.late_s == pytest.approx([0.0] * 5, abs=1e-9)
    assert (log.held_s, log.messages) == ([], 5)


@pytest.mark.asyncio
async def test_a_generator_that_oversleeps_is_late_and_does_not_drift(monkeypatch):
    clock, log = use(monkeypatch, Clock(oversleeps_s=0.03)), PaceLog()
    assert await sent_at(clock, log) == pytest.approx([0.13, 0.23, 0.33, 0.43, 0.49])
    assert log.late_s == pytest.approx([0.03] * 5)


@pytest.mark.asyncio
async def test_a_server_that_does_not_read_is_not_the_generators_lateness(monkeypatch):
    clock, log = use(monkeypatch, Clock()), PaceLog()
    await sent_at(clock, log, work_s=0.15)
    assert log.late_s == pytest.approx([0.0])
    assert log.held_s == pytest.approx([0.05, 0.1, 0.15, 0.24])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("away", "late", "held"),
    [
        ([(0.35, False)], [0.25, 0.15, 0.05], []),
        ([(0.35, True)], [], [0.25, 0.15, 0.05]),  # the call wrote for so long
        ([(0.35, False), (0.2, True)], [0.25], [0.2, 0.2, 0.19]),  # and then one that fell due after the stall
    ],
    ids=["the loop stands still", "the server does not read", "one after the other"],
)
async def test_messages_are_late_by_whoever_held_them_up_for_longer(monkeypatch, away, late, held):
    clock, log = use(monkeypatch, Clock()), PaceLog(seen_s=100.0)
    await sent_at(clock, log, away=[away])
    slept = [value for value in log.late_s if abs(value) < 1e-9]
    assert log.late_s[1 : 1 + len(late)] == pytest.approx(late)
    assert log.held_s == pytest.approx(held)
    assert len(slept) + len(late) + len(held) == log.messages == 5


@pytest.mark.asyncio
async def test_an_event_loop_that_is_blocked_is_late(monkeypatch):
    use(monkeypatch, Clock(oversleeps_s=0.2))
    log = PaceLog()
    with pytest.raises(asyncio.CancelledError):
        await watch_event_loop(log)
    found = percentiles(log.late_s)
    assert found is not None and found.p50 == pytest.approx(0.1, abs=0.01) and found.p99 > 0.19


@pytest.mark.asyncio
async def test_an_event_loop_that_is_blocked_once_is_late_for_as_long_as_that_lasted(monkeypatch):
    clock = use(monkeypatch, Clock())
    oversleeps = iter([0.0, 0.0, 1.0])

    async def sleep(seconds: float) -> None:
        clock.oversleeps_s = next(oversleeps, 0.0)
        await Clock.sleep(clock, seconds)

    monkeypatch.setattr(pacing.asyncio, "sleep", sleep)
    log = PaceLog()
    with pytest.raises(asyncio.CancelledError):
        await watch_event_loop(log)
    missed = [1 - TICK_S * number for number in range(100)]
    assert log.late_s[2:102] == pytest.approx(missed)
    assert max(log.late_s[:2] + log.late_s[102:]) < 0.001
    assert log.stalls == [pytest.approx((100.02, 101.03))]


@pytest.mark.asyncio
async def test_a_generator_that_stands_still_for_a_second_in_ten_measures_itself(monkeypatch):
    clock = use(monkeypatch, Clock(most_sleeps=900))

    async def sleep(seconds: float) -> None:
        clock.oversleeps_s = 1.0 if clock.sleeps == 450 else 0.0
        await Clock.sleep(clock, seconds)

    monkeypatch.setattr(pacing.asyncio, "sleep", sleep)
    log = PaceLog()
    with pytest.raises(asyncio.CancelledError):
        await watch_event_loop(log)
    found = percentiles(log.late_s)
    assert found is not None and found.p50 < 0.001 and found.p99 == pytest.approx(0.9, abs=0.02)
