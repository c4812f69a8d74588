"""A ramp finds the largest number of streams that holds, and does not blame the server for a late generator."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.bench.figures import figures
from asr_service.bench.ramp import Objective, RampResult, ramp
from tests.bench.test_figures import RIGHT, WRONG, load_record, two_streams


class Server:
    """Holds `capacity` streams; the generator is late from `late_from` on."""

    def __init__(self, capacity, late_from=10**9):
        self.capacity, self.late_from, self.tried = capacity, late_from, []

    def measure(self, streams):
        self.tried.append(streams)
        return SimpleNamespace(streams=streams, valid=streams < self.late_from)

    def broken(self, measured):
        return ["too many"] if measured.streams > self.capacity else []


@given(st.integers(0, 300), st.integers(1, 64), st.integers(64, 256))
def test_the_largest_number_is_found_to_a_twentieth(capacity, first, limit):
    server = Server(capacity)
    result = ramp(server.measure, server, first=first, limit=limit)
    assert result.generator_late_at is None
    assert max(server.tried) <= limit and len(set(server.tried)) == len(server.tried)
    if capacity >= limit:
        assert result == RampResult(limit, None)
    else:
        assert result.largest <= capacity < result.broke_at
        assert result.broke_at - result.largest <= max(1, result.largest / 20)


def test_a_late_generator_ends_the_ramp_only_where_the_objective_breaks():
    server = Server(20, late_from=16)
    assert ramp(server.measure, server, first=1, limit=256) == RampResult(16, None, 32)


@pytest.mark.parametrize(
    ("record", "alone", "problem"),
    [
        (load_record(*two_streams(RIGHT)), (), None),
        (load_record(*two_streams(RIGHT, shown_s=4.0)), (), "p95 of the words is 3"),
        (load_record(*two_streams(WRONG)), two_streams(RIGHT), "33.33 points above"),
        (load_record(*two_streams(WRONG)), two_streams(WRONG), None),
    ],
)
def test_the_objective_names_what_broke(record, alone, problem):
    broken = Objective(word_p95_s=2.0).broken(figures(record, alone=alone))
    assert broken == [] if problem is None else problem in broken[0]


def test_refused_and_failed_streams_break_the_objective():
    calls = two_streams(RIGHT)
    calls[1].status, calls[1].reason = "RESOURCE_EXHAUSTED", "NO_CAPACITY"
    assert Objective(word_p95_s=2.0).broken(figures(load_record(*calls))) == ["1 stream was refused"]
    calls[1].status, calls[1].reason = "GIVEN_UP", ""
    assert Objective(word_p95_s=2.0).broken(figures(load_record(*calls))) == ["1 stream ended with GIVEN_UP"]
