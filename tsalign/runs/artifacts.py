"""What stages hand to each other: datasets and models, each known by its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from pydantic import BaseModel, SecretStr
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.http import PATIENCE_SECONDS, TIMEOUT_SECONDS
from tsalign.common.registry import builtin, is_builtin
from tsalign.common.storage import resolve, text_or_file
from tsalign.common.tokens import token_from
from tsalign.config import OPERATIONAL, EndpointConfig, ModelConfig


@dataclass(frozen=True)
class Dataset:
    """A folder of Parquet shards `part-00000.parquet`; with `names`, only those of them."""

    path: str
    fingerprint: str
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.names is not None:  # a list, when it comes back from the ledger's JSON
            object.__setattr__(self, "names", tuple(self.names))

    def shards(self) -> list[UPath]:
        """The shards in order, without reading them."""
        found = sorted(UPath(self.path).glob("part-*.parquet"), key=lambda shard: shard.name)
        return found if self.names is None else [shard for shard in found if shard.name in self.names]


@dataclass(frozen=True)
class Model:
    """A Hugging Face model folder or hub id, and how it is loaded.

    Attributes:
        role: what the run uses it as: policy, student, teacher, judge.
    """

    path: str
    fingerprint: str
    revision: str | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    role: str = ""


@dataclass(frozen=True)
class Folder:
    """Any other folder of files that a stage makes."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible API.

    Attributes:
        url: base URL, ending in /v1.
        model: its name there.
        token: the key; it travels to actors in memory and is never written.
        concurrency: requests in flight, an actor.
        request_timeout: seconds to wait for one answer.
        patience: seconds without an answer after which it counts as down.
        max_spent_tokens: tokens, of prompts and answers, after which an actor sends no more requests.
        proxies: use the proxies that the environment names (HTTP_PROXY etc.).
        application: its name on Ray Serve, where a run of ours deployed it.
    """

    url: str
    model: str
    fingerprint: str
    token: SecretStr | None = field(default=None, repr=False)
    concurrency: int = 16
    request_timeout: float = TIMEOUT_SECONDS
    patience: float = PATIENCE_SECONDS
    max_spent_tokens: int | None = None
    proxies: bool = True
    role: str = ""
    application: str = ""


def writer_from(config: EndpointConfig | ModelConfig, role: str) -> Model | Endpoint:
    """The writer of a role: an endpoint with its key from the environment, or a model that our actors load.

    Raises:
        TsalignError: as `model_from`; or the key cannot be sent.
    """
    if isinstance(config, ModelConfig):
        return model_from(config, role)
    return Endpoint(
        url=config.url.rstrip("/"),
        model=config.model,
        fingerprint=fingerprint(config.url, config.model),
        token=token_from(config.token_env),
        concurrency=config.concurrency,
        request_timeout=config.request_timeout,
        patience=config.patience,
        max_spent_tokens=config.max_spent_tokens,
        role=role,
    )


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change when any part does.

    Parts are plain data, pydantic models, dataclasses, or anything with a `fingerprint` attribute.
    """
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def identity(config: BaseModel) -> dict[str, Any]:
    """The keys of a config that say what is made, without those that only say how, or when to give up."""
    described = type(config).model_fields
    return {name: value for name, value in config if OPERATIONAL not in described[name].metadata}


def _plain(part: Any) -> Any:
    if (known := getattr(part, "fingerprint", None)) is not None:
        return known
    if isinstance(part, BaseModel):
        return _plain(identity(part))
    if is_dataclass(part) and not isinstance(part, type):
        # Field by field: a part that has a fingerprint is represented by that alone.
        return [type(part).__name__, {item.name: _plain(getattr(part, item.name)) for item in fields(part)}]
    if isinstance(part, dict):
        return {str(key): _plain(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_plain(item) for item in part]
    if part is None or isinstance(part, str | int | float | bool):
        return part
    raise TypeError(f"cannot fingerprint {type(part).__name__}: {part!r}")


def model_from(config: ModelConfig, role: str) -> Model:
    """The model that a role's config names, fingerprinted by content where it is a folder.

    Raises:
        TsalignError: as `locate`; or the file of the chat template is not there.
    """
    path, folder = locate(config, role)
    known = _folder_fingerprint(folder) if folder else fingerprint(path, config.revision)
    template = text_or_file(config.chat_template, f"{role}.chat_template") if config.chat_template else None
    config = config.model_copy(update={"chat_template": template})
    return named_model(config, path, role, fingerprint(known, template))


def named_model(config: ModelConfig, path: str, role: str, known: str) -> Model:
    """The model at `path`, its fingerprint `known`, loaded as a config says."""
    return Model(
        path=path,
        fingerprint=known,
        revision=config.revision,
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
        dtype=config.dtype,
        role=role,
    )


def locate(config: ModelConfig, role: str) -> tuple[str, UPath | None]:
    """The path of a role's model and its folder; an id of the Hub has none.

    Raises:
        TsalignError: neither a folder with config.json nor an id of the Hub, or storage that cannot be opened here.
    """
    location = builtin("model", config.model) if is_builtin(config.model) else config.model
    path = resolve(location)
    try:
        looks_local = location.startswith((".", "/", "~")) or path.protocol or path.exists()
    except OSError as error:
        raise TsalignError(f"{role}.model: {config.model[:80]}: {error.strerror}") from error
    if not looks_local:
        _check_hub_id(location, role)
        return location, None
    if not (path / "config.json").exists():
        raise TsalignError(
            f"{role}.model: {config.model}: no config.json there; "
            "expected a Hugging Face model folder or a hub id such as org/name."
        )
    return location if path.protocol else str(path), path


def _check_hub_id(location: str, role: str) -> None:
    try:
        validate_repo_id(location)
    except HFValidationError as error:
        raise TsalignError(
            f"{role}.model: {location!r}: neither a folder that is here nor a hub id such as org/name."
        ) from error


def _folder_fingerprint(folder: UPath) -> str:
    return content_fingerprint([file for file in folder.iterdir() if file.is_file()])


def content_fingerprint(files: Iterable[UPath], sample: int = 1 << 20) -> str:
    """Names, sizes, and the first and last MiB of every file: cheap on a 100 GB model.

    Of files elsewhere, what their storage says of their content (ETag, time of change).
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(files, key=lambda f: f.name):
        if file.protocol:
            digest.update(f"{file.name}:{file.fs.ukey(file.path)}".encode())
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(sample))
            if size > sample:
                stream.seek(max(sample, size - sample))
                digest.update(stream.read(sample))
    return digest.hexdigest()
