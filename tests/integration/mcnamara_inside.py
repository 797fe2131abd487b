"""What the integration tests run inside McNamara's image: one scan with files and bus in memory, told as JSON.

Reads `{"source": PATH, "kind": …, "name": …, "advisories": PATH or ""}` from standard input.
"""

import json
import resource
import sys
from pathlib import Path
from time import monotonic

import anyio

from periphery.mcnamara import McNamara
from protos.errors import Error
from tests.unit.mcnamara.lab import call


async def main() -> None:
    order = json.load(sys.stdin)
    asked, files, bus = call()
    mcnamara = McNamara()
    began = monotonic()
    try:
        if order["advisories"]:
            await mcnamara.index_advisories(asked, source=files.keep(Path(order["advisories"]).read_bytes()))
            files.named["advisories"] = asked.ctx.verdict.artifacts.pop().digest
        source = files.keep(Path(order["source"]).read_bytes())
        arguments = {"kind": order["kind"], "name": order["name"], "baseline_json": order.get("baseline", "")}
        summary = await mcnamara.scan(asked, source=source, **arguments)
    except Error as error:
        print(json.dumps({"error": error.message, "next": error.next}))
        return
    artifacts = {each.name: json.loads(files.blobs[each.digest]) for each in asked.ctx.verdict.artifacts}
    seconds = monotonic() - began
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
    said = {"summary": summary, "progress": [each.text for each in bus.events], "seconds": seconds, "memory_mb": memory}
    print(json.dumps({**said, "report": artifacts["report.json"], "sarif": artifacts["report.sarif"]}))


anyio.run(main)
