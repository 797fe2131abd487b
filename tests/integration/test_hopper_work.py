"""Hopper's own agent with models good and bad, which are played over real HTTP."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from anyio import fail_after

from periphery.hopper import Hopper
from protos.errors import InvalidArgument
from protos.v1.message_pb2 import Message
from tests.integration.hopper_bench import BUGGY, RIGHT, WRONG, acts, bench, finish, mend, results, said
from tests.model_server import Play, Request
from tests.orchestras import a_model

MENDED = {"calc.py": BUGGY["calc.py"].replace(WRONG, RIGHT).encode()}
GOOD = "def mean(values):\n    return sum(values) / len(values)\n"
PYTEST = BUGGY | {"test_calc.py": BUGGY["test_calc.py"].removesuffix("\n\ntest_mean()\n")}
NO_FAULT_SHOWN = BUGGY | {"test_calc.py": "from calc import mean\n\nassert mean([0, 0]) == 0\n"}
RED = "from calc import mean\n\nassert mean([1, 2, 3]) == 2\n"


async def test_a_good_model_mends_a_fault_and_every_tool_serves_it(tmp_path: Path) -> None:
    plays = [
        acts(
            ("plan", {"steps": ["look", "mend", "test"]}),
            ("read", {"path": "."}),
            ("read", {"path": "calc.py"}),
            ("search", {"pattern": r"def \w+"}),
            text="Let me look.",
        ),
        acts(("run_tests", {}), ("git_status", {}), ("run_build", {}), ("run_install", {"command": "true"})),
        acts(
            mend(),
            ("write", {"path": "notes/new ü.md", "content": "one\ntwo\n"}),
            ("write", {"path": "gone.txt", "content": "x\n"}),
        ),
        acts(
            ("remove", {"path": "gone.txt"}),
            ("run", {"command": "cat calc.py; echo on stderr >&2"}),
            ("git_status", {}),
            ("git_diff", {}),
            ("git_commit", {"message": "Mend the mean"}),
            ("run", {"command": "git log --format='%an %s'"}),
            ("git_diff", {"path": "calc.py"}),
        ),
        acts(("run_tests", {})),
        finish(),
    ]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(PYTEST, test="")
        seen = results(lab.server.requests[-1])
    assert done.outcome == "succeeded", done.verdict.reason
    assert done.changed == MENDED | {"notes/new ü.md": b"one\ntwo\n"}
    assert done.deleted == []
    assert seen[0] == "Noted."
    assert seen[1] == "calc.py\ntest_calc.py"
    assert seen[2].splitlines() == ["calc.py, lines 1-2 of 2", "    1\tdef mean(values):", seen[2].splitlines()[2]]
    assert seen[3].splitlines() == ["calc.py:1:def mean(values):", "test_calc.py:4:def test_mean():"]
    assert seen[4].startswith("The tests fail (exit 1): 1 failed.")
    assert seen[5] == "Nothing is changed."
    assert "[exit 0 after " in seen[6]
    assert seen[8:11] == [
        "Wrote calc.py: 1 lines added, 1 removed.",
        "Wrote notes/new ü.md: 2 lines added, 0 removed.",
        "Wrote gone.txt: 1 lines added, 0 removed.",
    ]
    assert seen[11] == "Removed gone.txt."
    assert "on stderr" in seen[12]
    assert "M calc.py" in seen[13]
    assert "-    return sum(values) / (len(values) - 1)" in seen[14]
    assert "+two" in seen[14]
    assert seen[15] == "Committed."
    assert "Hopper Mend the mean\nHopper The repository" in seen[16]
    assert "+    return sum(values) / len(values)" in seen[17]  # against the source, also after a commit
    assert seen[18].startswith("The tests pass: 1 passed.")
    worked = done.worked
    assert (worked["agent"], worked["model"], worked["steps"], worked["small"]) == ("hopper", "scripted", 6, False)
    assert worked["tests_before"] is not None
    assert worked["tests_before"]["counts"] == {"passed": 0, "failed": 1, "errors": 0, "skipped": 0}
    assert worked["tests_after"] is not None
    assert worked["tests_after"]["passed"]
    assert worked["red_first"]
    assert worked["usd"] > 0
    assert worked["tokens_in"] > worked["tokens_out"] > 0
    assert [each["exit_code"] for each in worked["commands"]].count(1) == 2
    assert done.verdict.evidence["tests_after"] == worked["tests_after"]
    assert done.told("plan") == ["look\nmend\ntest"]
    assert "Let me look." in done.told("note")
    assert {each["path"] for each in done.fields("edit")} == {"calc.py", "notes/new ü.md", "gone.txt"}
    assert [each["when"] for each in done.fields("tests")] == ["before", "during", "during"]
    assert done.fields("model")[-1]["steps"] == 6


async def test_a_lie_about_the_tests_does_not_hold(tmp_path: Path) -> None:
    async with bench(finish("All tests pass now."), tmp_path) as lab:
        done = await lab.work(BUGGY)
        told = said(lab.server.requests[-1])
    assert done.outcome == "partial"
    assert "the tests fail" in done.verdict.reason
    assert done.worked["tests_after"] is not None
    assert not done.worked["tests_after"]["passed"]
    assert "You said it is done. The tests fail" in told
    assert done.changed == {}


async def test_done_without_a_change_is_no_success(tmp_path: Path) -> None:
    async with bench(finish("It was fine already."), tmp_path) as lab:
        done = await lab.work({"README.md": "Hello.\n"}, test="")
    assert (done.outcome, done.verdict.reason) == ("failed", "It says that it is done, and has changed nothing.")


async def test_who_says_that_it_cannot_is_believed_and_what_it_did_is_kept(tmp_path: Path) -> None:
    plays = [acts(("write", {"path": "try.py", "content": "x = 1\n"})), finish("It cannot be done.", done=False)]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert (done.outcome, done.worked["summary"]) == ("failed", "It cannot be done.")
    assert done.changed == {"try.py": b"x = 1\n"}


async def test_without_a_red_test_one_is_asked_for_once(tmp_path: Path) -> None:
    plays = [
        acts(mend()),
        finish("Mended."),
        acts(("edit", {"path": "calc.py", "old": "len(values)", "new": WRONG})),
        acts(("write", {"path": "test_more.py", "content": RED}), ("run_tests", {})),
        acts(mend()),
        finish("Mended, with a test."),
    ]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(NO_FAULT_SHOWN)
        objection = said(lab.server.requests[2])
    assert "no test has failed yet" in objection
    assert done.outcome == "succeeded"
    assert done.worked["red_first"]
    assert set(done.changed) == {"calc.py", "test_more.py"}


async def test_a_test_that_was_written_after_the_mending_is_tried_on_the_code_as_it_came(tmp_path: Path) -> None:
    async with bench([acts(mend(), ("write", {"path": "test_more.py", "content": RED})), finish()], tmp_path) as lab:
        done = await lab.work(NO_FAULT_SHOWN)
    assert (done.outcome, done.worked["steps"]) == ("succeeded", 2)
    assert done.worked["red_first"]
    assert not (tmp_path / "sandbox/beside").exists()


async def test_a_test_that_shows_nothing_is_not_taken_for_one_that_does(tmp_path: Path) -> None:
    idle = ("write", {"path": "test_more.py", "content": "from calc import mean\n\nassert mean([0, 0, 0]) == 0\n"})
    async with bench([acts(mend(), idle), finish(), finish()], tmp_path) as lab:
        done = await lab.work(NO_FAULT_SHOWN)
    assert (done.outcome, done.worked["steps"]) == ("succeeded", 3)
    assert not done.worked["red_first"]


async def test_who_cannot_show_the_fault_may_finish_and_the_evidence_says_so(tmp_path: Path) -> None:
    async with bench([acts(mend()), finish(), finish("No test can show it.")], tmp_path) as lab:
        done = await lab.work(NO_FAULT_SHOWN)
    assert done.outcome == "succeeded"
    assert not done.worked["red_first"]


async def test_the_same_again_and_again_is_stuck(tmp_path: Path) -> None:
    async with bench(acts(("run", {"command": "cat calc.py"})), tmp_path) as lab:
        done = await lab.work(BUGGY)
        warned = results(lab.server.requests[2])
    assert done.outcome == "stuck"
    assert done.verdict.reason == 'It did the same 3 times with the same result: run {"command": "cat calc.py"}'
    assert "You have done this before" in warned[1]
    assert done.worked["steps"] == 3


async def test_who_edits_by_commands_is_not_stuck_although_the_tests_fail_alike(tmp_path: Path) -> None:
    tries = [
        acts(("run", {"command": f"sed -i 's/return .*/return {number}/' calc.py"}), ("run_tests", {}))
        for number in (7, 8, 9, 10)
    ]
    async with bench([*tries, acts(("write", {"path": "calc.py", "content": GOOD})), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY, test="python3 -S test_calc.py 2>/dev/null")
    assert done.outcome == "succeeded", done.verdict.reason


async def test_to_and_fro_is_stuck(tmp_path: Path) -> None:
    back = ("edit", {"path": "calc.py", "old": "/ len(values)", "new": f"/ {WRONG}"})

    def script(request: Request) -> Play:
        return acts(mend() if len(results(request)) % 2 == 0 else back)

    async with bench(script, tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "stuck"
    assert done.worked["steps"] <= 10


async def test_used_up_steps_are_stuck_and_what_was_done_is_kept(tmp_path: Path) -> None:
    def script(request: Request) -> Play:
        number = len(results(request))
        return acts(("write", {"path": f"file-{number}.txt", "content": str(number)}))

    async with bench(script, tmp_path) as lab:
        done = await lab.work(BUGGY, max_steps=7)
        told = said(lab.server.requests[-1])
    assert (done.outcome, done.worked["steps"]) == ("stuck", 7)
    assert "needs more steps" in done.verdict.reason
    assert len(done.changed) == 7
    assert "You have 5 steps left" in told


async def test_broken_calls_come_back_with_what_to_do(tmp_path: Path) -> None:
    broken = Play(
        text="",
        calls=[("edit", '{"path": "calc.py"'), ("teleport", "{}"), ("read", "{}"), ("read", '{"path": "../etc"}')],
    )
    plays = [broken, acts(("edit", {"path": "calc.py", "old": "nowhere", "new": "x"})), acts(mend()), finish()]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(BUGGY)
        told = results(lab.server.requests[2])
    assert done.outcome == "succeeded"
    assert any("The arguments cannot be used" in each and '{"path": "calc.py"' in each for each in told)
    assert any("There is no tool 'teleport'" in each for each in told)
    assert any("'path' is a required property" in each for each in told)
    assert any("is outside of the repository" in each for each in told)
    assert any("`old` does not stand in calc.py" in each for each in told)


async def test_what_no_program_takes_comes_back_too(tmp_path: Path) -> None:
    odd = acts(
        ("run", {"command": "echo \0"}),
        ("run", {"command": "echo \ud800"}),
        ("search", {"pattern": "a\0"}),
        ("write", {"path": "half", "content": "\ud800"}),
        ("read", {"path": "calc.py", "first": 1.0}),
        ("run", {"command": "printf x > \"$(printf 'na\\351ve')\"; printf 'a\\377b\\n' > bytes.txt"}),
        ("read", {"path": "."}),
        ("edit", {"path": "bytes.txt", "old": "nowhere in it", "new": "x"}),
        ("git_status", {}),
        ("git_commit", {"message": "\0"}),
    )
    async with bench([odd, acts(mend()), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
        seen = results(lab.server.requests[1])
    assert done.outcome == "succeeded", done.verdict.reason
    assert len(seen) == 10
    assert "could not be done" in seen[0] or "cannot be used" in seen[0]
    assert set(done.changed) >= {"calc.py", "bytes.txt"}


async def test_a_flood_of_broken_calls_is_stuck(tmp_path: Path) -> None:
    async with bench(Play(text="", calls=[("nothing", "{"), ("", "{}")]), tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "stuck"
    assert "could not be used" in done.verdict.reason


async def test_who_only_talks_is_stuck(tmp_path: Path) -> None:
    async with bench(Play(text="I would divide by the length."), tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "stuck"
    assert done.verdict.reason == "Its last 3 answers called no tool."


async def test_many_calls_in_one_answer_are_done_up_to_a_number(tmp_path: Path) -> None:
    many = acts(*(("write", {"path": f"{number}.txt", "content": "x"}) for number in range(40)))
    async with bench([many, acts(mend()), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
        told = results(lab.server.requests[1])
    assert len(told) == 40
    assert sum("Not done: too many calls" in each for each in told) == 24
    assert len(done.changed) == 17


async def test_a_flood_of_output_is_cut_for_the_model_and_for_people(tmp_path: Path) -> None:
    flood = (
        "run",
        {"command": "head -c 3000000 /dev/zero | tr '\\0' x; printf '\\033[31mred\\033]0;title\\007 end\\n'"},
    )
    async with bench([acts(flood), acts(mend()), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
        (told,) = results(lab.server.requests[1])
    assert len(told) < 17_000
    assert "left out" in told
    assert told.rstrip().splitlines()[-2].endswith("red end")
    assert all(len(each) <= 1600 for each in done.told("output"))
    assert done.outcome == "succeeded"


async def test_a_command_that_drips_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = f"drip-{os.getpid()}"
    children = f"(setsid bash -c 'exec -a {mark} sleep 300' &) ; (exec -a {mark} sleep 300) &"
    drip = f"{children} while true; do echo drip; sleep 0.2; done"
    async with bench([acts(("run", {"command": drip, "timeout_s": 2})), acts(mend()), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
        (told,) = results(lab.server.requests[1])
    assert "it took too long" in told
    assert told.count("drip") >= 5
    assert done.told("output") != []
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert mark not in listed
    assert done.outcome == "succeeded"


async def test_out_of_budget_hands_over_what_there_is_and_says_what_it_needs(tmp_path: Path) -> None:
    def script(request: Request) -> Play:
        number = len(results(request))
        return acts(("write", {"path": f"file-{number}.txt", "content": "x" * 400}))

    async with bench(script, tmp_path, usd=0.12) as lab:
        done = await lab.work(BUGGY)
        await lab.hall.check_books()
    assert done.outcome == "out_of_budget"
    assert "$" in done.verdict.reason
    assert done.changed != {}
    assert done.worked["tests_after"] is not None
    assert done.worked["usd"] <= 0.12


async def test_out_of_time_hands_over_what_there_is(tmp_path: Path) -> None:
    plays = [acts(mend()), acts(("run", {"command": "sleep 600"}))]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(BUGGY, agent_s=10)
    assert (done.outcome, done.verdict.reason) == ("out_of_budget", "Its time is used up. It needs more time.")
    assert done.changed == MENDED
    assert done.worked["tests_after"] is not None
    assert done.worked["tests_after"]["passed"]


async def test_a_remark_reaches_the_agent_at_its_next_step(tmp_path: Path) -> None:
    plays = [acts(("read", {"path": "calc.py"})), acts(mend()), finish()]
    async with bench(plays, tmp_path) as lab:

        def hear(event: Message) -> None:
            fields = json.loads(event.data or "{}")
            if fields.get("what") == "model" and fields["steps"] == 1:
                lab.bus.say("Use a generator.")
                lab.bus.say("I am no operator.", sender="echo")

        lab.bus.heard = hear
        done = await lab.work(BUGGY)
        first, second = (said(each) for each in lab.server.requests[:2])
    assert "Use a generator." not in first
    assert "Use a generator." in second
    assert "I am no operator." not in second
    states = [(each["state"], each["remark"]) for each in done.fields("remark")]
    assert [each for each, _ in states] == ["delivered", "acted_on"]
    assert len({each for _, each in states}) == 1
    whats = [json.loads(each.data or "{}").get("what") for each in done.events]
    assert whats.index("remark") > whats.index("model")


async def test_a_remark_that_the_agent_only_talks_about_is_delivered_and_not_acted_on(tmp_path: Path) -> None:
    plays = [acts(("read", {"path": "calc.py"})), Play(text="I would rather not."), acts(mend()), finish()]
    async with bench(plays, tmp_path) as lab:

        def hear(event: Message) -> None:
            fields = json.loads(event.data or "{}")
            if fields.get("what") == "model" and fields["steps"] == 1:
                lab.bus.say("Use a generator.")

        lab.bus.heard = hear
        done = await lab.work(BUGGY)
    assert done.outcome == "succeeded"
    told = [(each["state"], each.get("note")) for each in done.fields("remark")]
    assert told == [("delivered", None), ("delivered", "the agent answered without acting")]


async def test_a_remark_that_comes_with_the_end_is_heard_before_it(tmp_path: Path) -> None:
    async with bench([acts(mend()), finish("Early."), finish("With the remark.")], tmp_path) as lab:

        def hear(event: Message) -> None:
            fields = json.loads(event.data or "{}")
            if fields.get("what") == "model" and fields["steps"] == 2:
                lab.bus.say("Look again.")

        lab.bus.heard = hear
        done = await lab.work(BUGGY)
        last = said(lab.server.requests[-1])
    assert "Look again." in last
    assert (done.outcome, done.worked["summary"], done.worked["steps"]) == ("succeeded", "With the remark.", 3)
    assert [each["state"] for each in done.fields("remark")] == ["delivered", "acted_on"]


async def test_a_broken_stream_is_asked_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    half = ("write", json.dumps({"path": "cut.txt", "content": "x" * 300}))
    cut = Play(text="I write.", calls=[half], cut="call")
    async with bench([cut, acts(mend()), finish()], tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "succeeded"
    assert done.changed == MENDED
    assert any("asking again" in each for each in done.told("note"))


async def test_a_model_that_is_gone_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with bench([acts(mend()), Play(status=401)], tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "failed"
    assert done.verdict.reason.startswith("The model cannot be used: ")
    assert done.changed == MENDED


async def test_a_refusal_is_a_failure(tmp_path: Path) -> None:
    async with bench(Play(text="", refusal="I will not do that."), tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert (done.outcome, done.worked["summary"]) == ("failed", "I will not do that.")


async def test_a_long_work_stays_within_what_the_model_can_take_in(tmp_path: Path) -> None:
    model = a_model(max_tokens=1000, context_tokens=12_000, bytes_per_token=3)
    tree = BUGGY | {f"big-{number}.txt": f"{number} and more\n" * 390 for number in range(20)}

    def script(request: Request) -> Play:
        assert len(request.content) < 12_000 * 3.2
        step = len([each for each in request.body["messages"] if each["role"] == "assistant"])
        dropped = "steps were dropped" in said(request)
        if step < 15 and not dropped:
            return acts(("read", {"path": f"big-{step}.txt"}))
        return acts(mend()) if WRONG in (tmp_path / "sandbox/repo/calc.py").read_text() else finish()

    async with bench(script, tmp_path, model=model) as lab:
        done = await lab.work(tree)
        told = said(lab.server.requests[-1])
    assert done.outcome == "succeeded", done.verdict.reason
    assert "dropped to save room" in told
    assert "The mean of three values is wrong" in told


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_both_protocols_carry_a_whole_work(tmp_path: Path, kind: str) -> None:
    model = a_model(kind, max_tokens=4000, context_tokens=100_000, bytes_per_token=3)
    plays = [acts(("read", {"path": "calc.py"}), ("nothing", {}), text="I look."), acts(mend()), finish()]
    async with bench(plays, tmp_path, model=model) as lab:
        done = await lab.work(BUGGY)
    assert (done.outcome, done.changed) == ("succeeded", MENDED)


async def test_work_begins_from_earlier_changes(tmp_path: Path) -> None:
    async with bench([acts(("write", {"path": "more.txt", "content": "x"}), mend()), finish()], tmp_path) as lab:
        first = await lab.work(BUGGY)
        changes = first.verdict.artifacts[0].digest
        lab.server.script = lambda request: finish("Nothing more to do.")
        second = await lab.work(BUGGY, changes=changes)
    assert second.outcome == "succeeded"
    assert second.changed == first.changed
    assert second.worked["tests_before"] is not None
    assert second.worked["tests_before"]["passed"]


@pytest.mark.parametrize(("role", "outcome"), [("reviewer", "succeeded"), ("developer", "failed")])
async def test_a_reviewer_may_be_done_without_a_change(tmp_path: Path, role: str, outcome: str) -> None:
    async with bench(finish("calc.py:2 divides by too little."), tmp_path) as lab:
        done = await lab.work({"calc.py": BUGGY["calc.py"]}, role=role, test="")
        system = lab.server.requests[0].body["messages"][0]["content"]
    assert done.outcome == outcome
    assert f"Your role is to {role.removesuffix('er')}" in system


async def test_a_goal_that_was_stored_is_given_to_the_model_whole(tmp_path: Path) -> None:
    whole = "It is a long story. " * 2_000 + "The end."
    async with bench(finish("calc.py:2 divides by too little."), tmp_path) as lab:
        stored = lab.files.keep(whole.encode())
        await lab.work({"calc.py": BUGGY["calc.py"]}, role="reviewer", test="", goal="It is …", goal_blob=stored)
        assert f"<goal>\\n{whole}\\n</goal>" in said(lab.server.requests[0])


async def test_an_unknown_agent_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    async with bench(finish(), tmp_path) as lab:
        with pytest.raises(InvalidArgument, match="There is no agent 'os'"):
            await Hopper(tmp_path / "sandbox").work(lab.call(), source=lab.keep(BUGGY), goal="x", agent="os")
    assert not (tmp_path / "sandbox").exists()


async def test_what_tools_drop_is_left_out_and_what_was_there_is_not(tmp_path: Path) -> None:
    tree = BUGGY | {".gitignore": "*.log\nbuild/\n", "kept.log": "old\n", "node_modules/a/index.js": "1\n"}
    mess = (
        "mkdir -p build __pycache__ src/node_modules/b && touch build/out x.log __pycache__/a.pyc src/node_modules/b/i"
        " && cp /bin/true program && echo new > kept.log && echo 2 > node_modules/a/index.js && echo y > 'naïve file'"
        "&& ln -s calc.py link && ln -s /etc/passwd out && mkfifo pipe && chmod +x calc.py"
    )
    async with bench([acts(("run", {"command": mess}), mend()), finish()], tmp_path) as lab:
        done = await lab.work(tree)
    assert set(done.changed) == {"calc.py", "kept.log", "node_modules/a/index.js", "naïve file", "link"}
    assert any("left out" in each for each in done.told("note"))


async def test_unicode_and_awkward_names_go_in_and_out(tmp_path: Path) -> None:
    tree = BUGGY | {"ünï/ß 字.txt": "eins\n", "-dash": "a\n", 'quo"te\\': "b\n", "sp ace/x": "c\n"}
    calls = acts(
        ("edit", {"path": "ünï/ß 字.txt", "old": "eins", "new": "zwei"}),
        ("edit", {"path": 'quo"te\\', "old": "b", "new": "bb"}),
        ("remove", {"path": "sp ace/x"}),
        ("run", {"command": "git status --short | cat && printf 'a\\n' >> ./-dash"}),
        ("search", {"pattern": "zwei"}),
        mend(),
    )
    async with bench([calls, finish()], tmp_path) as lab:
        done = await lab.work(tree)
        seen = results(lab.server.requests[1])
    assert done.changed == MENDED | {"ünï/ß 字.txt": b"zwei\n", 'quo"te\\': b"bb\n", "-dash": b"a\na\n"}
    assert done.deleted == ["sp ace/x"]
    assert "ünï/ß 字.txt:1:zwei" in seen[4]


async def test_a_tree_of_no_known_kind_is_worked_on_all_the_same(tmp_path: Path) -> None:
    plays = [acts(("write", {"path": "README.md", "content": "Hello, world.\n"})), finish("Greeted the world.")]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work({"README.md": "Hello.\n"}, goal="Greet the world.", test="")
    assert done.outcome == "succeeded"
    assert done.worked["tests_after"] is not None
    assert not done.worked["tests_after"]["found"]


async def test_the_hooks_and_configuration_of_a_tree_are_not_ours_to_run(tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    hook = f"#!/bin/sh\ntouch {fired}\n"
    tree = BUGGY | {
        ".git/config": f"[core]\n\tfsmonitor = {tmp_path}/hook.sh\n\thooksPath = hooks\n",
        ".git/hooks/pre-commit": hook,
        "hooks/pre-commit": hook,
        "sub/.git": "gitdir: ../.git\n",
    }
    (tmp_path / "hook.sh").write_text(hook)
    (tmp_path / "hook.sh").chmod(0o755)
    plays = [
        acts(("git_status", {}), mend(), ("git_commit", {"message": "x"}), ("run", {"command": "git status"})),
        finish(),
    ]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(tree)
    assert done.outcome == "succeeded"
    assert not fired.exists()
    assert done.changed == MENDED


async def test_the_test_tool_says_what_a_tree_with_changes_comes_to(tmp_path: Path) -> None:
    async with bench([acts(mend(), ("remove", {"path": "old.py"})), finish()], tmp_path) as lab:
        tree = PYTEST | {"old.py": "raise SystemExit\n"}
        done = await lab.work(tree)
        changes, deleted = (each.digest for each in done.verdict.artifacts)
        before = await lab.test(tree)
        after = await lab.test(tree, changes=changes, deleted=deleted)
        gone = (tmp_path / "sandbox/repo/old.py").exists()
        given = await lab.test(tree, command="echo '3 passed in 0.1s'; exit 4")
        slow = await lab.test(tree, command="sleep 20", timeout_s=1)
        nothing = await lab.test({"README.md": "x"})
    assert (before["passed"], before["found"], before["detected"]) == (False, True, True)
    assert (after["passed"], after["counts"]) == (True, {"passed": 1, "failed": 0, "errors": 0, "skipped": 0})
    assert not gone
    assert (given["passed"], given["exit_code"], given["detected"]) == (False, 4, False)
    assert (slow["timed_out"], slow["passed"]) == (True, False)
    assert (nothing["found"], nothing["passed"]) == (False, False)


async def test_a_tree_that_is_none_is_refused(tmp_path: Path) -> None:
    async with bench(finish(), tmp_path) as lab:
        with fail_after(60), pytest.raises(InvalidArgument):
            await Hopper(tmp_path / "sandbox").work(lab.call(), source=lab.files.keep(b"no tree" * 100), goal="x")
