"""The teacher as `serveConfigV2` of a KubeRay RayService names it: `import_path: tsalign.teacher.build:build`."""

from __future__ import annotations

from typing import Any

from ray import serve

from tsalign.common.tokens import token_from
from tsalign.config import TeacherConfig, validate
from tsalign.runs.artifacts import model_from
from tsalign.teacher.deployment import application, check_token


def build(keys: dict[str, Any]) -> serve.Application:
    """The application of a teacher; Ray Serve calls this on the cluster.

    Args:
        keys: those of `teacher` in a config.

    Raises:
        TsalignError: a key is unknown or wrong, or a public address has no token.
    """
    config = validate(TeacherConfig, keys, "serveConfigV2: args")
    token = token_from(config.token_env)
    check_token(config, token)
    return application(config, model_from(config, "teacher"), token)
