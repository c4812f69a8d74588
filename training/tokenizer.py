"""Train a tokenizer: byte-pair encoding of manifests and text files, normalised by rules that its file names.

    python -m training.tokenizer --manifest train.jsonl --vocab-size 256 --out tokenizer.json
    python -m training.tokenizer --text novels.txt.gz --normalizer nfc --byte-fallback --vocab-size 1024 --out t.json

`transcript` are the rules of scoring (a to z, apostrophe, space); `nfc` keeps case and every character. With
`--byte-fallback` the characters that make up `--character-coverage` of the text get pieces, the others are spelled in
bytes; without it, every character of the text gets a piece, and encoding another one is an error.
"""

from __future__ import annotations

import argparse
import gzip
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_service.evaluation.normalizer import NORMALIZER_VERSION, normalize_transcript
from asr_service.tokenizer import LETTERS, WORD_START, Normalization, WordPieces
from training.atomic import atomic_path
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.manifest import corpus_and_text, read_rows, warn_of_missing

_SPACES_AND_CONTROLS = re.compile(f"[\\s\\x00-\\x1f\\x7f-\\x9f{WORD_START}]+")


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Rules that make a text what the model learns, and the version of them."""

    version: str
    apply: Callable[[str], str]


def normalize_nfc(text: str) -> str:
    """Return `text` in Unicode's form NFC with single spaces; control characters and "▁" count as spaces."""
    return _SPACES_AND_CONTROLS.sub(" ", unicodedata.normalize("NFC", text)).strip()


NORMALIZERS: Mapping[str, Normalizer] = {
    "transcript": Normalizer(NORMALIZER_VERSION, normalize_transcript),
    "nfc": Normalizer("1", normalize_nfc),
}
# What a file without the key was trained with: all that were made before the key was.
UNRECORDED = "transcript"
# Share of a text's characters that get pieces where the others are spelled in bytes.
USUAL_COVERAGE = 0.9995


def normalizer_of(pieces: WordPieces) -> Normalizer:
    """The rules a vocabulary was trained with. Raises ValueError where this code has others of that name, or none."""
    recorded = pieces.normalization
    if recorded is None:
        return NORMALIZERS[UNRECORDED]
    known = NORMALIZERS.get(recorded.name)
    if known is None or known.version != recorded.version:
        has = "none of that name" if known is None else f"version {known.version}"
        raise ValueError(
            f"the tokenizer's texts were normalised by {recorded.name!r}, version {recorded.version}; here is {has}"
        )
    return known


def check_transcripts(pieces: WordPieces, source: Path) -> None:
    """Raises ValueError, which names `source`, where the vocabulary's texts were not normalised as transcripts are."""
    try:
        rules = normalizer_of(pieces)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if rules is not NORMALIZERS["transcript"]:
        raise ValueError(f"{source}: a tokenizer of texts by {pieces.normalization}, not of transcripts")


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    normalizer: str = "transcript",
    byte_fallback: bool = False,
    character_coverage: float = 1.0,
) -> WordPieces:
    """Learn a vocabulary from texts as they are written; they are normalised here, and the file will say how.

    `character_coverage` is the share of the characters of the text that get pieces, the most frequent first; below 1
    it needs `byte_fallback`. Raises ValueError where it has not got that or is no share, for an empty text and for a
    vocabulary that cannot hold the single characters.
    """
    if not 0.0 <= character_coverage <= 1.0:  # NaN is neither
        raise ValueError(f"the character coverage is {character_coverage}, must be 0 to 1")
    if character_coverage < 1.0 and not byte_fallback:
        raise ValueError(f"a character coverage of {character_coverage} needs byte fall-back for the rest")
    rules = NORMALIZERS[normalizer]
    lines = [line for line in map(rules.apply, texts) if line]
    if not lines:
        raise ValueError("no text to learn from")
    return WordPieces.train(
        lines,
        vocab_size,
        byte_fallback=byte_fallback,
        alphabet=covering(lines, character_coverage) if byte_fallback else None,
        normalization=Normalization(normalizer, rules.version),
    )


def covering(lines: Iterable[str], coverage: float) -> str:
    """The most frequent characters that together make up the share `coverage` of the text, and a to z with them."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    del counts[" "]
    wanted = coverage * counts.total()
    covered = 0
    chosen = []
    for char, count in counts.most_common():
        if covered >= wanted:
            break
        chosen.append(char)
        covered += count
    return "".join(dict.fromkeys((*LETTERS, *chosen)))


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file, gzipped where its name ends with .gz.

    Raises ValueError, which names the file, where it is not that, and OSError where it cannot be opened.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield from lines
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from error


def raw_texts(manifests: Iterable[Path], files: Iterable[Path], exclude: Collection[str] = ()) -> Iterator[str]:
    """Texts of manifests and the lines of text files, as they are written.

    Raises ValueError for a manifest as `read_rows` does, and for a text file as `text_lines` does.
    """
    for manifest in manifests:
        rows = read_rows(manifest, corpus_and_text)
        warn_of_missing(manifest, exclude, {corpus for corpus, _ in rows})
        yield from (text for corpus, text in rows if corpus not in exclude)
    for path in files:
        yield from text_lines(path)


def main() -> None:
    parser = command_parser("tokenizer", __doc__)
    parser.add_argument("--manifest", type=Path, action="append", default=[], help="JSONL manifest; repeatable")
    parser.add_argument("--text", type=Path, action="append", default=[], help="text file, .gz or plain; repeatable")
    parser.add_argument("--exclude-corpus", action="append", default=[], help="of the manifests; repeatable")
    parser.add_argument("--vocab-size", type=int, required=True, help="of all tokens")
    parser.add_argument(
        "--normalizer", choices=NORMALIZERS, default="transcript", help="rules for the texts; default: transcript"
    )
    parser.add_argument("--byte-fallback", action="store_true", help="add 256 byte tokens for all other characters")
    parser.add_argument(
        "--character-coverage", type=float, help=f"with --byte-fallback: 0 to 1; default: {USUAL_COVERAGE}"
    )
    parser.add_argument("--out", type=Path, required=True, help="tokenizer.json")
    arguments = parser.parse_args()
    if not (arguments.manifest or arguments.text):
        parser.error("name a --manifest or a --text")
    coverage = arguments.character_coverage
    if coverage is not None and not 0.0 <= coverage <= 1.0:  # NaN is neither
        parser.error(f"argument --character-coverage: must be 0 to 1, not {coverage}")
    if coverage is not None and not arguments.byte_fallback:
        parser.error("--character-coverage needs --byte-fallback, which spells the other characters")
    with told_in_one_line("tokenizer"):
        _make(arguments)


def _make(arguments: argparse.Namespace) -> None:
    texts = list(raw_texts(arguments.manifest, arguments.text, arguments.exclude_corpus))
    coverage = arguments.character_coverage
    if coverage is None:
        coverage = USUAL_COVERAGE if arguments.byte_fallback else 1.0
    pieces = train(
        texts,
        arguments.vocab_size,
        normalizer=arguments.normalizer,
        byte_fallback=arguments.byte_fallback,
        character_coverage=coverage,
    )
    with atomic_path(arguments.out) as draft:
        pieces.save(draft)
    if pieces.vocab_size < arguments.vocab_size:
        print(f"{arguments.vocab_size} tokens were asked for: the texts give no more than {pieces.vocab_size}")
    _describe(pieces, texts, arguments.normalizer)


def _describe(pieces: WordPieces, texts: Iterable[str], normalizer: str) -> None:
    """Print how long the texts are in tokens, and what is spelled in bytes."""
    words = tokens = 0
    spelled: Counter[str] = Counter()
    for text in map(normalizer_of(pieces).apply, texts):
        words += len(text.split())
        tokens += len(pieces.encode(text))
        spelled.update(pieces.unknown_characters(text))
    rules = f"{normalizer}, version {NORMALIZERS[normalizer].version}"
    print(f"{pieces.vocab_size} tokens, normalised by {rules}; {tokens / max(1, words):.2f} tokens a word")
    if spelled:
        shown = " ".join(char for char, _ in spelled.most_common(20))
        print(f"{spelled.total()} characters of {len(spelled)} kinds are spelled in bytes: {shown}")


if __name__ == "__main__":
    main()
