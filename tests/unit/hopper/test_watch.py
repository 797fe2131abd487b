"""Noticing that an agent goes in circles."""

from periphery.hopper.watch import BROKEN, SAME, SILENT, STALE, Watch


def did(watch: Watch, name: str = "run", arguments: str = "{}", result: str = "x", *, changed: bool = False) -> str:
    return watch.did(name, arguments, result, failed=False, changed=changed)


def test_the_same_call_with_the_same_result_warns_and_then_is_stuck() -> None:
    watch = Watch()
    assert did(watch, result="3 failed in 0.11s") == ""
    assert "done this before" in did(watch, result="3 failed in 0.24s")  # figures of a clock are no news
    assert not watch.stuck
    did(watch, result="3 failed in 0.09s")
    assert watch.stuck.startswith(f"It did the same {SAME} times")


def test_a_change_between_makes_it_a_new_try() -> None:
    watch = Watch()
    for number in range(10):
        did(watch, "run_tests")
        did(watch, "edit", str(number), changed=True)
    assert not watch.stuck


def test_other_results_are_news() -> None:
    watch = Watch()
    for number in range(30):
        did(watch, result=str(number))
    assert not watch.stuck


def test_going_round_through_several_calls_is_stuck() -> None:
    watch = Watch()
    for number in range(8 + STALE):
        did(watch, "read", str(number % 8))
    assert watch.stuck == f"Its last {STALE} calls brought nothing new."


def test_broken_calls_and_silence_count_in_a_row_only() -> None:
    watch = Watch()
    for _ in range(3):
        for _ in range(BROKEN - 1):
            watch.broke("no JSON")
        did(watch, result=str(id(object())), changed=True)
        for _ in range(SILENT - 1):
            watch.said_only()
    assert not watch.stuck
    watch.said_only()
    assert watch.stuck
