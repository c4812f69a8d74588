"""Adapters: nothing changes before the first step, only they learn, and merged they compute the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from asr_service.engine.search_space import LETTER_TO_SOUND_FILE
from asr_service.engine.voice_activity import VOICE_FILE
from asr_service.errors import BundleError
from asr_service.model.bundle import LM_FILE, WEIGHTS_FILE, Bundle, load_bundle
from asr_service.model.encoder import ChunkMask
from asr_service.model.neural_lm import NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE
from asr_service.model.transformer import Transformer
from tests.engine.conftest import make_tiny_bundle
from tests.training.conftest import MODEL
from training.lora import (
    Adapters,
    LoraLinear,
    adapters_of,
    add_adapters,
    merge_file,
    merged,
    weights_digest,
    write_bundle,
)
from training.lora import main as merge

TARGETS = ("q_proj", "kv_proj", "out_proj", "linear1", "linear2")


def adapted(seed: int = 0) -> tuple[Transformer, Transformer]:
    """A model, and the same with adapters."""
    torch.manual_seed(seed)
    plain = Transformer(MODEL).eval()
    model = Transformer(MODEL).eval()
    model.load_state_dict(plain.state_dict())
    add_adapters(model, rank=2, alpha=4.0, targets=TARGETS)
    return plain, model


def shaken(model: Transformer) -> Transformer:
    """As after some training: no adapter is zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    return model


def outputs(model: Transformer, chunk: ChunkMask | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(2, 64, MODEL.n_mels, generator=generator)
    with torch.no_grad():
        output = model.encode(features, torch.tensor([64, 50]), chunk)
        return [
            output.hidden,
            model.ctc_logits(output),
            model.decoder_logits(torch.tensor([[1, 5, 6], [1, 7, 0]]), output),
        ]


def test_before_the_first_step_the_model_computes_what_it_did() -> None:
    plain, model = adapted()
    for before, after in zip(outputs(plain), outputs(model), strict=True):
        assert torch.equal(before, after)


def test_merged_weights_compute_what_the_adapters_did() -> None:
    plain, model = adapted()
    shaken(model)
    unmerged = outputs(model)
    assert not torch.allclose(unmerged[0], outputs(plain)[0], atol=1e-2)  # the adapters do something
    state = merged(model.state_dict(), scale=2.0)
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    for chunk in (None, ChunkMask(4, 8)):
        for before, after in zip(outputs(model, chunk), outputs(plain, chunk), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_merging_adapters_that_learnt_nothing_changes_no_bit() -> None:
    plain, model = adapted()
    state = merged(model.state_dict(), scale=2.0)
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


def test_every_attention_and_feed_forward_layer_is_adapted_and_nothing_else_learns() -> None:
    _, model = adapted()
    encoder, decoder = MODEL.encoder_layers, MODEL.decoder_layers
    adapters = [module for module in model.modules() if isinstance(module, LoraLinear)]
    assert len(adapters) == encoder * (3 + 2) + decoder * (2 * 3 + 2)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == set(adapters_of(model.state_dict()))


def test_a_target_that_no_layer_bears_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'qproj'.*kv_proj.*q_proj"):
        add_adapters(Transformer(MODEL), rank=2, alpha=4.0, targets=("q_proj", "qproj"))


def test_a_saved_adapter_merged_into_its_base_is_an_ordinary_bundle(tmp_path: Path) -> None:
    base = load_bundle(make_tiny_bundle(tmp_path / "base"))
    model = Transformer(base.model.config)
    model.load_state_dict(base.model.state_dict())
    add_adapters(model, rank=2, alpha=4.0, targets=TARGETS)
    shaken(model)
    path = tmp_path / "adapters.safetensors"
    Adapters(adapters_of(model.state_dict()), rank=2, alpha=4.0, base=weights_digest(base)).save(path)
    merge_file(base, path, tmp_path / "tuned", name="tuned")
    tuned = load_bundle(tmp_path / "tuned")
    assert (tuned.name, tuned.decoding, tuned.lm_path is None) == ("tuned", base.decoding, False)
    wanted = merged(model.state_dict(), scale=2.0)
    for name, value in tuned.model.state_dict().items():
        torch.testing.assert_close(value, wanted[name].half().float(), rtol=0, atol=0)  # a bundle's weights are fp16


def test_adapters_of_other_weights_are_refused(tmp_path: Path) -> None:
    base = load_bundle(make_tiny_bundle(tmp_path / "base"))
    path = tmp_path / "adapters.safetensors"
    Adapters({"layer.lora_up": torch.zeros(1, 1)}, rank=1, alpha=1.0, base="0" * 64).save(path)
    with pytest.raises(BundleError, match=r"adapters.safetensors: adapters of other weights"):
        merge_file(base, path, tmp_path / "tuned", name="tuned")


@pytest.mark.parametrize("content", [b"", b"not a safetensors file at all"])
def test_a_file_that_holds_no_adapters_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adapters.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"adapters.safetensors"):
        Adapters.load(path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(base: Bundle, out: Path, lm: Path | None) -> None:
    write_bundle(base, base.model.state_dict(), out, name="tuned", card="", lm=lm)


def test_the_base_is_never_overwritten(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "base")
    before = files_of(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="link: the directory of the base"):
        write(load_bundle(folder), tmp_path / "link", None)
    assert files_of(folder) == before


def test_the_merging_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, adapters = make_tiny_bundle(tmp_path / "base"), tmp_path / "none.safetensors"
    with pytest.raises(SystemExit, match="2"):
        merge(["--bundle", str(folder), "--adapters", str(adapters), "--out", str(tmp_path / "out")])
    assert "none.safetensors: not a safetensors file" in capsys.readouterr().err


def test_a_language_model_that_lies_there_already_stays(tmp_path: Path) -> None:
    base = load_bundle(make_tiny_bundle(tmp_path / "base"))
    out = tmp_path / "out"
    out.mkdir()
    (out / LM_FILE).write_bytes(b"of an earlier bundle")
    write(base, out, out / LM_FILE)
    assert (out / LM_FILE).read_bytes() == b"of an earlier bundle"
    (out / LM_FILE).unlink()
    (out / LM_FILE).symlink_to(tmp_path / "base" / LM_FILE)
    other = tmp_path / "other.kenlm"
    other.write_bytes(b"other")
    write(base, out, other)
    assert (out / LM_FILE).read_bytes() == b"other"
    assert (tmp_path / "base" / LM_FILE).read_bytes() != b"other"


def test_what_the_server_reads_beside_the_model_is_carried_over(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "base")
    for name in (LETTER_TO_SOUND_FILE, VOICE_FILE):
        (folder / name).write_bytes(name.encode())
    base, out = load_bundle(folder), tmp_path / "out"
    out.mkdir()
    (out / NEURAL_LM_FILE).write_bytes(b"of an earlier bundle")
    write(base, out, None)
    assert files_of(folder).keys() - files_of(out).keys() == {LM_FILE}
    assert (out / VOICE_FILE).read_bytes() == VOICE_FILE.encode()
    assert not (out / NEURAL_LM_FILE).exists()


def test_a_tuned_bundle_has_every_setting_of_its_base(tmp_path: Path) -> None:
    plain = load_bundle(make_tiny_bundle(tmp_path / "base"))
    streaming = dataclasses.replace(plain.streaming, chunk_frames=32)
    base = dataclasses.replace(plain, language="de", streaming=streaming, dial={"low": {"streaming": {}}})
    write(base, tmp_path / "out", None)
    out = load_bundle(tmp_path / "out")
    for name in ("language", "streaming", "decoding", "dial"):
        assert getattr(out, name) == getattr(base, name), name
    torch.testing.assert_close(out.front_end.mean, base.front_end.mean)


def test_a_neural_language_model_goes_with_its_tokenizer(tmp_path: Path) -> None:
    base = load_bundle(make_tiny_bundle(tmp_path / "base"))
    for name in (NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE):
        (tmp_path / "base" / name).write_bytes(name.encode())
    write(base, tmp_path / "out", None)
    for name in (NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE):
        assert (tmp_path / "out" / name).read_bytes() == name.encode()


def test_weights_are_no_adapters(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no adapters"):
        Adapters.load(make_tiny_bundle(tmp_path / "base") / WEIGHTS_FILE)
