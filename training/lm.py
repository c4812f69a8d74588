r"""Estimate a word n-gram: modified Kneser-Ney over texts and manifests, as an ARPA file or a quantised KenLM trie.

    python -m training.lm --manifest train.jsonl --text more.txt.gz --order 3 --out runs/lm/lm.arpa
    python -m training.lm --text lm_text.txt.gz --text cased_text.txt.gz --manifest train.jsonl \
        --exclude-corpus fsdd_8k --lexicon runs/lexicon/lexicon.txt.gz --order 4 --prune 0,0,1,2 --bits 6 \
        --max-bytes 30000000 --out runs/lm/lm.kenlm --kenlm-bin DIR --dev dev.jsonl    # the shipped model

Texts are normalised as transcripts are, titles in full ("mister"), one sentence a line or several with their
punctuation. With `--lexicon`, words that it lacks become <unk>. Up to `training.kneser_ney.MAX_WORDS` words are
estimated in Python; KenLM's `lmplz` does it for any size where `--kenlm-bin` names its folder or it lies on PATH, with
the same numbers. An ARPA file is read as it is; a trie (`--out` ends with .kenlm) is smaller, loads by mmap and needs
KenLM's `build_binary`. PyPI's `kenlm` wheel does not hold these tools, its source package does:

    pip download --no-binary :all: --no-deps kenlm && tar xzf kenlm-*.tar.gz && cd kenlm-*/ && mkdir build && cd build
    cmake .. -DCMAKE_BUILD_TYPE=Release && make lmplz build_binary       # needs the boost development packages
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from asr_service.decoding.language_model import WordLanguageModel
from asr_service.evaluation.normalizer import dropped_characters, normalize_transcript
from asr_service.lexicon import Lexicon
from training.atomic import atomic_path
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.kneser_ney import MAX_ORDER, MIN_ORDER, estimate_model, prune_thresholds
from training.manifest import corpus_and_text, read_rows, warn_of_missing
from training.sentences import sentences
from training.spoken import as_said
from training.tokenizer import text_lines

TRIE_SUFFIX = ".kenlm"
USUAL_BITS = 8
USUAL_MEMORY = "1G"


def estimate(
    sentences: Iterable[str],
    arpa: Path,
    *,
    order: int = 3,
    prune: Sequence[int] = (),
    vocabulary: Collection[str] | None = None,
    lmplz: Path | None = None,
    memory: str = USUAL_MEMORY,
) -> Path:
    """Estimate an n-gram over normalised `sentences`, write it to `arpa`, and return that path.

    `order`, `prune` and `vocabulary` as in `training.kneser_ney.estimate_model`, which does it where `lmplz`, the path
    of KenLM's program, is not given. That takes at most `memory`, as its option -S, and sorts on disk beyond. Decoders
    read the file as they read a trie. Raises ValueError as `estimate_model` does, and RuntimeError with the program's
    words where `lmplz` fails.
    """
    thresholds = prune_thresholds(order, prune)
    if lmplz is None:
        estimate_model(sentences, order, thresholds, vocabulary).write_arpa(arpa)
        return arpa
    arpa.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arpa.parent) as scratch:
        text, words, draft = (Path(scratch) / name for name in ("text", "vocabulary", "arpa"))
        with text.open("w", encoding="utf-8") as output:
            output.writelines(sentence + "\n" for sentence in sentences)
        command = [lmplz, "-o", order, "--prune", *thresholds, "--discount_fallback", "-S", memory, "-T", scratch]
        command += ["--text", text, "--arpa", draft]
        if vocabulary is not None:
            words.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
            command += ["--limit_vocab_file", words]
        _run(command)
        draft.replace(arpa)
    return arpa


def build_trie(arpa: Path, trie: Path, *, bits: int, build_binary: Path) -> Path:
    """Pack an ARPA file into a trie with `bits` for each value and compressed pointers; returns `trie`."""
    with atomic_path(trie) as draft:
        _run([build_binary, "-q", bits, "-b", bits, "-a", 64, "-T", trie.parent / "", "trie", arpa, draft])
    return trie


def perplexity(model: Path, sentences: Iterable[str], vocabulary: Collection[str]) -> tuple[float, int, int]:
    """(perplexity without the unknown words, unknown words, tokens with sentence ends) of an ARPA file or a trie.

    An unknown word is one outside `vocabulary`, the words of the model; it stands in the histories as <unk>.
    """
    word_model = WordLanguageModel(model, sorted(vocabulary))
    log_prob, unknown, tokens = 0.0, 0, 0
    for sentence in sentences:
        state = word_model.start()
        for word in sentence.split():
            state, of_word = word_model.score(state, word)
            if word in vocabulary:
                log_prob += of_word
            else:
                unknown += 1
            tokens += 1
        log_prob += word_model.end(state)
        tokens += 1
    return math.exp(-log_prob / max(1, tokens - unknown)), unknown, tokens


def text_sentences(path: Path) -> Iterator[str]:
    """Sentences of a text file, as they are said. Raises ValueError and OSError as `text_lines` does."""
    yield from map(as_said, sentences(_counted(path, text_lines(path))))


def transcripts(manifest: Path, *, exclude: Collection[str] = (), corpus_prefix: str = "") -> Iterator[str]:
    """Normalised texts of a JSONL manifest's utterances; empty ones left out. Raises ValueError as `read_rows` does."""
    rows = read_rows(manifest, corpus_and_text)
    warn_of_missing(manifest, exclude, {corpus for corpus, _ in rows})
    texts = (text for corpus, text in rows if corpus not in exclude and corpus.startswith(corpus_prefix))
    for text in _counted(manifest, texts):
        yield from filter(None, [as_said(normalize_transcript(text))])


def _counted(path: Path, texts: Iterable[str]) -> Iterator[str]:
    """The texts; at their end a line on stderr counts those that are not spelled out, whose words would be lost."""
    count = lost = 0
    example = ""
    for text in texts:
        count += 1
        if dropped := dropped_characters(text):
            lost, example = lost + 1, example or dropped
        yield text
    if lost:
        told = f"{lost} of {count} texts are not spelled out (the first has {example[:8]!r}): those words are missing"
        print(f"{path}: {told}", file=sys.stderr)


def dev_sentences(arguments: argparse.Namespace) -> list[str]:
    """What `--dev` and `--dev-corpus` choose; nothing without `--dev`. Raises ValueError where they choose nothing."""
    if arguments.dev is None:
        return []
    found = list(transcripts(arguments.dev, corpus_prefix=arguments.dev_corpus))
    if not found:
        raise ValueError(
            f"{arguments.dev}: no text of a corpus that begins with {arguments.dev_corpus!r} (--dev-corpus)"
        )
    return found


def find_tool(name: str, folder: Path | None) -> Path | None:
    """Where KenLM's program `name` is: in `folder`, else on PATH; None where `folder` is not given and PATH lacks it.

    Raises ValueError with the remedy where `folder` lacks it.
    """
    found = shutil.which(name, path=str(folder) if folder else None)
    if found is None and folder is not None:
        raise ValueError(
            f"{name} is not in {folder}: it comes with KenLM's source package, see `--help` for how to build it"
        )
    return Path(found) if found else None


def _run(command: Sequence[object]) -> None:
    result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed ({result.returncode}):\n{result.stderr[-2000:]}")


def _thresholds(argument: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in argument.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers, joined by commas, not {argument!r}") from None


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """`--text`, `--manifest` and `--exclude-corpus`: what a language model reads."""
    parser.add_argument("--text", type=Path, action="append", default=[], help="text file, .gz or plain; repeatable")
    parser.add_argument("--manifest", type=Path, action="append", default=[], help="JSONL manifest; repeatable")
    parser.add_argument("--exclude-corpus", action="append", default=[], help="of the manifests; repeatable")


def chosen_sentences(arguments: argparse.Namespace) -> Iterator[str]:
    """Normalised sentences of what these options name."""
    for path in arguments.text:
        yield from text_sentences(path)
    for path in arguments.manifest:
        yield from transcripts(path, exclude=arguments.exclude_corpus)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("lm", __doc__)
    add_text_options(parser)
    parser.add_argument("--lexicon", type=Path, help="the vocabulary; without it, every word of the text")
    parser.add_argument("--order", type=int, default=3, help=f"{MIN_ORDER} to {MAX_ORDER}; default: 3")
    parser.add_argument(
        "--prune", type=_thresholds, default=(), help="0,0,1,2: drop n-grams of order i seen at most the i-th times"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=f"ARPA file, or a trie where it ends with {TRIE_SUFFIX}"
    )
    bits = f"of a trie's values; default: {USUAL_BITS}"
    parser.add_argument("--bits", type=int, choices=range(2, 17), metavar="2..16", help=bits)
    parser.add_argument("--max-bytes", type=int, help="fail where --out is larger")
    parser.add_argument(
        "--memory",
        default=USUAL_MEMORY,
        help=f"of lmplz, before it sorts on disk: 8G, or 50%% of all; default: {USUAL_MEMORY}",
    )
    parser.add_argument("--kenlm-bin", type=Path, help="folder of lmplz and build_binary; by default PATH is searched")
    parser.add_argument("--dev", type=Path, help="manifest whose perplexity is printed")
    parser.add_argument("--dev-corpus", default="", metavar="PREFIX", help="only corpora of --dev that begin so")
    return parser


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if not (arguments.text or arguments.manifest):
        parser.error("name a --text or a --manifest")
    if arguments.bits is not None and arguments.out.suffix != TRIE_SUFFIX:
        parser.error(f"--bits is of a trie's values, and {arguments.out} is none: its name must end with {TRIE_SUFFIX}")
    with told_in_one_line("lm"):
        _make(arguments)


def _make(arguments: argparse.Namespace) -> None:
    trie = arguments.out.suffix == TRIE_SUFFIX
    lmplz = find_tool("lmplz", arguments.kenlm_bin)
    build_binary = find_tool("build_binary", arguments.kenlm_bin)
    if trie and build_binary is None:
        raise ValueError(
            f"a {TRIE_SUFFIX} file needs build_binary: name its folder by --kenlm-bin, or write an ARPA file"
        )
    dev = dev_sentences(arguments)
    lexicon = frozenset(Lexicon.load(arguments.lexicon)) if arguments.lexicon else None
    words: set[str] = set()

    def read() -> Iterator[str]:
        for sentence in chosen_sentences(arguments):
            words.update(sentence.split())
            yield sentence

    with tempfile.TemporaryDirectory() as scratch:
        arpa = Path(scratch) / "arpa" if trie else arguments.out
        try:
            estimate(
                read(),
                arpa,
                order=arguments.order,
                prune=arguments.prune,
                vocabulary=lexicon,
                lmplz=lmplz,
                memory=arguments.memory,
            )
            if build_binary is not None and trie:
                build_trie(arpa, arguments.out, bits=arguments.bits or USUAL_BITS, build_binary=build_binary)
        except RuntimeError as error:  # KenLM failed, and says why in several lines
            raise SystemExit(str(error)) from error
    vocabulary = words if lexicon is None else words & lexicon
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {len(vocabulary)} words, {size / 1e6:.1f} MB, by {lmplz or 'training.kneser_ney'}")
    if dev:
        value, unknown, tokens = perplexity(arguments.out, dev, vocabulary)
        print(f"dev perplexity {value:.1f}, {unknown} of {tokens} tokens unknown")
    if arguments.max_bytes is not None and size > arguments.max_bytes:
        raise SystemExit(f"{arguments.out} has {size} bytes, more than {arguments.max_bytes}: prune more")


if __name__ == "__main__":
    main()
