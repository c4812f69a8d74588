"""Word pieces: byte-pair encoding over lower-case letters and apostrophe (Sennrich et al. 2016).

Ids: 0 is the CTC's blank, then the begin and end tokens of the decoder, then the pieces; a piece that starts a word
carries "▁". Pieces are made of whole characters, so no prefix of a token sequence ends inside one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from asr_service.errors import BundleError

BLANK, BEGIN, END = "<blank>", "<s>", "</s>"
WORD_START = "▁"


class WordPieces:
    """Text ↔ token ids."""

    blank_id = 0
    bos_id = 1
    eos_id = 2

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.pieces: tuple[str, ...] = tuple(sorted(vocabulary, key=vocabulary.__getitem__))

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Token ids of normalised text; characters the vocabulary lacks are left out."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; blank, begin and end give nothing."""
        text = "".join(self.pieces[index] for index in token_ids if index > self.eos_id)
        return text.replace(WORD_START, " ").strip()

    def starts_word(self, token_id: int) -> bool:
        return self.pieces[token_id].startswith(WORD_START)

    def save(self, path: Path) -> None:
        self._tokenizer.save(str(path))

    @staticmethod
    def load(path: Path) -> WordPieces:
        """Raises BundleError when the file is missing, or is no tokenizer of this kind."""
        try:
            pieces = WordPieces(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path.name} in {path.parent}: not a tokenizer file: {error}") from error
        if pieces.pieces[:3] != (BLANK, BEGIN, END):
            raise BundleError(f"{path.name} in {path.parent}: the first tokens must be {BLANK} {BEGIN} {END}")
        return pieces

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> WordPieces:
        """Learn `vocab_size` tokens, the three special ones included, from normalised texts."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BLANK, BEGIN, END],
            initial_alphabet=list("abcdefghijklmnopqrstuvwxyz'"),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return WordPieces(tokenizer)
