"""What the tests run inside Playfair's image: many calls by one worker, with files and bus in memory.

Reads a line of JSON for each: `{"tool": …, "arguments": …, "data": BASE64, "name": …}`. A `data` becomes a blob, and
its digest the argument `data` (or `into`). The answer has the result or the fault, the evidence, and the artifacts.
"""

import json
import sys
from base64 import b64decode, b64encode
from time import monotonic

import anyio

from periphery.playfair.mad import Playfair
from protos.errors import Error
from protos.v1.message_pb2 import Blob
from tests.unit.mcnamara.lab import call


async def main() -> None:
    playfair = Playfair()
    for line in sys.stdin:
        order = json.loads(line)
        asked, files, _ = call()
        arguments = order["arguments"]
        if "data" in order:
            content = b64decode(order["data"])
            digest = files.keep(content)
            arguments[order.get("into", "data")] = digest
            asked.message.blobs.append(Blob(digest=digest, size=len(content), name=order.get("name", "data")))
        began = monotonic()
        said: dict[str, object] = {}
        try:
            said["result"] = await getattr(playfair, order["tool"])(asked, **arguments)
        except Error as error:
            said["fault"] = {"code": error.code, "message": error.message, "next": error.next}
        said["seconds"] = monotonic() - began
        said["evidence"] = asked.ctx.verdict.evidence
        kept = asked.ctx.verdict.artifacts
        said["files"] = {each.name: b64encode(files.blobs[each.digest]).decode() for each in kept}
        print(json.dumps(said), flush=True)


anyio.run(main)
