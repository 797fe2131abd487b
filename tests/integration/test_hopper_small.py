"""The agent for small models: one function at a time, and the tests decide."""

import json
from pathlib import Path

import pytest

from tests.integration.hopper_bench import BUGGY, acts, bench, finish, mend
from tests.model_server import Play, Request
from tests.orchestras import a_model

SMALL = a_model(max_tokens=1000, context_tokens=8192, bytes_per_token=3, small=True)
GOOD = "def mean(values):\n    return sum(values) / len(values)\n"
BAD = "def mean(values):\n    return sum(values)\n"


def answer(code: str, fault: str = "It divides by one too few.") -> Play:
    """What a small model says."""
    return Play(text=json.dumps({"fault": fault, "code": code}))


async def test_a_small_model_is_asked_for_one_function_and_the_tests_decide(tmp_path: Path) -> None:
    plays = [answer(BAD), Play(text="not json"), answer(BAD), answer(f"```python\nimport math\n\n{GOOD}```")]
    async with bench(plays, tmp_path, model=SMALL) as lab:
        done = await lab.work(BUGGY)
        bodies = [each.body for each in lab.server.requests]
    assert done.outcome == "succeeded", done.verdict.reason
    assert done.changed == {"calc.py": GOOD.encode()}
    assert (done.worked["agent"], done.worked["small"]) == ("small", True)
    assert done.worked["red_first"]
    assert "kept because the tests pass" in done.worked["summary"]
    assert len(done.fields("tests")) == 3  # before, and of four answers the two that were new functions
    for body in bodies:
        assert "tools" not in body
        assert body["response_format"]["type"] == "json_schema"
        assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["fault", "code"]
        assert len(json.dumps(body)) < 6000
    assert len({body["temperature"] for body in bodies}) > 1


async def test_of_several_functions_the_one_in_the_goal_comes_first_and_then_the_next(tmp_path: Path) -> None:
    tree = BUGGY | {"calc.py": f"def total(values):\n    return sum(values)\n\n\n{BUGGY['calc.py']}"}

    def script(request: Request) -> Play:
        asked = request.body["messages"][-1]["content"]
        return answer(GOOD if "function `mean`" in asked else "def total(values):\n    return 0\n")

    async with bench(script, tmp_path, model=SMALL) as lab:
        done = await lab.work(tree, goal="`total` is wrong.")
    assert done.outcome == "succeeded"
    assert done.changed["calc.py"].decode() == f"def total(values):\n    return sum(values)\n\n\n{GOOD}"


async def test_a_missing_function_is_written(tmp_path: Path) -> None:
    tree = BUGGY | {"calc.py": "ONE = 1\n"}
    async with bench(answer(GOOD), tmp_path, model=SMALL) as lab:
        done = await lab.work(tree)
    assert done.outcome == "succeeded"
    assert done.changed["calc.py"].decode() == f"ONE = 1\n\n\n{GOOD}"


async def test_a_question_without_an_answer_is_not_the_end(tmp_path: Path) -> None:
    plays = [Play(garbage=b"never mind") for _ in range(6)]  # the lab asks three times for each question
    async with bench([*plays, answer(GOOD)], tmp_path, model=SMALL, failures=50) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "succeeded"
    assert any("no answer" in each for each in done.told("note"))


async def test_what_no_answer_mends_is_stuck_and_the_tree_is_as_it_was(tmp_path: Path) -> None:
    async with bench(answer(BAD), tmp_path, model=SMALL) as lab:
        done = await lab.work(BUGGY)
    assert (done.outcome, done.changed) == ("stuck", {})
    assert 5 <= done.worked["steps"] <= 9


async def test_the_answer_that_mends_most_is_kept(tmp_path: Path) -> None:
    tests = (
        "from calc import mean, total\n\n\ndef test_mean():\n    assert mean([1, 2, 3]) == 2\n\n\n"
        "def test_total():\n    assert total([1, 2]) == 3\n"
    )
    code = BUGGY["calc.py"] + "\n\ndef total(values):\n    return 0\n"
    async with bench(answer(GOOD), tmp_path, model=SMALL) as lab:
        done = await lab.work({"calc.py": code, "test_calc.py": tests}, test="")
    assert done.outcome == "partial"
    assert "1 more tests pass" in done.worked["summary"]
    assert GOOD.encode() in done.changed["calc.py"]


async def test_two_faults_are_mended_one_after_the_other(tmp_path: Path) -> None:
    code = "def one():\n    return 2\n\n\ndef two():\n    return 1\n"
    tests = "from calc import one, two\n\n\ndef test_one():\n    assert one() == 1\n\n\n"
    tests += "def test_two():\n    assert two() == 2\n"

    def script(request: Request) -> Play:
        asked = request.body["messages"][-1]["content"]
        return answer(
            "def one():\n    # first\n    return 1" if "function `one`" in asked else "def two():\n    return 2"
        )

    async with bench(script, tmp_path, model=SMALL) as lab:
        done = await lab.work({"calc.py": code, "test_calc.py": tests}, goal="Mend calc.", test="")
    assert done.outcome == "succeeded", done.verdict.reason
    mended = "def one():\n    # first\n    return 1\n\n\ndef two():\n    return 2\n"
    assert done.changed["calc.py"].decode() == mended


async def test_without_a_failing_test_a_small_model_is_not_asked(tmp_path: Path) -> None:
    async with bench(answer(GOOD), tmp_path, model=SMALL) as lab:
        done = await lab.work({"calc.py": BUGGY["calc.py"]}, test="")
        assert lab.server.requests == []
    assert done.outcome == "failed"
    assert "needs a failing test" in done.verdict.reason


async def test_javascript_is_mended_between_its_braces(tmp_path: Path) -> None:
    tree = {
        "calc.js": "// mean {\nexport function mean(values) {\n  return values.length - 1;\n}\nexport const one = 1;\n",
        "check.sh": "grep -q 'return 2;' calc.js || { echo 'calc.js:3: mean is wrong'; exit 1; }\n",
    }
    async with bench(answer("export function mean(values) {\n  return 2;\n}"), tmp_path, model=SMALL) as lab:
        done = await lab.work(tree, test="sh check.sh")
    assert done.outcome == "succeeded"
    assert done.changed["calc.js"].decode() == tree["calc.js"].replace("values.length - 1", "2")


@pytest.mark.parametrize("agent", ["small", "hopper"])
async def test_a_large_model_may_be_asked_as_a_small_one(tmp_path: Path, agent: str) -> None:
    plays = [answer(GOOD)] if agent == "small" else [acts(mend()), finish()]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(BUGGY, agent=agent)
    assert (done.outcome, done.worked["agent"], done.worked["small"]) == ("succeeded", agent, False)
