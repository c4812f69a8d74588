"""A causal Transformer over word pieces that has read text alone: what people write, whatever was said.

The decoder without its attention to the encoder, with rotary positions (Su et al. 2021). Dimensions: B batch, U tokens,
K nodes of a prefix tree, A nodes before them, D model, H heads, d = D/H, V word pieces.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from asr_service.errors import BundleError, ConfigError
from asr_service.model.attention import MultiHeadAttention
from asr_service.model.layers import FeedForward
from asr_service.model.positions import rotary_angles_at, rotary_tables, rotate, rotate_sequence
from asr_service.model.tree_cache import TreeCache, padded_stretch
from asr_service.tokenizer import WordPieces

NEURAL_LM_FILE = "neural_lm.safetensors"
NEURAL_LM_TOKENIZER_FILE = "neural_lm_tokenizer.json"
_OUTPUT = "output.weight"  # that of the embedding, which is in the file once


@dataclass(frozen=True, slots=True)
class NeuralLMConfig:
    """Shape of the model; its word pieces are its own, longer ones than those of the CTC."""

    vocab_size: int = 4096
    d_model: int = 256
    n_heads: int = 4
    ffn_dim: int = 1024
    layers: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{field.name} is {value!r}, must be a whole number from 1 on")
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ConfigError(f"d_model {self.d_model} must be an even multiple of n_heads {self.n_heads}")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


class NeuralLMBlock(nn.Module):
    """Masked self-attention and feed-forward, each normalised first and with a residual."""

    def __init__(self, config: NeuralLMConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.ffn_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_dim, "gelu")

    def forward(self, x: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """(B, U, D) → (B, U, D); `mask` (U, U), `rotary` are `rotary_tables`."""
        inputs = self.attention_norm(x)
        key, value = self.attention.key_value(inputs)
        query, key = (rotate_sequence(heads, *rotary) for heads in (self.attention.query(inputs), key))
        return self._fed(x + self.attention(query, key, value, mask))

    def grow(
        self,
        x: Tensor,
        mask: Tensor,
        angles: tuple[Tensor, Tensor],
        cache: TreeCache,
        layer: int,
        ancestors: Tensor,
    ) -> Tensor:
        """Nodes (1, K, D) → (1, K, D); `mask` (K, A + K), `angles` of their depths are (K, d/2) each."""
        inputs = self.attention_norm(x)
        new_key, new_value = self.attention.key_value(inputs)
        new_key = rotate(new_key, *angles)
        new = torch.cat([heads.transpose(1, 2).flatten(2)[0] for heads in (new_key, new_value)], dim=-1)
        key, value = (self.attention.heads(kept) for kept in cache.extend(layer, new, ancestors))
        query = rotate(self.attention.query(inputs), *angles)
        return self._fed(x + self.attention(query, key, value, mask))

    def _fed(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class NeuralLM(nn.Module):
    """Embedding, blocks, and an output projection that shares the embedding's weights."""

    def __init__(self, config: NeuralLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.blocks = nn.ModuleList(NeuralLMBlock(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.output.weight = self.embedding.weight

    @property
    def _layers(self) -> tuple[NeuralLMBlock, ...]:
        return cast(tuple[NeuralLMBlock, ...], tuple(self.blocks))

    def _embed(self, token_ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(token_ids) * self.config.d_model**0.5
        return embedded

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, U) tokens from the begin token on → logits of what follows each, (B, U, V)."""
        length = token_ids.shape[1]
        x = self._embed(token_ids)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        rotary = rotary_tables(length, self.config.n_heads, self.config.head_dim, like=x)
        for block in self._layers:
            x = block(x, causal, rotary)
        return self._logits(x)

    def start_tree(self) -> TreeCache:
        """Begin with a prefix tree of tokens."""
        empty = self.embedding.weight.new_zeros(0, 2 * self.config.d_model)
        return TreeCache([empty for _ in self._layers])

    def grow_tree(
        self, token_ids: Tensor, depths: Tensor, ancestors: Tensor, visible: Tensor, cache: TreeCache
    ) -> Tensor:
        """See `TreeModel`; `cache` is of `start_tree`."""
        nodes = len(token_ids)
        token_ids, depths, ancestors, mask = padded_stretch(token_ids, depths, ancestors, visible)
        x = self._embed(token_ids).unsqueeze(0)
        angles = rotary_angles_at(depths, self.config.head_dim)
        for layer, block in enumerate(self._layers):
            x = block.grow(x, mask, angles, cache, layer, ancestors)
        cache.advance(nodes)
        return self._logits(x[0, :nodes])

    def _logits(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.final_norm(x))
        return out


def save_neural_lm(folder: Path, model: NeuralLM, pieces: WordPieces) -> None:
    """Write the model, fp16, and its tokenizer into a folder: that of a bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value for name, value in model.state_dict().items() if name != _OUTPUT}
    tensors = {name: value.detach().to(torch.float16).contiguous() for name, value in weights.items()}
    save_file(tensors, folder / NEURAL_LM_FILE, {"config": json.dumps(dataclasses.asdict(model.config))})
    (folder / NEURAL_LM_FILE).chmod(0o644)  # the library writes for the owner alone; a package is read by everybody
    pieces.save(folder / NEURAL_LM_TOKENIZER_FILE)


def load_neural_lm(folder: Path) -> tuple[NeuralLM, WordPieces] | None:
    """What `save_neural_lm` wrote, in evaluation mode, fp32; None where the folder has none.

    Raises BundleError that names the file: one that is not of its kind, or does not fit the other.
    """
    path = folder / NEURAL_LM_FILE
    if not path.is_file():
        return None
    pieces = WordPieces.load(folder / NEURAL_LM_TOKENIZER_FILE)
    try:
        with safe_open(path, framework="pt") as file:
            config = NeuralLMConfig(**json.loads((file.metadata() or {})["config"]))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise BundleError(f"{path}: not a neural language model: {error}") from error
    if config.vocab_size != pieces.vocab_size:
        raise BundleError(
            f"{folder}: {NEURAL_LM_TOKENIZER_FILE} has {pieces.vocab_size} tokens, the model {config.vocab_size}"
        )
    model = NeuralLM(config)
    if "embedding.weight" in weights:
        weights[_OUTPUT] = weights["embedding.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"{path}: {error}") from error
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise BundleError(f"{path}: there are weights that are not finite")
    return model.eval().requires_grad_(False), pieces
