"""A tiny lexicon, an n-gram for it, and posteriors to search."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr_service.decoding.lexicon_beam import LexiconBeamOptions
from asr_service.lexicon import PHONE_VOCABULARY_SIZE, Lexicon, phone_ids

# "a" has one phone and two pronunciations, "sea" and "see" are homophones, "cat" starts "cats".
WORDS = {
    "cat": [("K", "AE", "T")],
    "cats": [("K", "AE", "T", "S", "AH", "Z")],
    "see": [("S", "IY")],
    "sea": [("S", "IY")],
    "a": [("EH",), ("EY",)],
}

_UNIGRAMS = {"<unk>": -3.0, "<s>": -99.0, "</s>": -0.9, "cat": -0.8, "cats": -1.1, "see": -0.7, "sea": -1.0, "a": -0.6}
_BIGRAMS = {("<s>", "see"): -0.2, ("see", "a"): -0.3, ("a", "cat"): -0.25, ("cat", "</s>"): -0.4}


# A search that loses nothing: no beam, and nobody goes on as one with another.
EXHAUSTIVE = LexiconBeamOptions(
    beam_size=5000,
    beam_size_token=40,
    beam_threshold=1e6,
    lm_weight=0.8,
    word_score=-0.5,
    log_add=False,
    context_words=100,
    n_best_margin=1e6,
    max_frames=2000,
)


def lexicon() -> Lexicon:
    return Lexicon(WORDS)


def arpa(folder: Path) -> Path:
    """A bigram as KenLM reads it."""
    lines = ["\\data\\", f"ngram 1={len(_UNIGRAMS)}", f"ngram 2={len(_BIGRAMS)}", "", "\\1-grams:"]
    lines += [f"{value}\t{word}\t{0.0 if word in ('<unk>', '</s>') else -0.3}" for word, value in _UNIGRAMS.items()]
    lines += ["", "\\2-grams:"] + [f"{value}\t{a} {b}" for (a, b), value in _BIGRAMS.items()]
    path = folder / "tiny.arpa"
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="ascii")
    return path


def random_log_probs(frames: int, columns: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0.0, 2.0, (frames, columns))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def spoken(text: str, seed: int, noise: float = 0.5) -> np.ndarray:
    """(T, 40) log-probabilities as a good phone CTC gives them for `text`: 1-3 frames a phone, some blanks."""
    rng = np.random.default_rng(seed)
    labels: list[int] = []
    for word in text.split():
        for phone in phone_ids(WORDS[word][0]):
            labels += [phone] * rng.integers(1, 4) + [0] * rng.integers(0, 2)
        labels += [0]
    logits = rng.normal(0.0, noise, (len(labels), PHONE_VOCABULARY_SIZE))
    logits[np.arange(len(labels)), labels] += 6.0
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def columns_of_words(log_probs: np.ndarray) -> np.ndarray:
    """Make every phone that no word has impossible: the exhaustive search stays small."""
    used = {0, *(i for entry in WORDS.values() for phones in entry for i in phone_ids(phones))}
    log_probs = log_probs.copy()
    log_probs[:, [i for i in range(log_probs.shape[1]) if i not in used]] = -1e4
    return log_probs
