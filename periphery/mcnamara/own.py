"""Runs our own inspectors in a process apart: `python -m periphery.mcnamara.own NAME`.

Files come as JSON on standard input, hits go as one JSON object a line to standard output. A file that an inspector
cannot take is named and the next one is tried; if the process dies, the driver halves the batch until it knows why.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from periphery.mcnamara.findings import Confidence, Hit, Level
from periphery.mcnamara.inventory import File, Kind
from periphery.mcnamara.program import python_module, run
from periphery.mcnamara.scanner import Batch, Canary, Failed

VERSION = "0.1.0"
MAX_BYTES = 2 * 2**20

Inspector = Callable[[File, str], Iterable[Hit]]


class Own:
    """The adapter for one inspector: a module of `inspectors` with `inspect`, `wants` and `CANARY`."""

    version = VERSION

    def __init__(self, name: str, *, seconds: float = 120.0) -> None:
        self.name = name
        self.seconds = seconds
        self._module = import_module(f"periphery.mcnamara.inspectors.{name}")
        self.canary: Canary = self._module.CANARY

    def applies(self, file: File) -> bool:
        return file.kind != "binary" and 0 < file.size <= MAX_BYTES and bool(self._module.wants(file))

    async def look(self, files: Sequence[File], seconds: float) -> Batch:
        command = python_module("periphery.mcnamara.own", self.name)
        ended = await run(command, seconds=seconds, stdin=json.dumps([_plain(each) for each in files]).encode())
        if ended.reason == "timed_out":
            raise Failed(f"took more than {seconds:.0f} s")
        batch, done = Batch(), 0
        try:
            for line in ended.output.splitlines():
                said = json.loads(line)
                done += 1
                batch.hits += [_hit(each) for each in said["hits"]]
                if said["missed"]:
                    batch.missed[str(said["path"])] = f"{self.name}: {str(said['missed'])[:200]}"
        except (ValueError, KeyError, TypeError) as error:
            raise Failed("its answer could not be read") from error
        if ended.code != 0 or done != len(files):
            last = ended.errors.strip().splitlines()[-1:] or [""]
            raise Failed(f"ended with {ended.code} after {done} of {len(files)} files: {last[0][:160]}")
        return batch


def _plain(file: File) -> dict[str, object]:
    return {"path": file.path, "place": str(file.place), "size": file.size, "kind": file.kind}


def _hit(said: dict[str, Any]) -> Hit:
    if said["severity"] not in get_args(Level) or said["confidence"] not in get_args(Confidence):
        raise ValueError("no such severity or confidence")
    return Hit(**said | {"secrets": tuple(said["secrets"])})


def main() -> None:
    """Inspects the files named on standard input."""
    inspect: Inspector = import_module(f"periphery.mcnamara.inspectors.{sys.argv[1]}").inspect
    sys.setrecursionlimit(4000)
    for each in json.load(sys.stdin):
        kind: Kind = each["kind"]
        file = File(each["path"], Path(each["place"]), each["size"], kind)
        hits: list[dict[str, object]] = []
        missed = ""
        try:
            for hit in inspect(file, file.text()):
                hits.append(asdict(hit))
                if len(hits) >= 500:
                    break
        except (RecursionError, MemoryError, ValueError, SyntaxError) as error:
            missed = f"{type(error).__name__}: {error}"
        sys.stdout.write(json.dumps({"path": file.path, "hits": hits, "missed": missed}) + "\n")


if __name__ == "__main__":
    main()
