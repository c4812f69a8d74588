from __future__ import annotations

import pytest

from asr_service.engine.slots import SlotTable
from asr_service.errors import NoCapacity


def test_slots_are_bounded_and_come_back_under_a_new_generation() -> None:
    table = SlotTable(2)
    first, second = table.acquire(), table.acquire()
    assert first.slot != second.slot and table.taken == 2
    with pytest.raises(NoCapacity, match="all 2 streams"):
        table.acquire()
    table.release(first)
    again = table.acquire()
    assert again.slot == first.slot and again.generation != first.generation


def test_releasing_a_stale_handle_frees_nothing() -> None:
    table = SlotTable(1)
    old = table.acquire()
    table.release(old)
    table.acquire()
    table.release(old)
    assert table.taken == 1
