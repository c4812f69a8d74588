"""When messages are due, and whether the generator itself was late: a late generator measures itself, not a server."""

from __future__ import annotations

import asyncio
import bisect
import math
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

# The event loop is asked this often how late it is; messages alone would not tell, where a server holds them up.
TICK_S = 0.01
# The loop stood still where it was not seen for this long: at least one tick was missed.
STALL_S = 2 * TICK_S


@dataclass
class PaceLog:
    """How punctual the generator was, in seconds; shared by all streams of a run.

    Attributes:
        late_s: for each tick of the event loop, and each message but those of `held_s`, how long after its due time
            the loop ran. This is the generator's own fault, or its machine's.
        held_s: for each message that the call took late, how late: the server, or the transport, did not read on. Of
            one that fell due while the loop stood still, from when it ran again, and only where that is the longer
            part of its lateness.
        messages: how many were sent.
        stalls: from when to when the event loop stood still, in order.
        seen_s: when the event loop was last known to run; infinite while nobody watches it.
    """

    late_s: list[float] = field(default_factory=list)
    held_s: list[float] = field(default_factory=list)
    messages: int = 0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    seen_s: float = math.inf

    def loop_runs(self, now_s: float) -> None:
        """Note a stall that ends now. A stream may run again before the watcher does."""
        if now_s - self.seen_s > STALL_S:
            self.stalls.append((self.seen_s, now_s))
            self.seen_s = now_s

    def end_of_stall(self, due_s: float) -> float:
        """Of the one that `due_s` lies in; `due_s` itself where the loop ran."""
        before = bisect.bisect_right(self.stalls, (due_s, math.inf))
        return max(due_s, self.stalls[before - 1][1]) if before else due_s


async def in_real_time(
    messages: Iterable[bytes], *, begun: float, message_s: float, duration_s: float, log: PaceLog
) -> AsyncIterator[bytes]:
    """Each message when its last sample has been spoken, by a schedule that does not drift.

    `begun` is time.monotonic() of the first sample; `duration_s` is of all messages together, for the last may be
    shorter.
    """
    for number, message in enumerate(messages, 1):
        due = begun + min(number * message_s, duration_s)
        now = time.monotonic()
        log.loop_runs(now)
        if now < due:
            await asyncio.sleep(due - now)
            log.late_s.append(time.monotonic() - due)
        else:
            ran = log.end_of_stall(due)
            if ran - due > now - ran:  # the loop held it up for longer than the call
                log.late_s.append(ran - due)
            else:
                log.held_s.append(now - ran)
        log.messages += 1
        yield message


async def watch_event_loop(log: PaceLog) -> None:
    """Note how late the event loop is, until cancelled. Each tick that it missed counts: a stall weighs by its time."""
    due = log.seen_s = time.monotonic()
    while True:
        due += TICK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        log.loop_runs(now)
        log.seen_s = now
        log.late_s.append(now - due)
        while now - due >= TICK_S:
            due += TICK_S
            log.late_s.append(now - due)
