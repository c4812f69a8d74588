"""Word pieces: byte-pair encoding of normalised text (Sennrich et al. 2016), with bytes for characters it lacks.

Ids: 0 is the CTC's blank, then the begin and end tokens of the decoder, then, in a vocabulary with byte fall-back, the
256 bytes "<0x00>" to "<0xFF>", then the pieces; a piece that starts a word carries "▁". A piece is made of whole
characters. A character that has no piece is spelled in the bytes of its UTF-8; a vocabulary without byte tokens refuses
it (`UnknownCharacters`), it never leaves one out.

The file is that of Hugging Face's `tokenizers` with one more key where it is known: `normalization`, the name and the
version of the rules that its texts were normalised by.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from asr_service.errors import BundleError

BLANK, BEGIN, END = "<blank>", "<s>", "</s>"
WORD_START = "▁"
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_NORMALIZATION = "normalization"


@dataclass(frozen=True, slots=True)
class Normalization:
    """Which rules made the texts of a vocabulary: a name and, bumped whenever a rule changes, a version."""

    name: str
    version: str


class UnknownCharacters(ValueError):
    """A text has characters that a vocabulary without byte tokens cannot encode; `counts` has how often each stands."""

    def __init__(self, counts: Counter[str]) -> None:
        shown = ", ".join(f"{char!r} (U+{ord(char):04X})" for char, _ in counts.most_common(10))
        super().__init__(f"{counts.total()} characters that the vocabulary lacks: {shown}")
        self.counts = counts


class WordPieces:
    """Text ↔ token ids.

    Attributes:
        pieces: the V tokens' texts, in the order of their ids.
        has_bytes: whether byte fall-back is there, so that every text has an encoding.
        normalization: the rules that the texts were normalised by; None where the file does not say.
    """

    blank_id = 0
    bos_id = 1
    eos_id = 2

    def __init__(self, tokenizer: Tokenizer, normalization: Normalization | None = None) -> None:
        self._tokenizer = tokenizer
        # "<s>" within a text is three characters, never the token.
        tokenizer.encode_special_tokens = True
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.pieces: tuple[str, ...] = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
        self.normalization = normalization
        self.has_bytes = self.pieces[self.eos_id + 1 : self.eos_id + 1 + len(BYTES)] == BYTES
        first = self.eos_id + 1 + (len(BYTES) if self.has_bytes else 0)
        self._first_piece = first
        # What a text may hold: characters with a piece of their own, and the space, which starts words.
        self._characters = {piece for piece in self.pieces[first:] if len(piece) == 1} - {WORD_START} | {" "}

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def characters(self) -> str:
        """What a text may hold without being spelled in bytes."""
        return "".join(sorted(self._characters))

    def unknown_characters(self, text: str) -> Counter[str]:
        """How often each character that has no piece stands in `text`; the word start "▁" is such a character."""
        missing = set(text) - self._characters
        return Counter({char: text.count(char) for char in sorted(missing)})

    def encode(self, text: str) -> list[int]:
        """Token ids of normalised text.

        Raises UnknownCharacters for characters that have no piece, unless the vocabulary has bytes to spell them; for
        "▁", which stands for the space, in any case.
        """
        unknown = self.unknown_characters(text)
        if unknown and not (self.has_bytes and WORD_START not in unknown):
            raise UnknownCharacters(unknown)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; blank, begin and end give nothing, bytes that are no UTF-8 give U+FFFD."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, token_ids)) + detokenizer.finish()

    def byte_of(self, token_id: int) -> int | None:
        """Which byte a token stands for; None for pieces and special tokens."""
        return token_id - self.eos_id - 1 if self.eos_id < token_id < self._first_piece else None

    def starts_word(self, token_id: int) -> bool:
        return self.pieces[token_id].startswith(WORD_START)

    def save(self, path: Path) -> None:
        if self.normalization is None:
            self._tokenizer.save(str(path))
            return
        table = {**json.loads(self._tokenizer.to_str()), _NORMALIZATION: asdict(self.normalization)}
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> WordPieces:
        """Raises BundleError when the file is missing, or is no tokenizer of this kind."""
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            recorded = table.pop(_NORMALIZATION, None)
            normalization = None if recorded is None else _read_normalization(recorded)
            pieces = WordPieces(Tokenizer.from_str(json.dumps(table)), normalization)
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path.name} in {path.parent}: not a tokenizer file: {error}") from error
        if pieces.pieces[:3] != (BLANK, BEGIN, END):
            raise BundleError(f"{path.name} in {path.parent}: the first tokens must be {BLANK} {BEGIN} {END}")
        return pieces

    @staticmethod
    def train(
        texts: Iterable[str],
        vocab_size: int,
        *,
        byte_fallback: bool = False,
        alphabet: str | None = None,
        normalization: Normalization | None = None,
    ) -> WordPieces:
        """Learn a vocabulary from normalised texts.

        Args:
            texts: what to learn from.
            vocab_size: of all tokens, the three special ones and the bytes included; a small text gives fewer.
            byte_fallback: add the 256 byte tokens.
            alphabet: the characters that get pieces; by default a to z, the apostrophe and all that the texts have.
            normalization: the rules that the texts were normalised by, kept in the file.

        Raises ValueError where `vocab_size` is too small for the special tokens, the bytes and the alphabet.
        """
        n_bytes = len(BYTES) if byte_fallback else 0
        learnt = _learn(texts, max(0, vocab_size - n_bytes), alphabet)
        needed = learnt.get_vocab_size() + n_bytes
        if needed > vocab_size:
            raise ValueError(f"a vocabulary of {vocab_size} is too small: its single characters need {needed}")
        return WordPieces(_with_bytes(learnt) if byte_fallback else learnt, normalization)


class Detokenizer:
    """Text of tokens as they come: what `push` and `finish` return, joined, is what `decode` gives for all of them.

    Never half a character: the bytes of one are held until the last is there. Space is held until something follows.
    """

    def __init__(self, pieces: WordPieces) -> None:
        self._pieces = pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._begun = False

    def push(self, token_id: int) -> str:
        """What `token_id` adds to the text for certain; blank, begin and end add nothing and interrupt no character."""
        if token_id <= self._pieces.eos_id:
            return ""
        byte = self._pieces.byte_of(token_id)
        if byte is not None:
            return self._show(self._utf8.decode(bytes([byte])))
        return self._show(self._interrupt() + self._pieces.pieces[token_id].replace(WORD_START, " "))

    def finish(self) -> str:
        """The end of the text: U+FFFD where a character was left half; then ready for another text."""
        text = self._show(self._interrupt())
        self._held, self._begun = "", False
        return text

    def _interrupt(self) -> str:
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text

    def _show(self, added: str) -> str:
        text = self._held + added
        if not self._begun:
            text = text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._begun = self._begun or bool(shown)
        return shown


def _read_normalization(table: dict[str, Any]) -> Normalization:
    if sorted(table) != ["name", "version"] or not all(isinstance(value, str) for value in table.values()):
        raise ValueError(f"{_NORMALIZATION} must have a name and a version, both texts")
    return Normalization(**table)


def _learn(texts: Iterable[str], vocab_size: int, alphabet: str | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BLANK, BEGIN, END],
        initial_alphabet=list(LETTERS if alphabet is None else alphabet + WORD_START),
        show_progress=False,
    )
    if alphabet is not None:
        # Characters outside it end a piece, as spaces do, and get none.
        outside = re.compile(f"[^{re.escape(alphabet)} ]+")
        texts = (outside.sub(" ", text) for text in texts)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The same pieces with the byte tokens between the special tokens and them."""
    table = json.loads(tokenizer.to_str())
    learnt: dict[str, int] = table["model"]["vocab"]
    if clash := learnt.keys() & set(BYTES):
        raise ValueError(f"the texts spell the byte token {clash.pop()}")
    specials = (BLANK, BEGIN, END)
    pieces = [piece for piece in sorted(learnt, key=learnt.__getitem__) if piece not in specials]
    table["model"]["vocab"] = {token: index for index, token in enumerate((*specials, *BYTES, *pieces))}
    table["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(table))
