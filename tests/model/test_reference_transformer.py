"""The preset `transformer` is the 2017 Transformer: with the same weights it computes what torch does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from asr_service.model.attention import MultiHeadAttention
from asr_service.model.config import PRESETS
from asr_service.model.decoder import DecoderBlock
from asr_service.model.encoder import EncoderBlock
from asr_service.model.layers import length_mask
from asr_service.model.positions import sinusoids
from asr_service.model.transformer import Transformer

CONFIG = PRESETS["transformer"]


def copy_attention(theirs: nn.MultiheadAttention, ours: MultiHeadAttention) -> None:
    theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.kv_proj.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.kv_proj.bias]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def torch_encoder_layer(block: EncoderBlock) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, activation="relu", batch_first=True).eval()
    copy_attention(layer.self_attn, block.attention)
    layer.linear1.load_state_dict(block.ffn.linear1.state_dict())
    layer.linear2.load_state_dict(block.ffn.linear2.state_dict())
    layer.norm1.load_state_dict(block.attention_norm.state_dict())
    layer.norm2.load_state_dict(block.ffn_norm.state_dict())
    return layer


def torch_decoder_layer(block: DecoderBlock) -> nn.TransformerDecoderLayer:
    layer = nn.TransformerDecoderLayer(512, 8, 2048, dropout=0.0, activation="relu", batch_first=True).eval()
    copy_attention(layer.self_attn, block.self_attention)
    copy_attention(layer.multihead_attn, block.cross_attention)
    layer.linear1.load_state_dict(block.ffn.linear1.state_dict())
    layer.linear2.load_state_dict(block.ffn.linear2.state_dict())
    layer.norm1.load_state_dict(block.self_norm.state_dict())
    layer.norm2.load_state_dict(block.cross_norm.state_dict())
    layer.norm3.load_state_dict(block.ffn_norm.state_dict())
    return layer


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    with torch.no_grad():  # norms start as the identity, which would hide one that is left out or in the wrong place
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return model


def test_the_preset_is_the_base_model_of_2017() -> None:
    fields = (CONFIG.d_model, CONFIG.n_heads, CONFIG.ffn_dim, CONFIG.encoder_layers, CONFIG.decoder_layers)
    assert fields == (512, 8, 2048, 6, 6)
    assert (CONFIG.norm, CONFIG.activation, CONFIG.positions) == ("post", "relu", "sinusoidal")


def test_its_blocks_have_as_many_parameters_as_torchs_transformer(model: Transformer) -> None:
    reference = nn.Transformer(512, 8, 6, 6, 2048, batch_first=True)
    final_norms = 2 * 2 * 512  # torch's stacks end in a norm that the paper does not have
    expected = sum(parameter.numel() for parameter in reference.parameters()) - final_norms
    blocks = [*model.encoder.blocks.parameters(), *model.decoder.blocks.parameters()]
    assert sum(parameter.numel() for parameter in blocks) == expected


def test_its_encoder_is_torchs_stack_over_stem_and_sinusoids(model: Transformer) -> None:
    lengths = torch.tensor([120, 75])
    features = torch.randn(2, 120, 80, generator=torch.Generator().manual_seed(1))
    x, frames = model.encoder.stem(features, lengths)
    x = x + sinusoids(x.shape[1], 512)
    padding = ~length_mask(frames, x.shape[1])
    for block in model.encoder.blocks:
        x = torch_encoder_layer(block)(x, src_key_padding_mask=padding)
    output = model.encode(features, lengths)
    assert output.lengths.tolist() == frames.tolist() == [30, 19]
    for row, length in enumerate(frames):
        torch.testing.assert_close(output.hidden[row, :length], x[row, :length], rtol=0, atol=1e-4)


def test_its_decoder_is_torchs_stack_over_scaled_embeddings_and_sinusoids(model: Transformer) -> None:
    generator = torch.Generator().manual_seed(2)
    memory, tokens = torch.randn(2, 9, 512, generator=generator), torch.randint(3, 1024, (2, 7), generator=generator)
    memory_lengths = torch.tensor([9, 5])
    seen = length_mask(memory_lengths, 9)
    x: Tensor = model.decoder.embedding(tokens) * 512**0.5 + sinusoids(7, 512)
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    for block in model.decoder.blocks:
        x = torch_decoder_layer(block)(x, memory, tgt_mask=causal, memory_key_padding_mask=~seen)
    expected = x @ model.decoder.embedding.weight.T
    torch.testing.assert_close(model.decoder(tokens, memory, seen), expected, rtol=0, atol=1e-4)


def test_a_pre_norm_block_is_torchs_with_the_norm_first() -> None:
    torch.manual_seed(3)
    block = EncoderBlock(dataclasses.replace(CONFIG, norm="pre")).eval()
    layer = torch_encoder_layer(block)
    layer.norm_first = True
    x, everything = torch.randn(2, 11, 512), torch.ones(2, 1, 1, 11, dtype=torch.bool)
    torch.testing.assert_close(block(x, everything, None, None, None), layer(x), rtol=0, atol=1e-5)
