"""The agents that the model server plays keep to their script in both protocols, also where a stream breaks."""

from pathlib import Path

import pytest

from core.fiedler.ledger import Caller
from protos.errors import Error
from protos.ids import new_id
from protos.llm import Completion
from protos.v1 import llm_pb2 as pb
from tests.agents import Agent
from tests.agents.troupe import PROTOCOLS, Troupe
from tests.model_server import model_server
from tests.orchestras import a_model, hall
from tests.repositories import seeded

TOOLS = ("plan", "run", "read", "search", "edit", "write", "remove", "run_tests", "git_status", "git_diff", "finish")


async def calls_of(agent: str, place: Path, *, requests: int) -> tuple[list[str], Agent]:
    """What an agent calls when every call is answered by 'done'."""
    troupe = Troupe()
    made = list[str]()
    protocol = agent.rpartition("@")[2]
    async with (
        model_server(troupe) as server,
        hall(server, place, {"one": a_model(protocol, model=agent, max_tokens=20_000)}) as tried,
    ):
        turns = [pb.Turn(role=pb.ROLE_USER, parts=[pb.Part(text="Mend it.")])]
        for _ in range(requests):
            request = pb.CompleteRequest(id=new_id(), turns=turns, tools=[pb.ToolOffer(name=each) for each in TOOLS])
            try:
                said: Completion = await tried.ask(request, Caller("run-1", "hopper", "conversation-1", "run-1"))
            except Error:
                continue
            made += [each.name for each in said.tool_calls]
            if not said.tool_calls:
                continue
            parts = [pb.Part(tool_call=each) for each in said.tool_calls]
            turns.append(pb.Turn(role=pb.ROLE_ASSISTANT, parts=parts))
            done = [pb.ToolResult(call_id=each.id, parts=[pb.Part(text="done")]) for each in said.tool_calls]
            turns.append(pb.Turn(role=pb.ROLE_USER, parts=[pb.Part(tool_result=each) for each in done]))
    return made, troupe.agents[agent]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_good_agent_takes_its_steps_in_order_and_hears_the_answers(protocol: str, tmp_path: Path) -> None:
    steps = [each["tool"] for each in seeded()["python-pytest"].steps]
    made, agent = await calls_of(f"good/python-pytest@{protocol}", tmp_path, requests=len(steps) + 1)
    assert made == steps
    assert agent.results == ["done"] * len(steps)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("agent", ["cut-in-call", "fainter-overloaded", "mutterer", "dripper", "stammerer"])
async def test_an_agent_whose_line_broke_goes_on_where_it_was(agent: str, protocol: str, tmp_path: Path) -> None:
    made, _ = await calls_of(f"{agent}@{protocol}", tmp_path, requests=12)
    assert made[-3:] == ["edit", "run_tests", "finish"]
