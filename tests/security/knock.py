"""A client at the HTTP door, in a process of its own: `python -m tests.security.knock HOME`.

Calls the resident `echo` again and again, waits for each answer as a follower does, and prints how many milliseconds
each took, one a line.
"""

import sys
import time

from core.grace.cli.client import Client
from protos.ids import new_id
from protos.serve import answer_id
from protos.v1.message_pb2 import Message


def knock(client: Client) -> float:
    """One question and its answer, in milliseconds."""
    began = time.perf_counter()
    asked = {"recipient": "echo", "kind": "call", "tool": "say", "arguments": {"text": "x"}, "id": new_id()}
    conversation = client.publish(asked)["conversation"]
    for each in client.follow(f"/api/v1/conversations/{conversation}/messages"):
        if each["id"] == answer_id(Message(id=str(asked["id"]))):
            break
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    client = Client.to(sys.argv[1])
    while True:
        print(f"{knock(client):.3f}", flush=True)
        time.sleep(0.05)
