"""What a batch asks for and cannot get: tools that nobody has, arguments that do not fit, models and paths that are not
there.

What a file alone can say wrong is `batch`'s. Here it is held against what the lab says it has; nothing is sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.grace.cli.batch import Batch, Job
from core.grace.cli.coding import alias_among
from protos.errors import InvalidArgument

Listed = Sequence[Mapping[str, Any]]


def wrong(batch: Batch, folder: Path, lab: tuple[Listed, Listed] | None) -> list[str]:
    """Every mistake with the job and the field it is in; without `lab`, those that can be seen without one.

    `folder` is where paths begin, `lab` what `madlab tools --json` and `madlab models --json` print.
    """
    tools, models = lab or (None, ())
    schemas = None if tools is None else {each["name"]: each["input_schema"] for each in tools}
    return [f"jobs.{name}.{said}" for name, job in batch.jobs.items() for said in _of(job, folder, schemas, models)]


def _of(job: Job, folder: Path, schemas: Mapping[str, Mapping[str, Any]] | None, models: Listed) -> Iterator[str]:
    for way in ("scan", "code"):
        path = getattr(job, way)
        if path is not None and not (folder / path).exists():
            yield f"{way}: {folder / path} does not exist"
    if schemas is None:
        return
    if job.tool not in schemas:
        yield f"{job.way}: {_nobody(job, schemas)}"
    elif job.call:
        yield from _misfits(schemas[job.tool], job.arguments)
    elif job.code:
        try:
            alias_among(models, job.model)
        except InvalidArgument as error:
            yield f"model: {error.message} ({error.next})"


def _nobody(job: Job, names: Mapping[str, object]) -> str:
    mad, _, tool = job.tool.partition(".")
    if others := sorted(each.partition(".")[2] for each in names if each.partition(".")[0] == mad):
        return f"{mad} has no tool {tool!r} (it has: {', '.join(others)})"
    mads = sorted({each.partition(".")[0] for each in names})
    return f"there is no MAD called {mad!r} (there are: {', '.join(mads) or 'none'})"


def _misfits(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(arguments):
        yield f"{'.'.join(['arguments', *map(str, error.absolute_path)])}: {error.message[:500]}"
