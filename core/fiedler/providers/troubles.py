"""What an SDK raises, translated once. Both SDKs are of one make: their errors have the same names and fields."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2

from core.fiedler.provider import Kind, Trouble
from core.fiedler.wire import Lent
from core.redaction.redactor import Redactor

BY_STATUS = {
    401: Kind.KEY,
    402: Kind.SPENT,
    403: Kind.KEY,
    404: Kind.MODEL,
    408: Kind.SLOW,
    409: Kind.BROKEN,
    425: Kind.BUSY,
    429: Kind.BUSY,
    503: Kind.OVERLOADED,
    529: Kind.OVERLOADED,
}
BY_WORD = {
    "authentication_error": Kind.KEY,
    "permission_error": Kind.KEY,
    "invalid_api_key": Kind.KEY,
    "billing_error": Kind.SPENT,
    "insufficient_quota": Kind.SPENT,
    "billing_hard_limit_reached": Kind.SPENT,
    "not_found_error": Kind.MODEL,
    "model_not_found": Kind.MODEL,
    "rate_limit_error": Kind.BUSY,
    "rate_limit_exceeded": Kind.BUSY,
    "overloaded_error": Kind.OVERLOADED,
    "timeout_error": Kind.SLOW,
    "invalid_request_error": Kind.REQUEST,
    "request_too_large": Kind.REQUEST,
    "context_length_exceeded": Kind.REQUEST,
}


@contextmanager
def translating(lent: Lent) -> Iterator[None]:
    """Lets out `Trouble`, and what kept the request from being sent, and nothing of an SDK's."""
    try:
        yield
    except Trouble:
        raise
    except httpx2.TimeoutException:
        raise Trouble(Kind.UNREACHABLE, "No connection in time.") from None
    except httpx2.HTTPError as error:
        raise Trouble(Kind.CUT, lent.redactor.redact_text(str(error))) from None
    except UnicodeDecodeError:
        raise Trouble(Kind.CUT, "The answer ended inside a character.") from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise Trouble(Kind.NONSENSE, lent.redactor.redact_text(f"{type(error).__name__}: {error}")) from None
    except Exception as error:  # noqa: BLE001  the two SDKs' errors have no ancestor in common
        if lent.refused is not None:
            raise lent.refused from None
        raise _translate(error, lent.redactor) from None


def _translate(error: Exception, redactor: Redactor) -> Trouble:
    response = getattr(error, "response", None)
    if not isinstance(response, httpx2.Response):
        return _without_response(error, redactor)
    status = response.status_code
    body = getattr(error, "body", None)
    text = redactor.redact_text(_sentence(body) or str(error))
    word = _kind_by_word(body)
    if status < 300:  # an error event inside a good answer
        return Trouble(word or Kind.BROKEN, text)
    if status < 400:
        return Trouble(Kind.BROKEN, "It answers with a redirect, which is not followed.", status=status)
    kind = BY_STATUS.get(status) or (Kind.BROKEN if status >= 500 else Kind.REQUEST)
    if status in (400, 403, 429) and word is Kind.SPENT:
        kind = Kind.SPENT
    return Trouble(kind, text, status=status, retry_after_s=retry_after_s(response.headers))


def _without_response(error: Exception, redactor: Redactor) -> Trouble:
    body = getattr(error, "body", None)
    if body is not None:  # an error event of a stream
        return Trouble(_kind_by_word(body) or Kind.BROKEN, redactor.redact_text(_sentence(body) or str(error)))
    cause = error.__cause__
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return Trouble(Kind.UNREACHABLE, redactor.redact_text(str(cause)))
    if isinstance(cause, httpx2.HTTPError):
        return Trouble(Kind.CUT, redactor.redact_text(str(cause)))
    return Trouble(Kind.BROKEN, redactor.redact_text(f"{type(error).__name__}: {error}"))


def _error_of(body: object) -> Mapping[str, Any]:
    if isinstance(body, Mapping):
        inner = body.get("error")
        return inner if isinstance(inner, Mapping) else body
    return {}


def _kind_by_word(body: object) -> Kind | None:
    error = _error_of(body)
    for field in ("code", "type"):
        word = error.get(field)
        if isinstance(word, str) and word in BY_WORD:
            return BY_WORD[word]
        if isinstance(word, int) and 400 <= word < 600:  # some put the status there
            return BY_STATUS.get(word) or (Kind.BROKEN if word >= 500 else Kind.REQUEST)
    return None


def _sentence(body: object) -> str:
    message = _error_of(body).get("message")
    if isinstance(message, str):
        return message
    return body if isinstance(body, str) else json.dumps(body, default=str)[:2000] if body else ""


def check_error(answer: object) -> None:
    """
    Raises:
        Trouble: a whole answer that came with a good status is an error all the same.
    """
    error = answer.get("error") if isinstance(answer, Mapping) else getattr(answer, "error", None)
    if error is not None:
        raise Trouble(_kind_by_word(error) or Kind.BROKEN, _sentence(error))


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """How long the provider asks us to wait, in seconds; None if it does not say, or says nonsense."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
