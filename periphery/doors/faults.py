"""What went wrong, as each protocol says it.

The status decides what clients do, so it is chosen by what they should do. A spent budget is 402 and not 429, which
loops around models repeat for minutes; Claude Code ends at it. Only on `/v1/responses` it is OpenAI's own 429 with
`insufficient_quota`, because Codex ends at that and repeats others. `x-should-retry: false` says the same to the
official SDKs. There are agents that repeat whatever they get: `Doors.exhausted` tells whoever runs one. What may
succeed later is 503, which clients repeat, as they would anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from periphery.doors.reading import WrongField
from protos.errors import (
    Conflict,
    Denied,
    Error,
    Exhausted,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)

FINAL = {"x-should-retry": "false"}
STATUS = {
    InvalidArgument.code: 400,
    Unauthenticated.code: 401,
    Exhausted.code: 402,
    Denied.code: 403,
    NotFound.code: 404,
    Conflict.code: 409,
    Unavailable.code: 503,
}
OPENAI = {  # type and code
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    405: ("invalid_request_error", "method_not_supported"),
    409: ("conflict_error", None),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("insufficient_quota", "insufficient_quota"),
    503: ("server_error", None),
}
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
}


@dataclass(frozen=True)
class Fault:
    """An answer that is an error."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Something of HTTP itself is wrong: a path, a size, a header. `status` says which."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def openai_fault(problem: Exception, *, spent: int = 402) -> Fault:
    """`{"error": {"message", "type", "param", "code"}}`; `spent` is the status of a spent budget."""
    status, headers = _status(problem, spent)
    kind, code = OPENAI.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    if status == 404 and isinstance(problem, Refused):
        code = "unknown_url"
    param = problem.param if isinstance(problem, WrongField) else None
    return Fault(status, {"error": {"message": sentence(problem), "type": kind, "param": param, "code": code}}, headers)


def anthropic_fault(problem: Exception) -> Fault:
    """`{"type": "error", "error": {"type", "message"}}`."""
    status, headers = _status(problem, 402)
    kind = ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return Fault(status, {"type": "error", "error": {"type": kind, "message": sentence(problem)}}, headers)


def sentence(problem: Exception) -> str:
    """What is said to a person: what went wrong, and what to do."""
    if isinstance(problem, Error):
        return f"{problem.message} {problem.next}".strip()
    if isinstance(problem, Refused):
        return str(problem)
    return "The door failed: this is a fault of the laboratory's and not of the request."


def _status(problem: Exception, spent: int) -> tuple[int, Mapping[str, str]]:
    if isinstance(problem, Refused):  # whose body may not have been read, and perhaps never ends
        return problem.status, {"connection": "close"}
    if isinstance(problem, Exhausted):
        return spent, FINAL
    if isinstance(problem, Conflict):
        return 409, FINAL
    return (STATUS[problem.code] if isinstance(problem, Error) else 500), {}
