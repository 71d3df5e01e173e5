"""Artifacts: known by content and not by place, the same after the ledger's JSON, and without their secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.common.errors import TsalignError
from tsalign.config import EndpointConfig, ModelConfig, SamplingConfig
from tsalign.runs.artifacts import Dataset, Endpoint, Folder, Model, fingerprint, model_from, writer_from

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_equal_fingerprints_are_equal_data(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same
    assert len(fingerprint(one)) == 16


@dataclass(frozen=True)
class Part:
    model: Model
    settings: SamplingConfig
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class OtherPart(Part):
    pass


def test_the_parts_of_a_part_make_its_fingerprint() -> None:
    part = Part(Model("/here", "f"), SamplingConfig())
    moved = replace(part, model=Model("/there", "f", role="teacher"))
    assert fingerprint(part) == fingerprint(moved)
    assert fingerprint(part) != fingerprint(replace(part, model=Model("/here", "g")))
    assert fingerprint(part) != fingerprint(replace(part, settings=SamplingConfig(k=3)))
    assert fingerprint(part) != fingerprint(replace(part, names=("a", "b")))
    assert fingerprint(part) != fingerprint(OtherPart(part.model, part.settings)), "its class counts"
    assert fingerprint(part, part) != fingerprint(part)


@pytest.mark.parametrize(
    "artifact",
    [
        Dataset("/d", "f"),
        Dataset("/d", "f", ("part-00001.parquet",)),
        Model("/m", "f", revision="r", dtype="bfloat16", role="policy"),
        Folder("/x", "f"),
    ],
    ids=repr,
)
def test_artifacts_survive_the_ledgers_json(artifact: Any) -> None:
    assert type(artifact)(**json.loads(json.dumps(vars(artifact)))) == artifact


def test_an_endpoints_key_is_nowhere_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "a-secret-of-the-tests")
    config = EndpointConfig(url="https://host/v1/", model="org/m", token_env="MY_KEY")
    endpoint = writer_from(config, "teacher")
    assert isinstance(endpoint, Endpoint)
    assert endpoint.token
    assert endpoint.token.get_secret_value() == "a-secret-of-the-tests"
    assert (endpoint.url, endpoint.role) == ("https://host/v1", "teacher")
    assert "a-secret" not in f"{endpoint!r} {fingerprint(endpoint)} {config!r}"
    monkeypatch.delenv("MY_KEY")
    without = writer_from(config.model_copy(update={"concurrency": 1}), "judge")
    assert fingerprint(without) == fingerprint(endpoint), "who is asked, not how"
    assert fingerprint(writer_from(config.model_copy(update={"model": "org/n"}), "teacher")) != fingerprint(endpoint)


def test_a_large_file_is_known_by_its_ends_and_its_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    seen = []
    size = 3 << 20
    for at in (None, 0, size - 1):
        content = bytearray(size)
        if at is not None:
            content[at] = 1
        weights.write_bytes(content)
        seen.append(model_from(ModelConfig(model=str(tmp_path)), "policy").fingerprint)
    weights.write_bytes(bytes(size + 1))
    seen.append(model_from(ModelConfig(model=str(tmp_path)), "policy").fingerprint)
    assert len(set(seen)) == 4
    other_name = model_from(ModelConfig(model=str(weights.rename(tmp_path / "other").parent)), "policy").fingerprint
    assert other_name not in seen


def test_a_chat_template_and_a_revision_make_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    plain, templated = (
        model_from(ModelConfig(model=str(tmp_path), chat_template=text), "policy") for text in (None, "{{ messages }}")
    )
    assert plain.fingerprint != templated.fingerprint
    assert templated.chat_template == "{{ messages }}"
    one, other = (model_from(ModelConfig(model="org/m", revision=r), "policy").fingerprint for r in ("v1", "v2"))
    assert one != other


@pytest.mark.parametrize("location", ["./nowhere", "/nowhere/at/all", "memory://nowhere/model"])
def test_a_folder_that_is_no_model_is_named_with_its_role(location: str) -> None:
    with pytest.raises(TsalignError, match=rf"student.model: {location}: no config.json there"):
        model_from(ModelConfig(model=location), "student")
