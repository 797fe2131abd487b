#!/opt/sdks/bin/python
"""A program that uses the official SDKs as anybody would: it knows of its models what the environment says, no more.

Everything that it can ask of them it asks once, and writes down what went over the wire and what the SDKs made of it,
as `traffic.json` in the folder where it stands. Hopper takes it for Codex, so it ends with Codex's words.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
ABOUT: Any = {"name": "read", "description": "Reads."}
CHAT_TOOLS: Any = [{"type": "function", "function": {**ABOUT, "parameters": SCHEMA}}]
MESSAGE_TOOLS: Any = [{**ABOUT, "input_schema": SCHEMA}]
RESPONSE_TOOLS: Any = [{"type": "function", **ABOUT, "parameters": SCHEMA, "strict": False}]
HELLO: Any = [{"role": "user", "content": "Hello?"}]
READ: Any = [{"role": "user", "content": "What is in a.py and b.py?"}]
WRONG: Any = [{"role": "user", "content": "Refuse this."}]


class Recorder(httpx2.BaseTransport):
    """Keeps what passes, as it passes."""

    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport()
        self.passed: list[dict[str, Any]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        pieces: list[bytes] = []
        self.passed.append(
            {
                "method": request.method,
                "path": request.url.path.removeprefix("/v1"),
                "asked": json.loads(request.read() or b"null"),
                "status": response.status_code,
                "headers": dict(response.headers),
                "pieces": pieces,
            }
        )
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Tee(response.stream, pieces)
        return response

    def close(self) -> None:
        self._inner.close()


class Tee(httpx2.SyncByteStream):
    """A body, kept while it is read."""

    def __init__(self, inner: httpx2.SyncByteStream, pieces: list[bytes]) -> None:
        self._inner, self._pieces = inner, pieces

    def __iter__(self) -> Iterator[bytes]:
        for each in self._inner:
            self._pieces.append(each)
            yield each

    def close(self) -> None:
        self._inner.close()


class OpenAI:
    """What OpenAI's SDK is asked."""

    def __init__(self, http: httpx2.Client) -> None:
        self._sdk = openai.OpenAI(http_client=http)

    def models(self) -> Any:
        return sorted(vars(self._sdk.models.list().data[0]))

    def embeddings(self) -> Any:
        made = self._sdk.embeddings.create(model="vectors", input=["a", "b"], dimensions=8, encoding_format="float")
        return [each.embedding for each in made.data]

    def chat(self, messages: Any = HELLO, **asked: Any) -> Any:
        made = self._sdk.chat.completions.create(model="one", messages=messages, **asked).choices[0]
        calls = [(each.id, each.function.name, each.function.arguments) for each in made.message.tool_calls or ()]
        return [made.finish_reason, made.message.content, calls]

    def chat_streamed(self, messages: Any = HELLO, **asked: Any) -> Any:
        stream = self._sdk.chat.completions.create(
            model="one", messages=messages, stream=True, stream_options={"include_usage": True}, **asked
        )
        finish, text, calls = "", "", list[list[str]]()
        for chunk in stream:
            for choice in chunk.choices:
                finish, text = choice.finish_reason or finish, text + (choice.delta.content or "")
                for each in choice.delta.tool_calls or ():
                    if each.index == len(calls):
                        calls.append([each.id, each.function.name, ""])
                    calls[each.index][2] += each.function.arguments
        return [finish, text, calls]

    def chat_goes_on(self) -> Any:
        """The turn after a call: its result goes back."""
        function = {"name": "read", "arguments": '{"path": "a.py"}'}
        call = {"role": "assistant", "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}
        result = {"role": "tool", "tool_call_id": "call_0", "content": "It is empty."}
        return self.chat_streamed([*READ, call, result], tools=CHAT_TOOLS)

    def response(self, **asked: Any) -> Any:
        return _said(self._sdk.responses.create(model="one", input="Hello?", store=False, **asked))

    def response_streamed(self, **asked: Any) -> Any:
        made: Any = None
        with self._sdk.responses.create(model="one", input="Hello?", store=False, stream=True, **asked) as stream:
            for each in stream:
                made = each
        assert made.type == "response.completed"
        return _said(made.response)


class Anthropic:
    """What Anthropic's is asked."""

    def __init__(self, http: httpx2.Client) -> None:
        self._sdk = anthropic.Anthropic(http_client=http)

    def models(self) -> Any:
        return sorted(vars(self._sdk.models.list().data[0]))

    def message(self, messages: Any = HELLO, **asked: Any) -> Any:
        return _told(self._sdk.messages.create(model="two", max_tokens=100, messages=messages, **asked))

    def message_streamed(self, messages: Any = HELLO, **asked: Any) -> Any:
        with self._sdk.messages.stream(model="two", max_tokens=100, messages=messages, **asked) as stream:
            return _told(stream.get_final_message())

    def message_goes_on(self) -> Any:
        """The turn after a call: its result goes back."""
        call = {"type": "tool_use", "id": "call_0", "name": "read", "input": {"path": "a.py"}}
        result = {"type": "tool_result", "tool_use_id": "call_0", "content": "It is empty."}
        said = [*READ, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        return self.message_streamed(said, tools=MESSAGE_TOOLS)


def _said(response: Any) -> Any:
    items = [each.model_dump(mode="json", exclude={"id", "call_id"}) for each in response.output]
    return [response.status, response.output_text, items]


def _told(message: Any) -> Any:
    return [message.stop_reason, [each.model_dump(mode="json") for each in message.content]]


def questions(http: httpx2.Client) -> Iterable[tuple[str, Callable[[], Any]]]:
    """Everything that is asked, by name."""
    one, two = OpenAI(http), Anthropic(http)
    yield "models", one.models
    yield "embeddings", one.embeddings
    yield "chat", one.chat
    yield "chat, streamed", one.chat_streamed
    yield "chat with tools", lambda: one.chat(READ, tools=CHAT_TOOLS)
    yield "chat with tools, streamed", lambda: one.chat_streamed(READ, tools=CHAT_TOOLS)
    yield "chat that goes on", one.chat_goes_on
    yield "chat that is refused", lambda: one.chat(WRONG)
    yield "response", one.response
    yield "response, streamed", one.response_streamed
    yield "response with tools", lambda: one.response(tools=RESPONSE_TOOLS)
    yield "response with tools, streamed", lambda: one.response_streamed(tools=RESPONSE_TOOLS)
    yield "models of messages", two.models
    yield "message", two.message
    yield "message, streamed", two.message_streamed
    yield "message with tools", lambda: two.message(READ, tools=MESSAGE_TOOLS)
    yield "message with tools, streamed", lambda: two.message_streamed(READ, tools=MESSAGE_TOOLS)
    yield "message that goes on", two.message_goes_on
    yield "message that is refused", lambda: two.message_streamed(WRONG)


def main() -> None:
    """Asks everything, and writes it down."""
    asked = []
    recorder = Recorder()
    with httpx2.Client(transport=recorder) as http:
        for name, ask in questions(http):
            try:
                got = ask()
            except (openai.APIStatusError, anthropic.APIStatusError) as error:
                got = [type(error).__name__, error.status_code]
            [exchange] = recorder.passed
            recorder.passed.clear()
            exchange["text"] = b"".join(exchange.pop("pieces")).decode()
            asked.append({"name": name, "got": got, **exchange})
    record = {
        "sdks": {"openai": openai.__version__, "anthropic": anthropic.__version__},
        "environment": dict(os.environ),
        "asked": asked,
    }
    Path("traffic.json").write_text(json.dumps(record))
    print(json.dumps({"type": "turn.completed"}))


if __name__ == "__main__":
    main()
