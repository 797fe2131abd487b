"""An act that the policy marks *ask* waits for a person, in its exact form; each approval lets one act through."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after

from core.home import Home
from core.lab import Lab
from core.policy.acts import Act
from core.policy.approvals import ID_DIGITS, Approval
from core.policy.capabilities import Identity
from core.policy.policy import Policy
from core.policy.rules import BUILT_IN, parse_policy, read_policy
from core.ports.acting import acting
from core.rogers.entry import Entry
from protos.errors import Conflict, Denied, Error, NotFound
from protos.ids import new_id
from tests.labs import a_home, opened

POLICY = """
[[rules]]
name = "stores-b"
kinds = ["files.put"]
principals = ["mad:marco"]
targets = ["b"]
verdict = "deny"
reason = "nobody stores b"

[[rules]]
name = "stores"
kinds = ["files.put"]
principals = ["mad:marco"]
verdict = "ask"
reason = "storing is looked at"
"""
PAGES = """
[[rules]]
name = "pages"
kinds = ["web.fetch"]
principals = ["mad:marco"]
hosts = ["a.test"]
verdict = "ask"
limits = { bytes_down = 1000 }
"""
LIMIT_S = 30


@asynccontextmanager
async def a_lab(home: Home) -> AsyncIterator[Lab]:
    (home.path / "policy.toml").write_text(POLICY)
    async with opened(home) as lab:
        yield lab


def marco(run: str = "marco-1") -> Identity:
    return Identity("marco", frozenset({"files"}), run=run, conversation="c")


async def store(lab: Lab, done: list[str], name: str = "a", identity: Identity | None = None) -> None:
    """An act that needs a person; what came of it is added to `done`."""
    who = identity or marco()
    try:
        async with acting(lab.services, who, Act("files.put", who.principals, name)):
            pass
        done.append("stored")  # and its outcome is durable
    except Error as error:
        done.append(error.message)


async def asked(lab: Lab, *, besides: int = 0) -> Approval:
    """The question, once it is there."""
    with fail_after(LIMIT_S):
        while len(found := await lab.services.approvals.pending()) <= besides:
            await anyio.sleep(0.01)
    return found[besides]


async def ask_as(lab: Lab, id: str, question: Approval) -> None:
    """The same question once more, under an id of our choice."""
    names = ("digest", "form", "rule", "reason", "expires")
    body = {"approval": id, "step": "asked"} | {each: getattr(question, each) for each in names}
    said = json.dumps(body).encode()
    entry = Entry(f"approval:{id}:asked", "approval", said, "c", sender=question.principal, at=time.time())
    await lab.journal.append(entry)


async def acts_of(lab: Lab, step: str) -> list[dict[str, Any]]:
    rows = await lab.journal.query(
        "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE j.kind = 'act' ORDER BY j.sequence"
    )
    return [body for row in rows if (body := json.loads(row[0]))["step"] == step]


async def test_it_waits_in_its_exact_form_is_told_and_begins_when_a_person_says_so() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks, lab.rogers.follow(conversation="c") as said:
            done: list[str] = []
            tasks.start_soon(store, lab, done)
            question = await asked(lab)
            assert done == []
            assert json.loads(question.form) == {
                "kind": "files.put",
                "principals": ["run:marco-1", "mad:marco"],
                "target": "a",
                "details": {},
                "taint": ["worker"],
            }
            with fail_after(LIMIT_S):
                told = await anext(aiter(said))
            assert f"waits for approval {question.short}" in told.text
            assert f"madlab approve {question.short}" in told.text
            await lab.services.approvals.approve(question.id, by="operator")
            with fail_after(LIMIT_S):
                while not done:
                    await anyio.sleep(0.01)
            assert done == ["stored"]
            assert (await lab.services.approvals.get(question.id)).uses == 0
            assert [each["verdict"] for each in await acts_of(lab, "started")] == ["ask"]
            assert len(await acts_of(lab, "outcome")) == 1


async def test_what_would_be_denied_anyway_is_never_asked_and_a_denial_is_one_entry() -> None:
    with a_home() as home:
        async with a_lab(home) as lab:
            done: list[str] = []
            await store(lab, done, "b")
            assert done == ["rule stores-b: nobody stores b (mad:marco: files.put b)."]
            assert await lab.services.approvals.newest() == []
            (denied,) = await acts_of(lab, "denied")
            assert (denied["rule"], denied["target"], denied["verdict"]) == ("stores-b", "b", "deny")


async def test_the_same_act_twice_is_one_question_and_each_needs_a_use_of_its_own() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            done: list[str] = []
            for _ in range(3):
                tasks.start_soon(store, lab, done)
            question = await asked(lab)
            with fail_after(LIMIT_S):
                while lab.services.approvals.waiting(question) < 3:
                    await anyio.sleep(0.01)
            assert len(await lab.services.approvals.pending()) == 1
            await lab.services.approvals.approve(question.id, by="operator", uses=2)
            again = await asked(lab)  # of the third
            assert again.id != question.id
            assert again.digest == question.digest
            assert done == ["stored", "stored"]
            await lab.services.approvals.deny(again.id, by="operator")
        assert done[2].startswith("rule stores: operator denied it")


async def test_another_act_is_another_question_and_a_no_holds_until_it_expires() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            done: list[str] = []
            tasks.start_soon(store, lab, done)
            question = await asked(lab)
            tasks.start_soon(store, lab, done, "a2")
            other = await asked(lab, besides=1)
            assert other.digest != question.digest
            await lab.services.approvals.deny(question.id, by="operator")
            await lab.services.approvals.deny(other.id, by="operator")
            with fail_after(LIMIT_S):
                while len(done) < 2:
                    await anyio.sleep(0.01)
            await store(lab, done)
            assert all("denied it" in each for each in done)
            assert await lab.services.approvals.pending() == []


async def test_a_policy_that_forbids_it_meanwhile_has_the_last_word() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            done: list[str] = []
            tasks.start_soon(store, lab, done)
            question = await asked(lab)
            forbids = POLICY.replace('verdict = "ask"', 'verdict = "deny"')
            lab.services.policy = Policy([parse_policy(forbids, "policy.toml"), read_policy(BUILT_IN)])
            await lab.services.approvals.approve(question.id, by="operator")
            with fail_after(LIMIT_S):
                while not done:
                    await anyio.sleep(0.01)
            assert done[0].startswith("rule stores: storing is looked at")
            assert (await lab.services.approvals.get(question.id)).uses == 1  # and is not used up


async def test_a_policy_that_allows_less_of_it_meanwhile_holds() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            found: list[int] = []
            lab.services.policy = Policy([parse_policy(PAGES, "policy.toml"), read_policy(BUILT_IN)])
            who = Identity("marco", frozenset({"web"}), run="marco-1", conversation="c")

            async def fetch() -> None:
                async with acting(
                    lab.services, who, Act("web.fetch", who.principals, "https://a.test/", {"method": "GET"})
                ) as added:
                    found.append(added.limits.bytes_down)

            tasks.start_soon(fetch)
            question = await asked(lab)
            less = PAGES.replace("bytes_down = 1000", "bytes_down = 10")
            lab.services.policy = Policy([parse_policy(less, "policy.toml"), read_policy(BUILT_IN)])
            await lab.services.approvals.approve(question.id, by="operator")
            with fail_after(LIMIT_S):
                while not found:
                    await anyio.sleep(0.01)
            assert found == [10]


async def test_what_the_run_has_learnt_while_it_waited_makes_it_another_act() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            done: list[str] = []
            tasks.start_soon(store, lab, done)
            question = await asked(lab)
            await lab.services.taints.add(marco(), {"file"})
            await lab.services.approvals.approve(question.id, by="operator")
            again = await asked(lab)
            assert json.loads(again.form)["taint"] == ["file", "worker"]
            assert done == []
            assert (await lab.services.approvals.get(question.id)).uses == 1
            await lab.services.approvals.approve(again.id, by="operator")
            with fail_after(LIMIT_S):
                while not done:
                    await anyio.sleep(0.01)
            assert done == ["stored"]


async def test_an_approval_carries_no_other_act_not_even_one_of_the_same_id() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            approvals, done = lab.services.approvals, list[str]()
            tasks.start_soon(store, lab, done)
            question = await asked(lab)
            assert len(question.id) * 4 >= 128
            other = replace(question, digest="sha256:" + "0" * 64)
            await approvals.approve(question.id, by="operator", uses=2)
            with fail_after(LIMIT_S):
                while not done:
                    await anyio.sleep(0.01)
            with pytest.raises(Denied, match="another act's"):
                await lab.journal.append(approvals.use(other, "x"))
            # As if somebody had found an act whose question has the id of one about "a".
            evil = Act("files.put", marco().principals, "a2", taint=frozenset({"worker"}))
            id = sha256(f"{evil.digest} 0".encode()).hexdigest()[:ID_DIGITS]
            await ask_as(lab, id, question)
            await approvals.approve(id, by="operator")
            done.clear()
            with fail_after(LIMIT_S):
                await store(lab, done, "a2")
            assert "another act's" in done[0]


async def test_people_see_the_beginning_of_an_id_and_an_answer_to_several_that_begin_so_is_none() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            approvals = lab.services.approvals
            tasks.start_soon(store, lab, [])
            question = await asked(lab)
            assert len(question.short) < len(question.id)
            assert (await approvals.get(question.short)).id == question.id
            for wrong in ("", question.id[:3], f"{question.short}*", "%", "_" * 10, question.id.upper() + "A"):
                with pytest.raises(NotFound):
                    await approvals.approve(wrong, by="operator")
            await ask_as(lab, question.short + "0" * 22, replace(question, digest="sha256:" + "0" * 64))
            with pytest.raises(Conflict, match="Several"):
                await approvals.approve(question.short, by="operator")
            assert (await approvals.deny(question.id, by="operator")).id == question.id


async def test_nobody_there_is_a_no_after_a_while() -> None:
    with a_home("[approvals]\nexpire_s = 1\n") as home:
        async with a_lab(home) as lab:
            done: list[str] = []
            with fail_after(LIMIT_S):
                await store(lab, done)
            assert done[0].startswith("rule stores: nobody approved it within 1 s")
            (late,) = await lab.services.approvals.newest()
            with pytest.raises(Conflict, match="expired"):
                await lab.services.approvals.approve(late.id, by="operator")


async def test_questions_and_answers_survive_the_core() -> None:
    with a_home() as home:
        async with a_lab(home) as lab:
            async with create_task_group() as tasks:
                tasks.start_soon(store, lab, [])
                question = await asked(lab)
                tasks.cancel_scope.cancel()
            assert [each.id for each in await lab.services.approvals.pending()] == [question.id]
        async with a_lab(home) as lab:
            await lab.services.approvals.approve(question.id, by="operator")
        async with a_lab(home) as lab:
            done: list[str] = []
            with fail_after(LIMIT_S):
                await store(lab, done)
            assert done == ["stored"]
            before = await lab.services.approvals.newest()
            await lab.journal.rebuild("approvals")
            assert await lab.services.approvals.newest() == before


async def test_a_use_and_what_stands_with_it_are_durable_with_the_start_or_not_at_all() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            approvals = lab.services.approvals
            tasks.start_soon(store, lab, [])
            question = await asked(lab)
            await approvals.approve(question.id, by="operator")
            with fail_after(LIMIT_S):
                while (await approvals.get(question.id)).uses:
                    await anyio.sleep(0.01)
            beside = Entry(new_id(), "act", b'{"act": "x"}')
            with pytest.raises(Denied, match="used up"):
                await lab.journal.append(approvals.use(question, "x"), beside)
            assert not await lab.journal.query("SELECT 1 FROM journal WHERE id = ?", (beside.id,))


async def test_one_principal_cannot_bury_the_others_questions() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            done: list[str] = []
            for number in range(17):
                tasks.start_soon(store, lab, done, f"n{number}")
            with fail_after(LIMIT_S):
                while not done:
                    await anyio.sleep(0.01)
            assert "wait for a person already" in done[0]
            tasks.start_soon(store, lab, done, "n", marco("marco-2"))
            with fail_after(LIMIT_S):
                while "marco-2" not in {each.principal for each in await lab.services.approvals.pending()}:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


async def test_answers_are_given_once_and_to_what_there_is() -> None:
    with a_home() as home:
        async with a_lab(home) as lab, create_task_group() as tasks:
            approvals = lab.services.approvals
            tasks.start_soon(store, lab, [])
            question = await asked(lab)
            with pytest.raises(NotFound):
                await approvals.approve("nowhere", by="operator")
            assert (await approvals.deny(question.id, by="operator")).state == "denied"
            assert (await approvals.deny(question.id, by="operator")).state == "denied"
            with pytest.raises(Conflict, match="denied"):
                await approvals.approve(question.id, by="operator")


async def test_each_policy_that_differs_from_the_last_is_a_version_in_the_journal() -> None:
    with a_home() as home:
        async with opened(home) as lab:
            assert await _versions(lab) == [1]
        async with opened(home) as lab:
            assert await _versions(lab) == [1]
        async with a_lab(home) as lab:
            assert await _versions(lab) == [1, 2]
            rows = await lab.journal.query(
                "SELECT b.body FROM journal j JOIN body b USING (sequence) WHERE id = 'policy:2'"
            )
            files = json.loads(rows[0][0])["files"]
            assert files[0]["text"] == POLICY


async def _versions(lab: Lab) -> list[int]:
    return [int(row[0]) for row in await lab.journal.query("SELECT version FROM policies ORDER BY version")]
