"""Hopper's own agent with models good and bad, which are played over real HTTP."""

from pathlib import Path

from tests.integration.hopper_bench import BUGGY, acts, bench, finish, mend


async def test_a_good_model_mends_a_fault(tmp_path: Path) -> None:
    plays = [
        acts(("plan", {"steps": ["look", "mend", "test"]}), ("read", {"path": "calc.py"}), text="Let me look."),
        acts(mend()),
        acts(("run_tests", {})),
        finish(),
    ]
    async with bench(plays, tmp_path) as lab:
        done = await lab.work(BUGGY)
    assert done.outcome == "succeeded", done.verdict.reason
    assert done.changed == {"calc.py": b"def mean(values):\n    return sum(values) / len(values)\n"}
    print(done.worked)
