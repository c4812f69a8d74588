"""Evaluations for tests, made in code: texts with some words wrong, timings, confidences, manifest fields."""

import random
from pathlib import Path

from asr_service.evaluation.output import Output, Timing
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.types import Word

TEXT = """
the clerk of weather said that harbour and river boats were late again because nobody had told captain morgan about a
storm which came over hills at seven in morning with rain enough for every garden in town
"""
WORDS = TEXT.split()


def references(count, speakers=4, seed=1):
    draw = random.Random(seed)
    return [
        Reference(
            utterance_id=f"set/{number:05d}.flac",
            text=" ".join(draw.choices(WORDS, k=draw.randint(4, 18))),
            audio_path=Path("set") / f"{number:05d}.flac",
            duration_s=round(draw.uniform(1.5, 14), 3),
            speaker=f"speaker {number % speakers}" if speakers else "",
            corpus="reading" if number % 3 else "meetings",
            fields={"microphone": "near" if number % 2 else "far", "take": number % 5},
        )
        for number in range(count)
    ]


def output(reference, draw, error_rate):
    """Words with errors; those that are right are more confident."""
    words, at = [], 0.2
    for said in reference.text.split():
        fate = draw.random()
        heard = [said]
        if fate < error_rate:
            heard = draw.choice([[], ["whether"], [said, "uh"], [draw.choice(WORDS)]])
        for text in heard:
            right = fate >= error_rate
            words.append(Word(text, round(at, 2), round(at + 0.3, 2), round(draw.betavariate(6 if right else 3, 2), 4)))
            at += 0.35
    unaware = tuple(round(draw.uniform(0.2, 0.6), 3) for _ in words)
    timing = Timing(
        processing_s=round(reference.duration_s * draw.uniform(0.02, 0.05), 4),
        audio_s=reference.duration_s,
        first_partial_s=round(draw.uniform(0.4, 0.9), 3),
        final_s=round(draw.uniform(0.2, 0.6), 3),
        unaware_first_partial_s=0.4,
        unaware_final_s=0.2,
        word_latencies_s=tuple(latency + 0.05 for latency in unaware),
        unaware_word_latencies_s=unaware,
        emitted_words=len(words) + 2,
        revoked_words=2,
        uncovered_s=(2.5,) if draw.random() < 0.1 else (),
    )
    return Output(reference.utterance_id, " ".join(word.text for word in words), tuple(words), timing)


def evaluation(count=40, *, error_rate=0.12, seed=2, system="en-s accurate", speakers=4, about=None):
    draw = random.Random(seed)
    spoken = references(count, speakers)
    heard = [output(reference, draw, error_rate) for reference in spoken]
    return score(
        spoken, heard, system=system, samples=200, about=about or {"model_hash": "ab12", "command": "asr eval"}
    )
