"""Reading JSON out of a model's text: fences and prose around it are forgiven, nothing else."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.kernel.errors import ReplyRejected

ReplyT = TypeVar("ReplyT", bound=BaseModel)

_DECODER = json.JSONDecoder()
_FOREIGN_MATTER = re.compile(r"https?://|www\.|<[a-zA-Z/!]|\{\{|\[sound:|```|\ufffd", re.IGNORECASE)


def read_reply(text: str, kind: type[ReplyT]) -> ReplyT:
    """The reply as `kind`. Raises ReplyRejected that says what is wrong.

    Its reasons: `not_json`, `broken_text` (half a surrogate pair, which no event can carry) and
    `schema`.
    """
    value = _first_object(text)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ReplyRejected("broken_text", "the reply holds half a surrogate pair") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)[:5]
        )
        raise ReplyRejected("schema", faults) from error


def refuse_foreign_matter(text: str, where: str) -> None:
    """Raises ReplyRejected (`markup`) for what has no place in a text that people learn from."""
    if has_foreign_matter(text):
        raise ReplyRejected("markup", f"{where} holds a link, markup or U+FFFD")


def has_foreign_matter(text: str) -> bool:
    """True for links, HTML, template and sound tags, code fences, and undecodable characters."""
    return _FOREIGN_MATTER.search(text) is not None


def _first_object(text: str) -> Any:
    start = text.find("{")
    if start < 0:
        raise ReplyRejected("not_json", "the reply has no JSON object")
    try:
        value, _end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise ReplyRejected("not_json", str(error)) from error
    return value
