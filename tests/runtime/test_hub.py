"""What a `--model` value may be, and what is fetched for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldline.core.errors import CheckpointError, ConfigError, LayoutError
from worldline.runtime.hub import locate


@pytest.mark.parametrize("model", ["no such model", "", "  ", "pocket=", "fast=/tmp"])
def test_unknown_models(model: str) -> None:
    with pytest.raises(ConfigError, match="unknown model") as caught:
        locate(model)
    assert "lingbot-world-v2-1.3b" in str(caught.value)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "~/nowhere/at/all"])
def test_a_path_that_is_not_there(model: str) -> None:
    with pytest.raises(LayoutError, match="no file or folder"):
        locate(model)


@pytest.mark.parametrize("model", ["robbyant/lingbot-world-fast", "lingbot-world-v2-14b", "a/b"])
def test_the_hub_cannot_be_reached(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="from the hub"):
        locate(model)


def test_hub_downloads_become_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repo_id: str, *, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(tmp_path / repo_id)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    location = locate("lingbot-world-v2-1.3b")
    repos = ["robbyant/lingbot-world-v2-1.3b-causal-fast", "robbyant/lingbot-world-base-cam"]
    assert [repo for repo, _ in asked] == repos
    assert location.roots == tuple(tmp_path / repo for repo in repos)
    # Never the 150 GB of experts beside the parts.
    assert asked[1][1] == ["Wan2.1_VAE.pth", "models_t5*.pth", "google/umt5-xxl/*"]
    assert locate("somebody/unheard-of").preset is None


def test_downloading_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"worldline\[models\]"):
        locate("robbyant/lingbot-world-fast")
