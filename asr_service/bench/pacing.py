"""When messages are due, and whether the generator itself was late: a late generator measures itself, not a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

# The event loop is asked this often how late it is; messages alone would not tell, where a server holds them up.
TICK_S = 0.01


@dataclass
class PaceLog:
    """How punctual the generator was, in seconds; shared by all streams of a run.

    Attributes:
        late_s: for each tick of the event loop, and each message that the call was ready for in time, how long after
            its due time it came. This is the generator's own fault, or its machine's.
        held_s: for each message that the call took late, how late: the server, or the transport, did not read on.
        messages: how many were sent.
    """

    late_s: list[float] = field(default_factory=list)
    held_s: list[float] = field(default_factory=list)
    messages: int = 0


async def in_real_time(
    messages: Iterable[bytes], *, begun: float, message_s: float, duration_s: float, log: PaceLog
) -> AsyncIterator[bytes]:
    """Each message when its last sample has been spoken, by a schedule that does not drift.

    `begun` is time.monotonic() of the first sample; `duration_s` is of all messages together, for the last may be
    shorter.
    """
    for number, message in enumerate(messages, 1):
        due = begun + min(number * message_s, duration_s)
        wait_s = due - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            log.late_s.append(time.monotonic() - due)
        else:
            log.held_s.append(-wait_s)
        log.messages += 1
        yield message


async def watch_event_loop(log: PaceLog, period_s: float = TICK_S) -> None:
    """Note how late the event loop is, until cancelled."""
    due = time.monotonic()
    while True:
        due += period_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        log.late_s.append(now - due)
        due = max(due, now - period_s)  # what was missed is one lateness, not one for every tick
