"""An encoder that cannot be trusted: no rubric is chosen by similarities that are no numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tsalign.common.errors import TsalignError
from tsalign.recipes.citing.retrieval import MeanPooling
from tsalign.runs.artifacts import Model


@pytest.fixture
def encoder(models: dict[str, Model], tmp_path: Path) -> Path:
    """A folder of its own to damage."""
    return Path(shutil.copytree(models["policy"].path, tmp_path / "encoder"))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_an_error(encoder: Path, number: float) -> None:
    tensors = load_file(encoder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0] = number
    save_file(tensors, encoder / "model.safetensors", {"format": "pt"})
    encode = MeanPooling(Model(str(encoder), "x")).load()
    with pytest.raises(TsalignError, match=r"rubrics\.encoder: .*/encoder: its vectors are not finite"):
        encode(["sort 3 1 2"])


def test_missing_weights_are_not_made_up(encoder: Path) -> None:
    tensors = load_file(encoder / "model.safetensors")
    del tensors["model.layers.0.mlp.down_proj.weight"]
    save_file(tensors, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TsalignError, match=r"the weights have no (model\.)?layers\.0\.mlp\.down_proj\.weight"):
        MeanPooling(Model(str(encoder), "x")).load()


def test_a_text_without_tokens_is_like_nothing(encoder: Path) -> None:
    empty, words = MeanPooling(Model(str(encoder), "x")).load()(["", "sort 3 1 2"])
    assert np.abs(empty).max() == 0
    assert np.linalg.norm(words) == pytest.approx(1)
