"""The detector of voice activity is trained on clips that a bundle can align."""

from __future__ import annotations

import pytest

from training import voice_activity


def test_too_few_clips_for_a_babble_are_told_before_anything_is_learnt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(voice_activity, "load", lambda *_: [])
    monkeypatch.setattr("sys.argv", ["voice_activity", "few.jsonl", "--out", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        voice_activity.main()
    told = capsys.readouterr().err
    assert told == "voice_activity: few.jsonl: 0 clips that can be aligned, 7 are needed\n"
