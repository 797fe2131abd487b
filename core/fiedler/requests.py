"""What a request must be before anything is done about it."""

import re
from collections.abc import Iterable, Iterator

from core.fiedler.schemas import is_object
from protos.errors import InvalidArgument
from protos.v1 import llm_pb2 as pb

REQUEST_BYTES = 24 << 20  # some pictures and a very long conversation
IMAGE_BYTES = 20 << 20
INPUT_CHARACTERS = 128 * 1024
TURNS, TOOLS, INPUTS = 10_000, 512, 2048
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
EFFORTS = frozenset({"", "none", "minimal", "low", "medium", "high"})
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what both protocols take as the name of a tool
_ALLOWED = {
    pb.ROLE_SYSTEM: frozenset({"text"}),
    pb.ROLE_DEVELOPER: frozenset({"text"}),
    pb.ROLE_USER: frozenset({"text", "image", "tool_result"}),
    pb.ROLE_ASSISTANT: frozenset({"text", "tool_call", "reasoning", "refusal"}),
}


def check_request(request: pb.CompleteRequest) -> None:
    """
    Raises:
        InvalidArgument: what is wrong with it, and what to do.
    """
    check_id(request.id)
    if request.ByteSize() > REQUEST_BYTES:
        raise InvalidArgument(f"A request has at most {REQUEST_BYTES} bytes.", next="Leave something out.")
    if not any(turn.role in (pb.ROLE_USER, pb.ROLE_ASSISTANT) for turn in request.turns):
        raise InvalidArgument("A request needs a turn of a user.", next="Add one.")
    if len(request.turns) > TURNS or len(request.tools) > TOOLS:
        raise InvalidArgument(f"A request has at most {TURNS} turns and {TOOLS} tools.", next="Leave something out.")
    for turn in request.turns:
        _check_turn(turn)
    _check_tools(request)
    if request.sampling.reasoning_effort not in EFFORTS:
        allowed = ", ".join(sorted(EFFORTS - {""}))
        raise InvalidArgument("There is no such reasoning effort.", next=f"Use one of: {allowed}.")


def check_embed(request: pb.EmbedRequest) -> None:
    """
    Raises:
        InvalidArgument: what is wrong with it, and what to do.
    """
    check_id(request.id)
    if not 0 < len(request.inputs) <= INPUTS or request.ByteSize() > REQUEST_BYTES:
        raise InvalidArgument(f"Vectors are made of 1 to {INPUTS} inputs.", next="Send fewer at once.")
    if not all(0 < len(each) <= INPUT_CHARACTERS for each in request.inputs):
        raise InvalidArgument(f"An input has 1 to {INPUT_CHARACTERS} characters.", next="Cut it, or leave it out.")


def check_id(id: str) -> None:
    """
    Raises:
        InvalidArgument: it is no UUIDv7.
    """
    if not _ID.fullmatch(id):
        raise InvalidArgument("A request's id is a UUIDv7 in lower case.", next="Choose it once, when it is made.")


def images_of(request: pb.CompleteRequest) -> Iterator[pb.Image]:
    """Every picture of a request."""
    for turn in request.turns:
        for part in _with_inner(turn.parts):
            if part.HasField("image"):
                yield part.image


def _with_inner(parts: Iterable[pb.Part]) -> Iterator[pb.Part]:
    for part in parts:
        yield part
        if part.HasField("tool_result"):
            yield from part.tool_result.parts


def _check_turn(turn: pb.Turn) -> None:
    allowed = _ALLOWED.get(turn.role)
    if allowed is None:
        raise InvalidArgument("A turn has no role.", next="Say whose it is: system, user, assistant or developer.")
    for part in turn.parts:
        kind = part.WhichOneof("kind")
        if kind not in allowed:
            role = pb.Role.Name(turn.role).removeprefix("ROLE_").lower()
            raise InvalidArgument(f"A turn of the {role} has no {kind or 'empty part'}.", next="Move or remove it.")
    for part in _with_inner(turn.parts):
        match part.WhichOneof("kind"):
            case "image":
                _check_image(part.image)
            case "tool_call":
                _check_call(part.tool_call)
            case "tool_result":
                _check_result(part.tool_result)


def _check_image(image: pb.Image) -> None:
    if image.media_type not in IMAGE_TYPES or not 0 < len(image.data) <= IMAGE_BYTES:
        allowed = ", ".join(sorted(IMAGE_TYPES))
        raise InvalidArgument(
            f"A picture has a type ({allowed}) and at most {IMAGE_BYTES} bytes.", next="Convert or shrink it."
        )


def _check_result(result: pb.ToolResult) -> None:
    if not result.call_id:
        raise InvalidArgument("A tool result does not say which call it answers.", next="Set call_id.")
    if any(each.WhichOneof("kind") not in ("text", "image") for each in result.parts):
        raise InvalidArgument("A tool result has texts and pictures.", next="Leave the rest out.")


def _check_call(call: pb.ToolCall) -> None:
    wrong = is_object(call.arguments or "{}")
    if not call.id or not call.name or wrong:
        raise InvalidArgument(
            "A tool call of an earlier turn needs an id, a name and arguments that are a JSON object.",
            next="Leave out what was broken, and tell the model about it in words.",
        )


def _check_tools(request: pb.CompleteRequest) -> None:
    names = [each.name for each in request.tools]
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name[:100]!r} is no name for a tool.", next="Use 1 to 64 letters, digits, _ and -."
            )
    if len(set(names)) < len(names):
        raise InvalidArgument("Two tools have the same name.", next="Rename one.")
    if request.tool_choice.use == pb.TOOL_USE_NAMED and request.tool_choice.name not in names:
        raise InvalidArgument("The chosen tool is not among the tools.", next="Offer it, or choose another.")
    if request.tool_choice.use in (pb.TOOL_USE_ANY, pb.TOOL_USE_NAMED) and not names:
        raise InvalidArgument("A tool must be called and none is offered.", next="Offer one.")
