"""Scores of one system on one test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from asr_service.evaluation.alignment import Costs, align
from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.normalizer import Normalizer
from asr_service.evaluation.normalizer import normalizer as normalizer_named
from asr_service.evaluation.output import Output
from asr_service.evaluation.problems import SHOWN_PROBLEMS, refuse_if_any, wrong_times, wrong_words
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.result import Evaluation, UtteranceScore
from asr_service.evaluation.wer import count_characters, count_words

BLOCK_UTTERANCES = 1000


def score(
    references: Sequence[Reference | str],
    outputs: Sequence[Output | str],
    *,
    normalizer: str | Normalizer = "basic",
    costs: Costs = "equal",
    system: str = "",
    about: Mapping[str, str] | None = None,
    seed: int = 0,
    samples: int = 2000,
) -> Evaluation:
    """Align each reference with its output, both normalised the same way, and count.

    Plain texts belong together by their order and are numbered from 1; otherwise utterance ids pair them. The result
    has the references' order. `seed` and `samples` are the bootstrap's.

    Raises ManifestProblems, with the whole list, for ids that stand there twice, references without output, outputs
    without reference, times and confidences that are none, and an empty test set; ConfigError for an unknown
    normaliser; ValueError for unknown costs.
    """
    rule = normalizer if isinstance(normalizer, Normalizer) else normalizer_named(normalizer)
    pairs = _paired(references, outputs)
    utterances: list[UtteranceScore] = []
    for begin in range(0, len(pairs), BLOCK_UTTERANCES):
        utterances += _scored(pairs[begin : begin + BLOCK_UTTERANCES], rule, costs)
    interval = wer_interval(
        [utterance.words.errors for utterance in utterances],
        [utterance.words.reference_words for utterance in utterances],
        [utterance.reference.speaker for utterance in utterances],
        seed=seed,
        samples=samples,
    )
    return Evaluation(system, rule.label, costs, tuple(utterances), interval, dict(about or {}))


def _scored(pairs: Sequence[tuple[Reference, Output]], rule: Normalizer, costs: Costs) -> Iterator[UtteranceScore]:
    words = [(rule(reference.text).split(), rule(output.text).split()) for reference, output in pairs]
    alignments = align(words, costs)
    for (reference, output), (said, heard), alignment in zip(pairs, words, alignments, strict=True):
        scored_reference, scored_hypothesis = " ".join(said), " ".join(heard)
        yield UtteranceScore(
            reference,
            output,
            scored_reference,
            scored_hypothesis,
            words=count_words(alignment),
            characters=count_characters(scored_reference, scored_hypothesis),
            alignment=alignment,
        )


def _paired(references: Sequence[Reference | str], outputs: Sequence[Output | str]) -> list[tuple[Reference, Output]]:
    spoken = [
        Reference(str(number), reference) if isinstance(reference, str) else reference
        for number, reference in enumerate(references, 1)
    ]
    refuse_if_any([] if spoken else ["the test set is empty: no reference"])
    if any(isinstance(output, str) for output in outputs) and len(outputs) != len(spoken):
        refuse_if_any([f"{len(spoken)} references, but {len(outputs)} plain texts to score: they pair by their order"])
    heard = [
        Output(spoken[index].utterance_id, output) if isinstance(output, str) else output
        for index, output in enumerate(outputs)
    ]
    by_id = {output.utterance_id: output for output in heard}
    known = dict.fromkeys(reference.utterance_id for reference in spoken)
    refuse_if_any(
        [
            *_repeated("references", (reference.utterance_id for reference in spoken)),
            *_repeated("outputs", (output.utterance_id for output in heard)),
            *_unpaired(list(known), list(by_id)),
            *wrong_times(spoken),
            *wrong_words(heard),
        ]
    )
    return [(reference, by_id[reference.utterance_id]) for reference in spoken]


def _unpaired(references: Sequence[str], outputs: Sequence[str]) -> Iterator[str]:
    spoken, heard = set(references), set(outputs)
    if heard and not spoken & heard:
        yield (
            f"no id is among both: references have ids such as {references[0]!r}, outputs such as {outputs[0]!r};"
            " a reference's is its field `id`, or else its `audio_filepath`"
        )
        return
    unheard = [name for name in references if name not in heard]
    unspoken = [name for name in outputs if name not in spoken]
    yield from (f"{name}: a reference without an output" for name in unheard)
    yield from (f"{name}: an output without a reference" for name in unspoken)
    if len(unheard) > SHOWN_PROBLEMS:
        yield f"{len(unheard)} of {len(references)} references have no output"
    if len(unspoken) > SHOWN_PROBLEMS:
        yield f"{len(unspoken)} of {len(outputs)} outputs have no reference"


def _repeated(where: str, names: Iterator[str]) -> Iterator[str]:
    return (f"{name}: {count} times among the {where}" for name, count in Counter(names).items() if count > 1)
