"""The output of any other system, so that `--hyp` scores it: in each of the formats that can carry one."""

from __future__ import annotations

import itertools
import json
import logging
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asr_service.errors import ConfigError
from asr_service.evaluation.output import Output
from asr_service.evaluation.problems import refuse_if_any
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references.kaldi import read_pairs
from asr_service.evaluation.references.nist import confidence_of, ctm_id, ctm_words, trn_lines
from asr_service.evaluation.references.rows import (
    AUDIO,
    ID,
    TEXT,
    Row,
    field,
    json_rows,
    row_id,
    table_rows,
    text_field,
)
from asr_service.evaluation.references.subtitles import read_subtitles
from asr_service.evaluation.references.text import numbered, seconds, unpacked
from asr_service.evaluation.store import load
from asr_service.types import Word

# The names under which a row has what was recognised. A file without any of them has it as its text; one with them has
# both, and its text is what was said.
PREDICTION = ("hypothesis", "hyp", "pred_text", "prediction")
WORD = ("word", "text")
START = ("start", "start_s", "start_time")
END = ("end", "end_s", "end_time")
CONFIDENCE = ("confidence", "conf", "probability")
FORMATS = ("jsonl", "csv", "tsv", "ctm", "trn", "kaldi", "srt", "vtt", "evaluation")
_LEFT_OUT = "%s: %d words lie in segments that are not scored and are left out"
_log = logging.getLogger(__name__)


def read_outputs(
    path: Path | str,
    *,
    references: Sequence[Reference] = (),
    format: str = "",  # noqa: A002 -- the field's own word, and the option's name
) -> list[Output]:
    """Read hypotheses in `format`, one of FORMATS, or in the one that the file looks like.

    `evaluation` is our own JSON of an evaluation, scored anew. A CTM has one output a recording; where `references`
    are segments of it (from an STM), each word goes to the segment that its middle lies in, of several to the one that
    begins last; words where nothing is to be scored are left out, and counted in the log. Words are kept where the
    system gives times and confidences for all of an utterance; otherwise only their text is.

    Raises ManifestProblems with all that is wrong; ConfigError for an unknown format.
    """
    path = Path(path)
    chosen = format or format_of(path)
    if chosen not in FORMATS:
        raise ConfigError(f"{path}: its format is {chosen or 'not known'}: name one of {', '.join(FORMATS)}")
    if chosen == "evaluation":
        return [utterance.output for utterance in load(path).utterances]
    problems: list[str] = []
    outputs = _read_ctm(path, references, problems) if chosen == "ctm" else _READERS[chosen](path, problems)
    counts = Counter(output.utterance_id for output in outputs)
    problems += [f"{path}: {name} stands there {count} times" for name, count in counts.items() if count > 1]
    refuse_if_any(problems or ([] if outputs else [f"{path}: no hypothesis"]))
    return outputs


def format_of(path: Path) -> str:
    """The format of a file of hypotheses by its name and content; "" where it is none of FORMATS."""
    suffix = unpacked(path).suffix.removeprefix(".").lower()
    if path.is_dir() or suffix in {"", "txt"}:
        return "kaldi"
    if suffix in {"json", "jsonl"}:
        _, line = next(numbered(path, []), ("", "{}"))
        try:
            row = json.loads(line)
        except ValueError:
            # The first line of an evaluation is a lone brace; in JSON lines it would be wrong in any case.
            return "evaluation" if line == "{" else "jsonl"
        return "evaluation" if isinstance(row, dict) and "schema_version" in row else "jsonl"
    return suffix if suffix in FORMATS else ""


def _read_table(path: Path, problems: list[str]) -> list[Output]:
    rows = list(table_rows(path, problems))
    columns = list(rows[0][1]) if rows else []
    for what, names in (("hypothesis", (*PREDICTION, *TEXT)), ("id", (*ID, *AUDIO))):
        if rows and not {*names} & {*columns}:  # once, and not once a row
            problems.append(f"{path}:1: no column for the {what} ({', '.join(names)}); there are {', '.join(columns)}")
            rows = []
    return _read_rows(rows, problems)


def _read_rows(found: Iterable[tuple[str, Row]], problems: list[str]) -> list[Output]:
    rows, outputs = list(found), []
    hypothesis = PREDICTION if any(name in row for _, row in rows for name in PREDICTION) else TEXT
    for place, row in rows:
        try:
            if field(row, hypothesis) is None:
                raise ValueError(f"no hypothesis: none of the fields {', '.join(hypothesis)}, or null")
            if not (utterance_id := row_id(row)):
                raise ValueError("neither audio_filepath nor id")
            outputs.append(Output(utterance_id, text_field(row, hypothesis), tuple(_words(row.get("words")))))
        except ValueError as error:
            problems.append(f"{place}: {error}")
    return outputs


def _words(entries: Any) -> list[Word]:
    """The words of a JSON row. Raises ValueError for what is no word; none where a confidence or a time is missing."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        if entries is None or isinstance(entries, (str, int)):  # a table's column of that name
            return []
        raise ValueError("words must be a list of objects")
    rows = [[field(entry, names) for names in (WORD, START, END, CONFIDENCE)] for entry in entries]
    if any(value is None for row in rows for value in row):
        return []
    words = [
        Word(str(word), seconds(start, "a word's start"), seconds(end, "a word's end"), confidence_of(confidence))
        for word, start, end, confidence in rows
    ]
    if backwards := [word.text for word in words if word.end_s < word.start_s]:
        raise ValueError(f"the word {backwards[0]} ends before it begins")
    return words


def _read_trn(path: Path, problems: list[str]) -> list[Output]:
    return [Output(utterance_id, text) for utterance_id, text in trn_lines(path, problems)]


def _read_kaldi(path: Path, problems: list[str]) -> list[Output]:
    pairs = read_pairs(path / "text" if path.is_dir() else path, problems)
    return [Output(utterance_id, text) for utterance_id, text in pairs.items()]


def _read_subtitles(path: Path, problems: list[str]) -> list[Output]:
    return [Output(cues.utterance_id, cues.text) for cues in read_subtitles(path, problems)]


def _read_ctm(path: Path, references: Sequence[Reference], problems: list[str]) -> list[Output]:
    segments: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    for reference in references:
        if reference.duration_s is not None and {"recording", "channel"} <= reference.fields.keys():
            segments[str(reference.fields["recording"]), str(reference.fields["channel"])].append(reference)
    unscored: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    of_files = {id(reference.unscored): reference.unscored for reference in references}
    for part in itertools.chain.from_iterable(of_files.values()):
        unscored[part.recording, part.channel].append((part.begin_s, part.end_s))
    outputs: list[Output] = []
    for (recording, channel), words in ctm_words(path, problems).items():
        apart, place = unscored[recording, channel], f"{path}: {recording}"
        if parts := segments.get((recording, channel)):
            parts.sort(key=lambda part: (part.offset_s, -_end_s(part)))
            outputs += _by_segment(words, parts, apart, place)
        elif apart:
            _log.warning(_LEFT_OUT, place, len(words))
        else:
            outputs.append(_output(ctm_id(recording, channel), words))
    return outputs


def _by_segment(
    words: list[tuple[Word, bool]], segments: list[Reference], apart: list[tuple[float, float]], place: str
) -> Iterator[Output]:
    """Every word belongs to the segment that its middle lies in, or else to the nearest one.

    None is dropped but those outside all segments where nothing is to be scored, `apart`.
    """
    begins, longer = [segment.offset_s for segment in segments], _longer_before(segments)
    taken: list[list[tuple[Word, bool]]] = [[] for _ in segments]
    outside = unscored = 0
    for word, known in words:
        middle_s = (word.start_s + word.end_s) / 2
        index = _nearest(middle_s, segments, begins, longer)
        if _distance_s(segments[index], middle_s) > 0:
            if any(begin_s <= middle_s <= end_s for begin_s, end_s in apart):
                unscored += 1
                continue
            outside += 1
        start_s = segments[index].offset_s
        moved = Word(word.text, max(0.0, word.start_s - start_s), max(0.0, word.end_s - start_s), word.confidence)
        taken[index].append((moved, known))
    if unscored:
        _log.warning(_LEFT_OUT, place, unscored)
    if outside:
        _log.warning("%s: %d words lie in no segment and are scored with the nearest", place, outside)
    for segment, found in zip(segments, taken, strict=True):
        yield _output(segment.utterance_id, found)


def _nearest(time_s: float, segments: Sequence[Reference], begins: Sequence[float], longer: Sequence[int]) -> int:
    """The number of the nearest segment, of several the last: what is said in the middle of another's turn is apart."""
    after = bisect_right(begins, time_s)
    index = after - 1
    while index >= 0 and longer[index] >= 0 and _end_s(segments[index]) < time_s:
        index = longer[index]
    near = [number for number in (after, index) if 0 <= number < len(segments)]
    return min(near, key=lambda number: _distance_s(segments[number], time_s))


def _longer_before(segments: Sequence[Reference]) -> list[int]:
    """For each segment the last one before it that ends after it, -1 where none does.

    None between the two is nearer than they are to a time behind all of them, and few segments lie one in the other.
    """
    found: list[int] = []
    for index, segment in enumerate(segments):
        before = index - 1
        while before >= 0 and _end_s(segments[before]) <= _end_s(segment):
            before = found[before]
        found.append(before)
    return found


def _distance_s(segment: Reference, time_s: float) -> float:
    return max(segment.offset_s - time_s, time_s - _end_s(segment), 0.0)


def _end_s(segment: Reference) -> float:
    assert segment.duration_s is not None
    return segment.offset_s + segment.duration_s


def _output(utterance_id: str, words: list[tuple[Word, bool]]) -> Output:
    kept = tuple(word for word, _ in words) if all(known for _, known in words) else ()
    return Output(utterance_id, " ".join(word.text for word, _ in words), kept)


_READERS: dict[str, Callable[[Path, list[str]], list[Output]]] = {
    "jsonl": lambda path, problems: _read_rows(json_rows(path, problems), problems),
    "csv": _read_table,
    "tsv": _read_table,
    "trn": _read_trn,
    "kaldi": _read_kaldi,
    "srt": _read_subtitles,
    "vtt": _read_subtitles,
}
