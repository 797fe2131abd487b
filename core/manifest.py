"""What the core must know of an eMAD, read as data from its folder. Nothing of the folder is ever imported."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from protos.errors import InvalidArgument
from sandbox.grades import is_enough
from sandbox.profile import Calls, Grade, Profile

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
PYTHON_HOST = ("python3", "-m", "protos.host")
OURS = Path(__file__).resolve().parents[1] / "periphery"


def _schema(value: object) -> object:
    """A schema is JSON in a string, so that it reads as it is compared."""
    return json.loads(value) if isinstance(value, str) else value


JsonSchema = Annotated[dict[str, Any], BeforeValidator(_schema)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolManifest(_Table):
    """One tool, as callers see it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    description: str
    effects: Literal["read", "write", "outward"]
    idempotent: bool = False
    steerable: bool = False  # it reads what the operator says to its run while it works
    input_schema: JsonSchema
    output_schema: JsonSchema


class ProfileManifest(_Table):
    """The limits an eMAD asks for; the operator's `[profile.NAME]` overrides them.

    Its walls are not its own to lower: less than a container, and the calls of a browser to an eMAD that is not one of
    ours, are the operator's to give.
    """

    runtime: Literal["runc", "runsc", "bwrap"] = "runc"
    least: Grade = "container"  # what its runtime must have been seen to stop: `sandbox.grades`
    memory_mb: Annotated[int, Field(ge=32)] = 256
    workspace_mb: Annotated[int, Field(ge=1)] = 64
    cpus: Annotated[float, Field(gt=0)] = 1.0
    pids: Annotated[int, Field(ge=8)] = 128
    calls: Calls = "usual"  # "browser": those that Chromium makes a sandbox of its own with, too
    deadline_s: Annotated[float, Field(gt=0)] = 1800
    warm: Annotated[int, Field(ge=0, le=64)] = 0

    @field_validator("least")
    @classmethod
    def _is_no_less_than_a_container(cls, least: Grade) -> Grade:
        if not is_enough(least, "container"):
            raise ValueError("a manifest wants container or kernel; less is the operator's to accept: [profile.NAME]")
        return least


class Budget(_Table):
    """Defaults of what one run may use up."""

    bytes_in: Annotated[int, Field(ge=0)] = 4 * 1024**3  # blobs it reads
    bytes_out: Annotated[int, Field(ge=0)] = 1024**3  # blobs it stores
    bytes_said: Annotated[int, Field(ge=0)] = 64 * 1024**2  # messages and events
    usd: Annotated[float | None, Field(ge=0)] = None  # for models; None: as much as the day has
    tokens: Annotated[int | None, Field(ge=0)] = None


class Manifest(_Table):
    """The whole file."""

    name: Name
    version: str
    summary: str
    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]{0,127}$")]
    entry: str | tuple[str, ...]  # "module:Class" is served by the Python host; a list is a program and its arguments
    profile: ProfileManifest = ProfileManifest()
    ports: tuple[str, ...] = (
        "bus",
        "files",
    )  # what it may ask for: "bus", "files", "files:NAME", "call:MAD", "llm", "llm:ALIAS"
    budget: Budget = Budget()
    evidence: tuple[str, ...] = ()  # keys that `succeeded` needs
    tools: tuple[ToolManifest, ...] = ()
    _is_ours: bool = PrivateAttr(default=False)  # whether it came with this installation: no manifest says so itself

    @property
    def program(self) -> tuple[str, ...]:
        """The program and its arguments inside the image."""
        return (*PYTHON_HOST, self.entry) if isinstance(self.entry, str) else self.entry


def load_manifest(folder: Path) -> Manifest:
    """Reads `folder/manifest.toml`.

    Raises:
        InvalidArgument: it is missing, no TOML, or says something no manifest says; the message names file and field.
    """
    path = folder / "manifest.toml"
    try:
        manifest = Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for tool in manifest.tools:
            Draft202012Validator.check_schema(tool.input_schema)
            Draft202012Validator.check_schema(tool.output_schema)
        manifest._is_ours = folder.resolve().parent == OURS
        return manifest
    except FileNotFoundError:
        raise InvalidArgument(f"{path} does not exist.", next="Correct `emads` in madlab.toml.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}", next="Mend the file.") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(each) for each in first["loc"])
        raise InvalidArgument(f"{path}: {field}: {first['msg']}", next="Mend the file.") from None
    except SchemaError as error:
        raise InvalidArgument(
            f"{path}: a schema is no JSON Schema: {error.message}", next="Run ./test.sh fix."
        ) from None


def profile_of(manifest: Manifest, overrides: dict[str, Any]) -> Profile:
    """The sandbox profile of an eMAD: the manifest's limits with the operator's changes.

    Raises:
        InvalidArgument: it wants the calls of a browser, is none of ours, and the operator did not say so.
    """
    if manifest.profile.calls != "usual" and not manifest._is_ours and "calls" not in overrides:
        raise InvalidArgument(
            f"{manifest.name} wants the system calls of a browser, with which it may make namespaces of its own.",
            next=f"If you trust it with them, write into madlab.toml: [profile.{manifest.name}]"
            f' calls = "{manifest.profile.calls}"; or "usual", to do without.',
        )
    limits = manifest.profile.model_dump() | overrides
    limits.pop("deadline_s")
    return Profile(image=manifest.image, entry=manifest.program, **limits)
