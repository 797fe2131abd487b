"""The lists: which models there are, in both protocols, and vectors."""

import base64
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from periphery.doors.reading import Fields
from protos.v1.llm_pb2 import EmbedReply, EmbedRequest, Model

LONG_AGO = 1735689600  # 2025-01-01: an alias has no day of its own


def openai_model(id: str, model: Model) -> Mapping[str, Any]:
    """One model, as OpenAI tells it."""
    return {"id": id, "object": "model", "created": LONG_AGO, "owned_by": model.provider or "lab"}


def openai_models(models: Sequence[Model]) -> Mapping[str, Any]:
    """All of them."""
    return {"object": "list", "data": [openai_model(each.alias, each) for each in models]}


def anthropic_model(id: str, model: Model) -> Mapping[str, Any]:
    """One model, as Anthropic tells it."""
    return {
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens or None,
        "max_tokens": model.max_tokens or None,
    }


def anthropic_models(models: Sequence[Model]) -> Mapping[str, Any]:
    """All of them, on one page."""
    ids = [each.alias for each in models]
    return {
        "data": [anthropic_model(each.alias, each) for each in models],
        "has_more": False,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def read_embed(body: Fields) -> tuple[EmbedRequest, bool]:
    """What shall be made vectors, and whether they travel as base64.

    Raises:
        InvalidArgument: what is wrong with it.
    """
    inputs = body.texts("input")
    if not inputs:
        raise body.wrong("input", "is required.")
    form = body.text("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise body.wrong("encoding_format", "is float or base64.")
    dimensions = body.integer("dimensions", least=1) or 0
    return EmbedRequest(model=body.text("model"), inputs=inputs, dimensions=dimensions), form == "base64"


def embeddings(name: str, reply: EmbedReply, *, packed: bool) -> Mapping[str, Any]:
    """Vectors, as OpenAI tells them."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(each.values) if packed else list(each.values),
        }
        for index, each in enumerate(reply.vectors)
    ]
    used = reply.usage.input_tokens
    return {"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": used, "total_tokens": used}}


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(array("f", values).tobytes()).decode()
