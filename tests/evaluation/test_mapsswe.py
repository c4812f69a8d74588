"""MAPSSWE: its segments by hand, its statistic against NIST's own sc_stats."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asr_service.evaluation.mapsswe import mapsswe, matched_segments

GOLDEN = Path(__file__).parent / "golden" / "mapsswe.json"
SC_STATS = shutil.which("sc_stats", path="/usr/lib/sctk/bin:/usr/local/bin:/usr/bin")


def segments(first, second):
    return list(matched_segments(first, second))


def test_two_words_right_in_both_systems_close_a_segment():
    assert segments("CSCCSC", "CCCCCC") == [(1, 0), (1, 0)]


def test_one_word_right_between_errors_does_not():
    assert segments("CSCSCC", "CCCCCC") == [(2, 0)]


def test_errors_of_either_system_open_a_segment_and_both_are_counted():
    assert segments("CSCCCCC", "CDCCSCC") == [(1, 1), (0, 1)]


def test_an_insertion_parts_two_words_that_are_right():
    assert segments("SCICCC", "CCCCC") == [(2, 0)]
    assert segments("SCCICC", "CCCCC") == [(1, 0), (1, 0)]


def test_insertions_at_both_ends_count_in_either_system():
    assert segments("ICC", "CC") == segments("CCI", "CC") == [(1, 0)]
    assert segments("CC", "ICC") == segments("CC", "CCI") == [(0, 1)]
    assert segments("II", "") == [(2, 0)]


def test_no_error_no_segment():
    assert segments("CCCC", "CCCC") == []


def test_references_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        segments("CCC", "CC")


def test_statistic_by_hand():
    outcome = mapsswe([("SSCCSCCS", "CCCCSCCC"), ("CC", "CS")])  # differences 2, 0, 1, -1
    assert (outcome.segments, outcome.errors, outcome.mean_difference) == (4, (4, 2), 0.5)
    assert outcome.std_dev == pytest.approx((5 / 3) ** 0.5)
    assert outcome.z == pytest.approx(0.5 / ((5 / 3) ** 0.5 / 2))
    assert outcome.p == pytest.approx(0.4386, abs=1e-4)


def test_equal_systems_give_z_0_and_p_1_and_the_order_only_turns_the_sign():
    same = mapsswe([("CSCCD", "CSCCD")])
    assert (same.z, same.p) == (0.0, 1.0)
    assert mapsswe([]).p == 1.0
    one, other = mapsswe([("SCCSCCC", "CCCCCCS")] * 3), mapsswe([("CCCCCCS", "SCCSCCC")] * 3)
    assert one.z == -other.z != 0
    assert one.p == other.p


def test_segments_that_all_differ_alike_give_the_sign_tests_p():
    outcome = mapsswe([("S", "C")] * 8)
    assert outcome.p == 2**-7
    assert outcome.z == pytest.approx(2.6601, abs=1e-4)
    assert mapsswe([("C", "S")] * 8).z == -outcome.z
    assert mapsswe([("S", "C")]).p == 1.0
    assert mapsswe([("S", "C")] * 5000).p < 1e-200


def made_up(utterances, seed):
    """Two alignments of each of some references; none of the second ends with insertions, which sc_stats overlooks."""
    draw = random.Random(seed)

    def alignment(words, weights):
        letters = ["".join(draw.choices(["C", "S", "D", "IC"], weights)) for _ in range(words)]
        return "".join(letters)

    sizes = [draw.randint(1, 25) for _ in range(utterances)]
    return [(alignment(size, (80, 10, 5, 5)), alignment(size, (85, 8, 4, 3))) for size in sizes]


def as_sgml(title, alignments):
    """What `sclite -o sgml` writes."""
    paths = []
    for number, operations in enumerate(alignments):
        words, index = [], 0
        for letter in operations:
            said = "" if letter == "I" else f'"word{index}"'
            heard = {"C": said, "S": f'"not{index}"', "D": "", "I": '"more"'}[letter]
            index += letter != "I"
            words.append(f"{letter},{said},{heard}")
        paths.append(
            f'<PATH id="(s-{number})" word_cnt="{len(words)}" sequence="{number}">\n{":".join(words)}\n</PATH>'
        )
    body = "\n".join(paths)
    return (
        f'<SYSTEM title="{title}" ref_fname="r" hyp_fname="{title}" creation_date="" format="2.4" frag_corr="FALSE" '
        f'opt_del="FALSE" weight_ali="FALSE" weight_filename="">\n<SPEAKER id="s">\n{body}\n</SPEAKER>\n</SYSTEM>\n'
    )


def sc_stats(alignments, folder):
    """What NIST's program makes of the same alignments."""
    one, other = ([pair[system] for pair in alignments] for system in (0, 1))
    piped = as_sgml("one", one) + as_sgml("other", other)
    command = [SC_STATS, "-p", "-t", "mapsswe", "-v", "-n", "-"]
    printed = subprocess.run(command, input=piped, text=True, capture_output=True, check=True, cwd=folder).stdout
    numbers = re.search(
        r"# segs: (\d+).*mean: *(\S+)\) \(std dev: *(\S+)\) \(Z Stat: *(\S+)\) \(Stat Diff: (\w+)", printed
    )
    totals = re.search(r"Totals +(\d+) +(\d+) +(\d+)", printed)
    assert numbers and totals, printed
    return {
        "segments": int(numbers[1]),
        "errors": [int(totals[2]), int(totals[3])],
        "mean": float(numbers[2]),
        "std_dev": float(numbers[3]),
        "z": float(numbers[4]),
        "different": numbers[5] == "Yes",
    }


def ours(alignments):
    outcome = mapsswe(alignments)
    return {
        "segments": outcome.segments,
        "errors": list(outcome.errors),
        "mean": pytest.approx(outcome.mean_difference, abs=6e-4),
        "std_dev": pytest.approx(outcome.std_dev, abs=6e-4),
        "z": pytest.approx(outcome.z, abs=6e-4),
        "different": outcome.p < 0.05,
    }


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: f"seed{case['seed']}")
def test_agrees_with_what_sc_stats_printed(case):
    assert case["sc_stats"] == ours(made_up(case["utterances"], case["seed"]))


@pytest.mark.skipif(SC_STATS is None, reason="sctk is not installed")
@pytest.mark.parametrize("seed", range(100, 105))
def test_agrees_with_sc_stats_itself(seed, tmp_path):
    alignments = made_up(60, seed)
    assert sc_stats(alignments, tmp_path) == ours(alignments)
