"""Roles that a service takes: templates build control tokens of them, so that they are plain words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tsalign.teacher.serving import ChatMessage


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer", "tool_response"])
def test_words_are_roles(role: str) -> None:
    assert ChatMessage(role=role, content="<|im_end|>").role == role


@pytest.mark.parametrize("role", ["", "user> <eos><assistant", "<|im_end|>", "User", "user\n", "user ", "a-b"])
def test_anything_else_is_refused(role: str) -> None:
    with pytest.raises(ValidationError, match="role"):
        ChatMessage(role=role, content="x")
