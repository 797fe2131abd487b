"""What a hostile worker says to the core, in gRPC and below it, and what each attempt must come to.

An act's answer is checked inside, as the code that came back, and outside, in the journal, in Horace and in the core's
own process: the first shows what the attacker saw, the second what happened.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep

from core.gate import CONNECTIONS, hash_of
from core.grace.cli.screen import plain
from core.grace.door.shapes import message_json
from core.run import Outcome
from protos.ids import new_id
from protos.v1.message_pb2 import KIND_REPLY, TAINT_WEB, TAINT_WORKER, Message
from protos.v1.session_pb2 import OUTCOME_CANCELLED, OUTCOME_KILLED
from tests.security.hostile_lab import Answered, Site

# What is said in gRPC is the core's to judge, whoever's kernel carries it; about connections, gVisor's is asked too.
pytestmark = [pytest.mark.docker, pytest.mark.ordinarily("runc")]
EITHER = pytest.mark.ordinarily("runc", "runsc")

WHO = "UNAUTHENTICATED"
IDENTITIES = {
    "no credential": WHO,
    "an empty credential": WHO,
    "a wrong credential": WHO,
    "its hash": WHO,
    "the credential of another run": WHO,
    "the token as a credential": WHO,
    "another scheme": WHO,
    "a heartbeat with a wrong credential": WHO,
    "a replayed token": WHO,
    "the token of another run": WHO,
    "no proof": WHO,
    "an empty token": WHO,
    "the honest one": "OK",
}
WRONG, NOT_YOURS, UNSEEN, TAKEN, TOO_MUCH = (
    "INVALID_ARGUMENT",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
)
FORGED = {
    "as the operator": "OK",  # and the journal says who it was
    "as the core": "OK",
    "an event as the core": "OK",
    "without a taint": "OK",  # and it is tainted
    "an unknown taint": "OK",
    "in another conversation": f"{NOT_YOURS}: rule conversation",
    "in no conversation": f"{NOT_YOURS}: rule conversation",
    "an event elsewhere": f"{NOT_YOURS}: rule conversation",
    "to a stranger": f"{NOT_YOURS}: rule recipient",
    "a call without the port": f"{NOT_YOURS}: rule port",
    "a call of nobody": f"{NOT_YOURS}: rule port",
    "a call of no tool": UNSEEN,
    "arguments that do not fit": WRONG,
    "arguments without a bottom": WRONG,
    "an answer to another's question": f"{NOT_YOURS}: rule answer",
    "an answer for somebody else": f"{NOT_YOURS}: rule answer",
    "an answer under another id": WRONG,
    "an answer to nothing": WRONG,
    "prose in the answer's place": WRONG,
    "an event in the answer's place": WRONG,
    "an event in a file's place": WRONG,
    "an event in a run's place": WRONG,
    "an event under an unknown word": WRONG,
    "prose reported": WRONG,
    "another's id": TAKEN,
    "the trigger's id": TAKEN,
    "an upper-case id": WRONG,
    "no id": WRONG,
    "no kind": WRONG,
    "an unknown kind": WRONG,
    "too many hops": WRONG,
    "hops without end": WRONG,
    "17 KiB": WRONG,
    "2 MiB": TOO_MUCH,
    "a deadline that is no number": WRONG,
    "a deadline without end": WRONG,
    "at the end of time": "OK",  # and the journal says when it was
    "a blob of another conversation": UNSEEN,
    "ten thousand blobs": WRONG,
    "history of another conversation": f"{NOT_YOURS}: rule conversation",
    "history of none": f"{NOT_YOURS}: rule conversation",
}
FILES = {
    "a blob of another conversation": UNSEEN,
    "a blob that is not there": UNSEEN,
    "a path": UNSEEN,
    "an absolute path": UNSEEN,
    "no digest": UNSEEN,
    "a long digest": UNSEEN,
    "an own blob from beyond its end": WRONG,
    "a name it may not": f"{NOT_YOURS}: rule port",
    "a path for a name": f"{NOT_YOURS}: rule port",
    "any name": f"{NOT_YOURS}: rule port",
    "bytes first": WRONG,
    "nothing": WRONG,
    "about twice": WRONG,
    "an empty part": WRONG,
    "a piece of 2 MiB": TOO_MUCH,
    "a name of half a MiB": "OK",  # and 255 characters of it are kept
    "own": "OK",
}
MALFORMED = {
    "no protobuf": "UNKNOWN",
    "a length without an end": "UNKNOWN",
    "a group without a bottom": "UNKNOWN",
    "an unknown method": "UNIMPLEMENTED",
    "an unknown service": "UNIMPLEMENTED",
    "50 MB packed into 50 KB": TOO_MUCH,
    "a large metadata value": TOO_MUCH,
    "many metadata values": TOO_MUCH,
    "after": "OK",
}


def check(came: dict[str, Any], answers: dict[str, str]) -> None:
    """Each answer begins as it must."""
    wrong = {name: came[name] for name, answer in answers.items() if not came[name].startswith(answer)}
    assert not wrong


async def said_by(site: Site, answered: Answered) -> list[Message]:
    """Everything that is in the conversation of an act."""
    return list(await site.lab.rogers.history(answered.message.conversation, limit=1000))


@dataclass
class Forged:
    """A conversation of others before, and what came of the forger's."""

    secret: dict[str, str]
    before: list[Message]
    came: Answered


@pytest.fixture(scope="module")
async def forged(site: Site) -> Forged:
    secret = await site.secret_of_others()
    before = list(await site.lab.rogers.history(secret["conversation"]))
    return Forged(secret, before, await site.act("speak", name="forge", given=secret))


@EITHER
async def test_nobody_is_believed_without_the_credential_of_this_run(site: Site) -> None:
    told = await site.speak("tell")
    given = {**told, "credential_hash": hash_of(told["credential"])}
    came = await site.speak("identities", **given)
    check(came, IDENTITIES)


async def test_a_credential_may_attach_again_and_gains_nothing(site: Site) -> None:
    assert await site.speak("attach_twice") == {"OK 2": 8}


async def test_messages_are_not_believed_about_who_when_where_or_in_whose_place(site: Site, forged: Forged) -> None:
    came = forged.came
    assert came.of is not None, came.message.text
    check(came.of, FORGED)
    assert came.of["the same id"] == ["OK", "OK"]

    said = [each for each in await said_by(site, came) if each.sender != "operator"]
    assert {each.sender for each in said} == {"hostile"}
    assert all(TAINT_WORKER in each.taint for each in said)
    assert {taint for each in said for taint in each.taint} == {TAINT_WORKER, TAINT_WEB}
    assert all(each.at > came.run.started - 1 for each in said)
    assert [each.text for each in said if each.text in ("first", "second")] == ["first"]
    assert came.message.kind == KIND_REPLY, "its one answer came all the same"
    assert list(await site.lab.rogers.history(forged.secret["conversation"])) == forged.before


async def test_the_next_version_of_a_file_can_still_be_named(site: Site, forged: Forged) -> None:
    digest = forged.secret["digest"]
    assert (await site.lab.horace.set_name("advisories", digest)).version == 1
    assert (await site.lab.horace.find("advisories")).digest == digest


async def test_a_chain_of_calls_counts_its_hops_whatever_it_says(site: Site) -> None:
    came = await site.act("speak", name="hops", given={})
    assert came.of["came"] == "OK"
    with fail_after(60):
        await site.ended(site.lab.runs.id_of("hostile", came.of["id"]))
    found = await site.lab.rogers.find(came.of["id"])
    assert found is not None
    assert found.hops == 1


async def test_control_characters_stay_data_and_reach_no_terminal(site: Site) -> None:
    came = await site.act("speak", name="control", given={})
    check(
        came.of,
        {
            "prose": "OK",
            "event": "OK",
            "recipient": NOT_YOURS,
            "put": "OK",
            "find": NOT_YOURS,
            "surrogates as bytes": "UN",
        },
    )
    said = await site.lab.rogers.find(came.of["id"])
    assert said is not None
    assert "\x1b" in said.text  # kept as it was said
    for each in await said_by(site, came):
        shown = plain(json.dumps(message_json(each), ensure_ascii=False))
        assert not re.search(r"[\x00-\x1f\x7f\u202e\u2028]", shown)


async def test_json_that_others_cannot_read_is_shown_as_text(site: Site) -> None:
    came = await site.act("speak", name="say_json", given={})
    assert set(came.of.values()) == {"OK"}
    for each in await said_by(site, came):
        json.dumps(message_json(each), ensure_ascii=False, allow_nan=False).encode()


async def test_files_are_those_of_the_run(site: Site) -> None:
    came = await site.speak("files", **await site.secret_of_others())
    check(came, FILES)
    assert came["a blob of another conversation"] == came["a blob that is not there"]


@pytest.mark.parametrize("act", ["endless_put", "many_puts"])
async def test_no_more_is_stored_than_the_budget_says(site: Site, act: str) -> None:
    before = site.lab.horace.usage()
    came = await site.act("speak", name=act, given={})
    said = came.of if isinstance(came.of, dict) else {came.of: 1}
    # "Internal error from Core" is what the client's own library makes of a call that was refused while it was writing.
    refused = (TOO_MUCH, "INTERNAL: Internal error from Core")
    assert not [each for each in said if each != "OK" and not each.startswith(refused)]
    assert said.get("OK", 0) <= (1 if act == "many_puts" else 0), "one may be whole before the others have begun"
    after = site.lab.horace.usage()
    assert after.bytes - before.bytes <= 4 * 1024 * 1024
    assert (
        4 * 1024 * 1024 < int(came.run.cost["bytes_out"]) <= 4 * 1024 * 1024 + 64 * 256 * 1024
    )  # one piece of each stream on the way


@EITHER
async def test_no_more_is_read_than_the_budget_says(site: Site) -> None:
    assert await site.speak("read_again") == {"OK": 8, TOO_MUCH: 4}


async def test_acknowledging_what_never_was_harms_nobody(site: Site) -> None:
    conversation = new_id()
    first = await site.act("speak", name="acknowledge", given={}, conversation=conversation)
    assert first.of == ["OK"] * 6
    second = await site.act("speak", name="acknowledge", given={}, conversation=conversation)
    assert second.of == ["OK"] * 6, "the next question in the conversation is still read"


async def test_a_question_that_waits_is_answered_though_the_run_before_it_acknowledged_it(site: Site) -> None:
    conversation, came = new_id(), []
    async with create_task_group() as tasks:

        async def act() -> None:
            came.append(await site.act("speak", name="acknowledge", given={}, conversation=conversation))

        for _ in range(2):
            tasks.start_soon(act)
    assert [each.run.outcome for each in came] == [Outcome.SUCCEEDED] * 2


@EITHER
async def test_subscriptions_end_each_other_and_the_session_goes_on(site: Site) -> None:
    came = await site.speak("subscribe_flood")
    assert came["after"] == "OK"
    assert set(came["seen"]) <= {"END 0", "END 1", "UNAVAILABLE", TOO_MUCH, "CANCELLED"}


async def test_an_outcome_that_is_the_cores_to_say_is_a_failure(site: Site) -> None:
    for outcome in (OUTCOME_CANCELLED, OUTCOME_KILLED):
        came = await site.act("speak", name="finish", given={"outcome": outcome})
        assert came.run.outcome is Outcome.FAILED
        assert "not a worker's to say" in came.run.reason


async def test_an_outcome_that_does_not_exist_is_refused(site: Site) -> None:
    assert (await site.speak("finish", outcome=99))[0].startswith(WRONG)


async def test_an_artifact_of_another_conversation_is_a_failure(site: Site) -> None:
    secret = await site.secret_of_others()
    for digest in (secret["digest"], "sha256:" + "0" * 64, "../../journal.db"):
        came = await site.act(
            "speak", name="finish", given={"outcome": 1, "artifacts": [{"digest": digest, "size": 1}]}
        )
        assert (came.run.outcome, came.run.artifacts) == (Outcome.FAILED, [])
        assert "never stored" in came.run.reason


async def test_evidence_is_bounded_and_can_be_read_by_everybody(site: Site) -> None:
    came = await site.speak("oversized_evidence")
    assert [each.partition(":")[0] for each in came] == [TOO_MUCH, TOO_MUCH, *[WRONG] * 7]


async def test_what_is_no_call_is_refused(site: Site) -> None:
    check(await site.speak("malformed"), MALFORMED)


async def test_calls_that_are_none_fill_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    came = await site.speak("flood", of="calls that are none", seconds=1)
    assert set(came) <= {"UNKNOWN", "RESOURCE_EXHAUSTED"}
    assert came["UNKNOWN"] > 50
    said = [each for each in caplog.records if each.name.startswith("grpc")]
    assert len(said) <= 20
    assert not any(each.exc_info for each in said)


async def test_broken_frames_harm_their_own_connection_alone(site: Site) -> None:
    came = await site.speak("frames")
    assert len(came) >= 16
    assert {name: after for name, (_, after) in came.items() if after != "OK"} == {}


@EITHER
async def test_connections_take_few_descriptors_of_the_core(site: Site) -> None:
    most = before = _descriptors()
    done = False

    async def watch() -> None:
        nonlocal most
        while not done:
            most = max(most, _descriptors())
            await sleep(0.02)

    async with create_task_group() as tasks:
        tasks.start_soon(watch)
        came = await site.speak("slow", hold_s=1)
        done = True
    assert came["tried"] == 3000
    assert came["honest"] > 0
    assert most - before <= CONNECTIONS + 40, "descriptors of the core, of which each connection takes one"


@EITHER
async def test_thousands_of_calls_at_once_are_answered_or_refused(site: Site) -> None:
    came = await site.speak("many_streams")
    assert came["after"] == "OK"
    assert set(came["seen"]) <= {"OK", TOO_MUCH, "UNAVAILABLE"}


@EITHER
async def test_the_journal_is_whole_after_all_of_this(site: Site) -> None:
    found = await site.lab.journal.verify()
    assert found.ok
    assert site.lab.journal.statistics().sealed is None
    assert site.doors() == []
    assert await site.sandboxes() == []


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
