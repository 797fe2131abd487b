"""How OpenAI's protocol of responses is spoken by our model server: what a play says and calls, streamed or whole.

Written from the makers' description and held against their SDK's types, so that the doors have a direct connection to
be compared with. Thoughts and refusals have no place here.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model_server import Play, Request

SHRED = 7  # characters of arguments in a piece


class Responses:
    """One response; `told` is how many tokens it says that it took in and made."""

    def __init__(self, request: "Request", play: "Play", told: tuple[int, int] | None) -> None:
        self._request, self._play, self._told = request, play, told
        self._number = 0

    def events(self) -> Iterator[tuple[bytes, int]]:
        """What is sent, piece by piece, with how many tokens each takes."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        for index, item in enumerate(self._items()):
            place = {"item_id": item["id"], "output_index": index}
            yield from self._message(item, place) if item["type"] == "message" else self._call(item, place)
        yield self._event("response.completed", response=self._response("completed"))

    def whole(self) -> dict[str, Any]:
        """The same at once."""
        return self._response("completed")

    def _message(self, item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[tuple[bytes, int]]:
        [part] = item["content"]
        yield self._added({**item, "content": []}, place)
        place = {**place, "content_index": 0}
        yield self._event("response.content_part.added", **place, part={**part, "text": ""})
        for token in self._play.tokens:
            yield self._event("response.output_text.delta", tokens=1, **place, delta=token, logprobs=[])
        yield self._event("response.output_text.done", **place, text=part["text"], logprobs=[])
        yield self._event("response.content_part.done", **place, part=part)
        yield self._done(item, place)

    def _call(self, item: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[tuple[bytes, int]]:
        yield self._added({**item, "arguments": ""}, place)
        arguments = item["arguments"]
        for at in range(0, len(arguments), SHRED):
            shred = arguments[at : at + SHRED]
            yield self._event("response.function_call_arguments.delta", tokens=2, **place, delta=shred)
        done = {"name": item["name"], "arguments": arguments}
        yield self._event("response.function_call_arguments.done", **place, **done)
        yield self._done(item, place)

    def _added(self, item: Mapping[str, Any], place: Mapping[str, Any]) -> tuple[bytes, int]:
        begun = {**item, "status": "in_progress"}
        return self._event("response.output_item.added", output_index=place["output_index"], item=begun)

    def _done(self, item: Mapping[str, Any], place: Mapping[str, Any]) -> tuple[bytes, int]:
        return self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _items(self) -> list[dict[str, Any]]:
        play, items = self._play, list[dict[str, Any]]()
        if play.text:
            part = {"type": "output_text", "text": play.text, "annotations": [], "logprobs": []}
            items.append({"id": "msg_1", "type": "message", "role": "assistant", "content": [part]})
        for index, (name, arguments) in enumerate(play.calls):
            called = {"call_id": f"{play.call_id}_{index}", "name": name, "arguments": arguments}
            items.append({"id": f"fc_{index}", "type": "function_call", **called})
        return [{**each, "status": "completed"} for each in items]

    def _response(self, status: str) -> dict[str, Any]:
        asked, is_over = self._request.body, status == "completed"
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata", {}),
            "model": asked["model"],
            "output": self._items() if is_over else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": asked.get("store", True),
            "temperature": asked.get("temperature", 1.0),
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": asked.get("tools", []),
            "top_p": asked.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": self._usage() if is_over else None,
            "user": None,
        }

    def _usage(self) -> dict[str, Any] | None:
        if self._told is None:
            return None
        return {
            "input_tokens": self._told[0],
            "input_tokens_details": {"cached_tokens": self._play.cached, "cache_write_tokens": 0},
            "output_tokens": self._told[1],
            "output_tokens_details": {"reasoning_tokens": self._play.hidden},
            "total_tokens": sum(self._told),
        }

    def _event(self, kind: str, *, tokens: int = 0, **body: Any) -> tuple[bytes, int]:
        said = {"type": kind, "sequence_number": self._number, **body}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(said, ensure_ascii=False)}\n\n".encode(), tokens
