"""`asr models`: what it counts is what the model has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asr_service.cli import main
from asr_service.commands.models import part_of
from asr_service.model.config import PRESETS
from asr_service.model.transformer import Transformer


@pytest.mark.parametrize("preset", PRESETS)
def test_the_parts_add_up_to_the_models_parameters(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", preset]) == 0
    parts, shapes = capsys.readouterr().out.split("\n\n")[1:]
    expected = sum(parameter.numel() for parameter in Transformer(PRESETS[preset]).parameters())

    def count(line: str) -> int:
        return int(line.rsplit(maxsplit=1)[-1].replace(",", ""))

    *each, total = parts.strip().splitlines()
    assert count(total) == expected
    assert sum(map(count, each)) == expected
    assert sum(map(count, shapes.splitlines())) == expected
    channels = PRESETS[preset].stem_channels
    line = rf"^encoder\.stem\.conv1\.weight +{channels} x 1 x 3 x 3 +{9 * channels}$"
    assert re.search(line, shapes, flags=re.MULTILINE)


def test_the_sizes_of_small_files_are_told(bundle_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(bundle_dir)]) == 0
    size_bytes = (bundle_dir / "config.json").stat().st_size
    assert f"  config.json: {size_bytes / 1000:.1f} kB\n" in capsys.readouterr().out


def test_presets_and_bundles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert {f"preset {name}" for name in PRESETS} <= set(capsys.readouterr().out.splitlines())


def test_a_name_that_is_neither_is_answered_with_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "whisper-huge"]) == 1
    error = capsys.readouterr().err
    assert "'whisper-huge'" in error
    assert "streaming-s" in error


@pytest.mark.parametrize(
    ("parameter", "part"),
    [
        ("encoder.blocks.0.ffn.linear1.bias", "encoder.blocks"),
        ("decoder.embedding.weight", "decoder.embedding"),
        ("ctc_head.weight", "ctc_head"),
    ],
)
def test_a_parameter_belongs_to_its_part(parameter: str, part: str) -> None:
    assert part_of(parameter) == part
