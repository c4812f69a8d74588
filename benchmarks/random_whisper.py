"""A Whisper model with random weights for CTranslate2, in any size, with a tokenizer to match: for speed alone.

No download: the model is made by transformers from its configuration, converted by CTranslate2's own loader; the
tokenizer has the 256 bytes, made-up pieces up to the vocabulary's size, and Whisper's special tokens in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_service import torchaudio_guard  # noqa: F401 -- before transformers, which would fail on torchaudio itself

TIMESTAMPS = 1501  # 0.00 to 30.00 s
# Of English-only Whisper, in their order; 107 numbers lie between the last text token and the first timestamp.
LANGUAGES = 99
TINY_TEXT_TOKENS = 50_256


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Whisper tiny (English) where nothing else is said; `text_tokens` is the vocabulary without special tokens."""

    d_model: int = 384
    heads: int = 6
    encoder_layers: int = 4
    decoder_layers: int = 4
    ffn_dim: int = 1536
    text_tokens: int = TINY_TEXT_TOKENS


def special_tokens() -> list[str]:
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>"]
    languages = [f"<|language-{number}|>" for number in range(LANGUAGES)]
    return ["<|endoftext|>", "<|startoftranscript|>", *languages, *tasks, "<|notimestamps|>"]


def random_whisper(directory: Path, dimensions: Dimensions) -> None:
    """Write an int8 model and its tokenizer.json. Needs `pip install faster-whisper transformers`."""
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = letters + [f"Ġpiece{number}" for number in range(dimensions.text_tokens - len(letters))]
    tokens = [*pieces, *special_tokens()]
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokens) + TIMESTAMPS,
            d_model=dimensions.d_model,
            encoder_layers=dimensions.encoder_layers,
            decoder_layers=dimensions.decoder_layers,
            encoder_attention_heads=dimensions.heads,
            decoder_attention_heads=dimensions.heads,
            encoder_ffn_dim=dimensions.ffn_dim,
            decoder_ffn_dim=dimensions.ffn_dim,
            pad_token_id=len(pieces),
            bos_token_id=len(pieces),
            eos_token_id=len(pieces),
            decoder_start_token_id=len(pieces) + 1,
        )
    )
    loader = WhisperLoader()
    spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, [*tokens, *(f"<|{number * 0.02:.2f}|>" for number in range(TIMESTAMPS))])
    model.generation_config.suppress_tokens, model.generation_config.begin_suppress_tokens = [], [len(pieces)]
    model.generation_config.lang_to_id = {}
    loader.set_config(spec.config, model, None)
    spec.validate()
    spec.optimize(quantization="int8")
    directory.mkdir(parents=True)
    spec.save(str(directory))

    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special_tokens()])
    tokenizer.save(str(directory / "tokenizer.json"))
