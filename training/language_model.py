"""Estimate the word n-gram of a bundle: modified Kneser-Ney, count-pruned, as a quantised KenLM trie.

    python -m training.language_model --speech-dir ../shared/speech --lexicon runs/lexicon/lexicon.txt.gz \
        --out runs/lm --kenlm-bin DIR [--compare]

The text is lm_text.txt.gz, cased_text.txt.gz and the training transcripts, normalised as transcripts are; words that
the lexicon lacks become <unk>. KenLM's `lmplz`, `build_binary` and `query` do the work. PyPI's `kenlm` wheel does not
hold them, its source package does:

    pip download --no-binary :all: --no-deps kenlm && tar xzf kenlm-*.tar.gz && cd kenlm-*/ && mkdir build && cd build
    cmake .. -DCMAKE_BUILD_TYPE=Release && make lmplz build_binary query       # needs the boost development packages

`--compare` builds every choice of `CHOICES`; each perplexity printed is on the LibriSpeech parts of dev.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_service.evaluation.normalizer import normalize_transcript
from asr_service.lexicon import Lexicon

MODEL_FILE = "lm.kenlm"
MAX_BYTES = 30_000_000
# Share-alike recordings: their transcripts stay out of what is shipped, as the recordings do.
EXCLUDED_CORPORA = ("fsdd_8k",)
_SENTENCE_END = re.compile(r"(?<=[.!?;])[\"\u201d']?\s+")


@dataclass(frozen=True, slots=True)
class Choice:
    """One model: n-grams of order i seen at most `prune[i-1]` times are dropped; values have `bits` bits."""

    prune: tuple[int, ...]
    bits: int

    @property
    def name(self) -> str:
        return f"{len(self.prune)}gram-prune{''.join(map(str, self.prune))}-q{self.bits}"


CHOICES = tuple(
    Choice(prune, bits) for prune in ((0, 0, 1), (0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 1, 2)) for bits in (8, 6)
)
SHIPPED = Choice(prune=(0, 0, 1, 2), bits=6)


def find_tool(name: str, folder: Path | None) -> Path:
    """Where `name` of KenLM's tools is: in `folder`, else on PATH. Ends the program with the remedy where it is not."""
    found = shutil.which(name, path=str(folder) if folder else None)
    if found is None:
        where = str(folder) if folder else "PATH"
        raise SystemExit(
            f"{name} is not in {where}: it comes with KenLM's source package, see `--help` for how to build it"
        )
    return Path(found)


def corpus_lines(speech_dir: Path) -> Iterator[str]:
    """Normalised sentences of the two texts and of the training transcripts, empty ones left out."""
    with gzip.open(speech_dir / "lm_text.txt.gz", "rt", encoding="utf-8") as lines:
        yield from filter(None, map(normalize_transcript, lines))
    with gzip.open(speech_dir / "cased_text.txt.gz", "rt", encoding="utf-8") as paragraphs:
        for paragraph in paragraphs:
            yield from filter(None, map(normalize_transcript, _SENTENCE_END.split(paragraph)))
    yield from transcripts(speech_dir / "train.jsonl", exclude=EXCLUDED_CORPORA)


def transcripts(manifest: Path, exclude: tuple[str, ...] = (), corpus_prefix: str = "") -> Iterator[str]:
    """Normalised texts of a JSONL manifest's utterances."""
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            utterance = json.loads(line)
            if utterance["corpus"] not in exclude and utterance["corpus"].startswith(corpus_prefix):
                yield normalize_transcript(utterance["text"])


def estimate(text: Path, vocabulary: Path, choice: Choice, arpa: Path, folder: Path | None = None) -> None:
    """Run lmplz: modified Kneser-Ney of order len(choice.prune) over `text`, limited to `vocabulary`'s words."""
    command = [find_tool("lmplz", folder), "-o", len(choice.prune), "--prune", *choice.prune, "-S", "1G"]
    command += ["--limit_vocab_file", vocabulary, "-T", arpa.parent, "--text", text, "--arpa", arpa]
    _run(command)


def build_binary(arpa: Path, choice: Choice, model: Path, folder: Path | None = None) -> None:
    """Pack an ARPA file into a trie with quantised values and compressed pointers; it loads by mmap."""
    _run([find_tool("build_binary", folder), "-q", choice.bits, "-b", choice.bits, "-a", 64, "trie", arpa, model])


def perplexity(model: Path, sentences: Iterable[str], folder: Path | None = None) -> tuple[float, int, int]:
    """(perplexity without the unknown words, unknown words, tokens with sentence ends) by KenLM's query."""
    command = [str(find_tool("query", folder)), "-v", "summary", str(model)]
    result = subprocess.run(command, input="\n".join(sentences) + "\n", capture_output=True, text=True, check=True)
    fields = dict(line.split(":", 1) for line in result.stdout.splitlines() if ":" in line)
    return float(fields["Perplexity excluding OOVs"]), int(fields["OOVs"]), int(fields["Tokens"])


def _run(command: list[object]) -> None:
    result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{command[0]} failed ({result.returncode}):\n{result.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech-dir", type=Path, required=True)
    parser.add_argument("--lexicon", type=Path, required=True, help="the vocabulary")
    parser.add_argument("--out", type=Path, required=True, help=f"folder that gets {MODEL_FILE}")
    parser.add_argument("--kenlm-bin", type=Path, default=None, help="folder of lmplz, build_binary and query")
    parser.add_argument("--compare", action="store_true", help="build and measure every choice, then keep the shipped")
    arguments = parser.parse_args()
    for tool in ("lmplz", "build_binary", "query"):
        find_tool(tool, arguments.kenlm_bin)
    arguments.out.mkdir(parents=True, exist_ok=True)
    dev = list(transcripts(arguments.speech_dir / "dev.jsonl", corpus_prefix="librispeech"))
    with tempfile.TemporaryDirectory(dir=arguments.out) as scratch:
        text, vocabulary, arpa = (Path(scratch) / name for name in ("text", "vocabulary", "arpa"))
        with text.open("w", encoding="ascii") as output:
            output.writelines(line + "\n" for line in corpus_lines(arguments.speech_dir))
        vocabulary.write_text("\n".join(Lexicon.load(arguments.lexicon)) + "\n", encoding="ascii")
        for choice in dict.fromkeys((*(CHOICES if arguments.compare else ()), SHIPPED)):
            model = arguments.out / MODEL_FILE if choice == SHIPPED else Path(scratch) / "model"
            model.unlink(missing_ok=True)
            estimate(text, vocabulary, choice, arpa, arguments.kenlm_bin)
            build_binary(arpa, choice, model, arguments.kenlm_bin)
            value, unknown, tokens = perplexity(model, dev, arguments.kenlm_bin)
            size = model.stat().st_size
            print(
                f"{choice.name:22s} {size / 1e6:5.1f} MB  dev perplexity {value:5.1f}, "
                f"{unknown} of {tokens} tokens unknown{'  <- shipped' if choice == SHIPPED else ''}",
                flush=True,
            )
    size = (arguments.out / MODEL_FILE).stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{arguments.out / MODEL_FILE} has {size} bytes, at most {MAX_BYTES} are shipped: prune more")


if __name__ == "__main__":
    main()
