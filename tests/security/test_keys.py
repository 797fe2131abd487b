"""No key of a provider is found in any sandbox, journal, blob, log or process listing, in any of its usual encodings.

The key is a real key file's random value, and the provider says it back in every answer. A worker that looks for it
is played in full; meanwhile everything of its sandbox that the engine and the kernel show is read from outside.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from tests.e2e.coding import Stage, stage
from tests.security.forms import forms, seen
from tests.security.search import found_below, told_by_engine, told_by_processes
from tests.sizes import full

pytestmark = pytest.mark.docker
SYSTEM = {"proc", "sys", "usr", "opt", "lib", "lib64", "bin", "sbin"}  # the image's and the kernel's


@pytest.fixture(scope="module")
def lab() -> Iterator[Stage]:
    """A lab whose provider says the key back in every answer, and where one may look for it to the end."""
    key = list[str]()
    with stage(
        "decoys = false\n", plays=lambda play: replace(play, text=f"{play.text} Your key is {key[0]}, is it not?")
    ) as lab:
        key.append(lab.key)
        yield lab


def test_the_forms_of_a_key_are_found_where_they_are(tmp_path: Path) -> None:
    key = "sk-test-0123456789abcdef"
    for number, form in enumerate(forms(key).values()):
        (tmp_path / f"{number:02}").write_bytes(b"before" + form + b"after")
    assert len({each.partition(":")[0] for each in found_below(tmp_path, key)}) == len(forms(key))


def test_no_key_is_in_a_sandbox_while_it_lives(lab: Stage) -> None:
    agent, made = lab.troupe.agents["waiter@openai"], lab.repository("python-unittest")
    api = docker.APIClient(version="auto")
    api.trust_env = False
    looked = 0
    with lab.madlab.started(*lab.words(agent, made, "openai", ["--json"])) as process:
        while process.poll() is None:
            for container in api.containers(filters={"label": f"madlab.lab={lab.home.lab}"}):
                try:
                    said = json.dumps([api.inspect_container(container["Id"]), api.top(container["Id"])])
                    pid = api.inspect_container(container["Id"])["State"]["Pid"]
                except docker.errors.APIError:
                    continue  # it has just ended
                assert not seen(lab.key, said.encode())
                with suppress(OSError):  # it has just ended
                    for each in Path(f"/proc/{pid}/root").iterdir() if pid else ():
                        if each.name not in SYSTEM and each.is_dir():
                            assert found_below(each, lab.key) == []
                looked += 1
            assert told_by_processes(lab.key) == []
            time.sleep(0.5)
        out, err = process.communicate()
    api.close()
    assert looked > 3
    assert json.loads(out)["outcome"] == "succeeded", err
    assert not seen(lab.key, (out + err).encode())


@pytest.mark.parametrize("protocol", ["openai", "anthropic"] if full() else ["anthropic"])
def test_a_worker_that_looks_for_a_key_finds_none(lab: Stage, protocol: str) -> None:
    coded = lab.code("asker", protocol=protocol)
    assert coded.outcome == "succeeded", coded.result.out + coded.result.err
    requests = [each for each in lab.server.requests if each.body.get("model") == f"asker@{protocol}"]
    assert len(requests) >= 6
    assert all(lab.key in " ".join(each.headers.values()) for each in requests), "the provider got the key"
    assert not [form for each in requests for form in seen(lab.key, each.content)], "and the agent did not"
    assert any("PATH=" in each for each in coded.agent.results), "it did read an environment"
    assert "Your key is" in coded.agent.heard[-1].said, "the provider did try"


def test_no_key_is_left_in_the_lab(lab: Stage) -> None:
    lab.code("good/no-tests")
    key_file = lab.home.path / "key"
    assert key_file.read_text() == lab.key
    assert found_below(lab.home.path, lab.key, but=(key_file,)) == []
    assert found_below(lab.home.runtime, lab.key) == []
    shown = [
        lab.madlab(*words) for words in (("models",), ("costs", "--json"), ("runs", "--json"), ("status", "--json"))
    ]
    assert not [form for each in shown for form in seen(lab.key, (each.out + each.err).encode())]
    assert told_by_engine(lab.home.lab, lab.key) == []
