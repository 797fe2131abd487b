"""What is counted, and how it is told to Prometheus: read back by its own parser, linted where promtool is there."""

import math
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.telemetry.meters import MOST, Counter, Family, Histogram, Kind, Point, counter, gauge
from core.telemetry.prometheus import exposed, exposed_name


def read(*families: Family) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    return {
        sample.name: {
            tuple(sorted(other.labels.items())): other.value for other in each.samples if other.name == sample.name
        }
        for each in text_string_to_metric_families(exposed(families))
        for sample in each.samples
    }


def test_a_counter_a_gauge_and_a_histogram_come_back_as_they_were() -> None:
    calls = Counter("madlab.calls", "Calls.", ("model",), "{call}")
    calls.add("one")
    calls.add("one", by=2)
    took = Histogram("madlab.took", "How long.", bounds=(0.1, 1))
    for each in (0.05, 0.1, 0.5, 7):
        took.record(each)
    told = read(calls.family(), took.family(), gauge("madlab.size", "Bytes.", 3, "By"))
    assert told["madlab_calls_total"] == {(("model", "one"),): 3}
    assert told["madlab_size_bytes"] == {(): 3}
    assert told["madlab_took_seconds_bucket"] == {(("le", "0.1"),): 2, (("le", "1"),): 3, (("le", "+Inf"),): 4}
    assert (told["madlab_took_seconds_count"], told["madlab_took_seconds_sum"]) == ({(): 4}, {(): 7.65})


@pytest.mark.parametrize("value", ['a "quoted" one', "back\\slash", "two\nlines", "ünï", "a{b=c}", ""])
def test_whatever_a_label_holds_stays_one_label(value: str) -> None:
    told = read(gauge("x", "X.", [Point({"name": value, "other": "1"}, 5)]))
    assert told == {"x": {(("name", value), ("other", "1")): 5}}


def test_who_chooses_names_cannot_make_ever_more_of_them() -> None:
    seen = Counter("seen", "Seen.", ("name",))
    for number in range(3 * MOST):
        seen.add(f"name-{number}")
    points = {each.labels["name"]: each.value for each in seen.family().points}
    assert len(points) == MOST + 1
    assert points["other"] == 2 * MOST
    seen.add("name-1")
    assert sum(float(str(each.value)) for each in seen.family().points) == 3 * MOST + 1


def test_numbers_that_are_none_are_told_all_the_same() -> None:
    assert math.isinf(read(gauge("x", "X.", math.inf))["x"][()])


def test_names_follow_from_kind_and_unit() -> None:
    named = [
        (counter("process.cpu", "", 1, "s"), "process_cpu_seconds_total"),
        (gauge("process.resident_memory", "", 1, "By"), "process_resident_memory_bytes"),
        (gauge("madlab.runs", "", 1, "{run}"), "madlab_runs"),
        (Family("http.server.request.duration", Kind.HISTOGRAM, "", "s"), "http_server_request_duration_seconds"),
    ]
    assert [exposed_name(each) for each, _ in named] == [name for _, name in named]


def lint(text: str) -> str:
    """What Debian's promtool has to say of a page; nothing is best."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool here: Debian has it in the package prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_promtool_finds_nothing_to_say() -> None:
    took = Histogram("madlab.took", "How long.", ("route",))
    took.record(0.3, "/runs/{id}")
    assert lint(exposed([took.family(), counter("madlab.seen", "Seen.", 1), gauge("madlab.size", "S.", 1, "By")])) == ""
