"""Models from outside: `ask`, `panel`, `models`, `costs`, which are ordinary calls of Fiedler's tools."""

import io
import json as json_module
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from core.fiedler.store import NO_MODEL
from core.grace.cli import screen
from core.grace.cli.client import Client
from core.grace.cli.life import Json
from core.grace.cli.prompting import fitting, words_of
from core.grace.cli.runs import tell_waiting
from core.grace.cli.talk import ask as answer_to

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask; - reads it from stdin.")]


class By(StrEnum):
    """What costs are shown by."""

    RUN = "run"
    MAD = "mad"
    MODEL = "model"
    DAY = "day"


def add_to(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(panel)
    app.command()(models)
    app.command()(costs)


def ask(
    context: typer.Context,
    prompt: Prompt,
    model: Annotated[str, typer.Option(metavar="ALIAS", help="Which model; else the lab's default.")] = "",
    system: Annotated[str, typer.Option(metavar="TEXT", help="What the model is told before.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer.")] = None,
    json: Json = False,
) -> None:
    """Ask a model one thing."""
    given = {"prompt": words_of(prompt, "the prompt"), "model": model, "system": system, "max_tokens": max_tokens}
    aloud = _Aloud()
    if json:
        screen.data(_call(context, "ask", given))
        return
    try:
        found = _call(context, "ask", given | {"live": True}, aloud.hear)
    except BaseException:
        aloud.break_off()
        raise
    aloud.end(found["text"])
    used = found["used"]
    assumed = ", in part assumed" if used["assumed"] else ""
    ended = "" if found["reason"] == "stop" else f" It ended with {found['reason'].replace('_', ' ')}."
    screen.note(
        f"{found['alias']} ({found['model']} of {found['provider']}): {used['input_tokens']} tokens in,"
        f" {used['output_tokens']} out, {money(used['usd'])}{assumed}.{ended}"
    )


def panel(
    context: typer.Context,
    prompt: Prompt,
    models: Annotated[str, typer.Option(metavar="A,B,C", help="The models to ask, by alias.")],
    judge: Annotated[str, typer.Option(metavar="ALIAS", help="A model that says who means the same.")] = "",
    json: Json = False,
) -> None:
    """Ask several models the same, and see how far they agree."""
    words = words_of(prompt, "the prompt")
    chosen = [each.strip() for each in models.split(",") if each.strip()]
    found = _call(context, "panel", {"prompt": words, "models": chosen, "judge": judge})
    if json:
        screen.data(found)
        return
    for voice in found["voices"]:
        mark = ", dissents" if voice["dissents"] else ", preferred" if voice["model"] == found["best"] else ""
        screen.say(f"--- {voice['model']}{mark}")
        screen.say(voice["text"] or f"(no answer: {voice['error']})")
    ways = {"judge": "as the judge sorts them", "words": "by the words they share, not by what they mean"}
    if found["agreement"] is not None:
        screen.note(f"Agreement {found['agreement']:.2f} of 1, {ways[found['measured_by']]}.")
    if found["reason"]:
        screen.note(found["reason"])
    screen.note(f"It cost {money(found['usd'])}.")


def models(context: typer.Context, json: Json = False) -> None:
    """List the models there are, the default first."""
    found = _call(context, "models", {})
    if json:
        screen.data(found)
        return
    if not found["models"]:
        screen.note(f"There is no model. {NO_MODEL}")
        return
    screen.table(
        ("ALIAS", "MODEL", "PROVIDER", "STATE", "CAN", "IN", "OUT", "NOTE"),
        [
            (
                each["alias"] + (" *" if each["is_default"] else ""),
                each["model"],
                each["provider"],
                each["state"],
                ", ".join(each["can"]),
                money(each["input_usd"]),
                money(each["output_usd"]),
                each["note"],
            )
            for each in found["models"]
        ],
    )
    screen.note("* the default. Prices are for a million tokens.")


def costs(
    context: typer.Context,
    by: Annotated[By, typer.Option(help="What to show them by.")] = By.MODEL,
    days: Annotated[float | None, typer.Option(min=0, metavar="N", help="Of the last N days only.")] = None,
    json: Json = False,
) -> None:
    """Show what was spent on models, and what may still be."""
    found = _call(context, "costs", {"by": str(by), "days": days})
    if json:
        screen.data(found)
        return
    screen.table(
        (by.upper(), "CALLS", "FAILED", "IN", "CACHED", "OUT", "COST", "ASSUMED"),
        list(_cost_rows(found)),
    )
    for each in found["accounts"]:
        cap = "no cap" if each["cap_usd"] is None else f"of {money(each['cap_usd'])}"
        screen.note(f"{each['name']}: {money(each['spent_usd'])} spent, {money(each['held_usd'])} set aside, {cap}.")


def _cost_rows(found: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Each cost; below a run, and further in, those that it began; and last what is told as one sum."""
    for each in found["costs"]:
        yield _cost_row(each["name"], each)
        for child in each.get("children", ()):
            yield _cost_row(f"  {child['name']}", child)
    if found["others"]:
        yield _cost_row(f"others ({found['others']['more']})", found["others"])


def _cost_row(name: str, cost: Mapping[str, Any]) -> tuple[object, ...]:
    figures = (cost[each] for each in ("calls", "failed", "input_tokens", "cached_tokens", "output_tokens"))
    return name, *figures, money(cost["usd"]), cost["assumed"] or ""


def money(usd: float) -> str:
    """Dollars with as many digits as it takes to see them."""
    return f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.6f}".rstrip("0") if usd >= 0.000001 else "under $0.000001"


class _Aloud:
    """An answer that is printed while it comes."""

    def __init__(self) -> None:
        self._printed = ""

    def hear(self, event: Mapping[str, Any]) -> None:
        """Prints a piece that goes on where the last one ended. One that was lost comes with the whole."""
        about = event["data"] if isinstance(event["data"], Mapping) else {}
        if event["tool"] == "progress" and about.get("what") == "text" and about.get("at") == len(self._printed):
            screen.say_on(event["text"])
            self._printed += event["text"]

    def break_off(self) -> None:
        """Ends the line that was begun."""
        if self._printed:
            screen.say()

    def end(self, text: str) -> None:
        """Prints what is not printed yet."""
        if text.startswith(self._printed):
            screen.say(text[len(self._printed) :])
        else:
            self.break_off()
            screen.say(text)


def _call(
    context: typer.Context,
    tool: str,
    arguments: dict[str, Any],
    hear: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Any:
    """What a tool of Fiedler returns, however long it is; and however long the prompt is."""
    client = Client.to(context.obj, waiting=tell_waiting)
    arguments, blobs = fitting(client, arguments, "prompt")
    message = {"recipient": "fiedler", "kind": "call", "tool": tool, "arguments": arguments, "conversation": ""}
    answer = answer_to(client, message | {"blobs": blobs}, hear)
    if answer["data"] is not None:
        return answer["data"]
    content = io.BytesIO()
    client.download(answer["blobs"][0]["digest"], content)
    return json_module.loads(content.getvalue())
