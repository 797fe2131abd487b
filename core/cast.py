"""Who plays: the MADs of a lab, as its settings name them, before any of them is started.

residents   always there: those of the settings, and two of our own (Fiedler's and Dewey's tools)
eMADs       started for a message, in a sandbox: a folder with a manifest each, of which nothing is imported
the core's  started for a message, in this process: `OWN_EMADS`
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core import VERSION
from core.coding.foreman import Foreman
from core.config import Config, Resident
from core.lives import Dispatchable
from core.manifest import Manifest, load_manifest, profile_of
from core.models import LLAMA
from core.registry import RegisteredMad, Registry, emad, of_class
from core.residents import load_resident
from protos.schema import describe
from sandbox.profile import Profile

Make = Callable[[], Any]
OWN_RESIDENTS = {
    "fiedler": Resident.model_validate({"class": "core.fiedler.mad:Fiedler"}),
    "dewey": Resident.model_validate({"class": "core.dewey.mad:Dewey"}),
}
OWN_EMADS: dict[str, Make] = {"foreman": Foreman}
CORE_RUN_S = 24 * 3600.0  # the longest that a run of theirs may take


@dataclass(frozen=True)
class Cast:
    """The MADs by name: what they can, what starts the residents, and what a message starts."""

    registry: Registry
    residents: Mapping[str, tuple[Resident, Make]]
    emads: Mapping[str, Dispatchable]


def cast_of(config: Config, own: Mapping[str, Make]) -> Cast:
    """The MADs of the settings, and `own`: those that run in the core for a message.

    Raises:
        InvalidArgument: a manifest or a resident's class is wrong, or two have one name; the message says where.
    """
    manifests = [load_manifest(each) for each in config.emads]
    ours = {name: each for name, each in OWN_RESIDENTS.items() if name not in config.residents}
    settings = config.residents | ours
    residents = {name: (setting, load_resident(name, setting)) for name, setting in settings.items()}
    registry = Registry(
        [*(emad(each) for each in manifests)]
        + [of_class(name, "resident", make, describe(make), VERSION) for name, (_, make) in residents.items()]
        + [of_class(name, "core", make, describe(make), VERSION) for name, make in own.items()]
    )
    emads = {each.name: _dispatchable(each, registry.mads[each.name], config) for each in manifests}
    emads |= {name: Dispatchable(registry.mads[name], CORE_RUN_S, make=make) for name, make in own.items()}
    return Cast(registry, residents, emads)


def model_profile(config: Config) -> Profile:
    """What a worker that serves a local model may use up."""
    manifest = load_manifest(LLAMA)
    profile = profile_of(manifest, config.overrides(manifest.name))
    return replace(profile, cpus=min(profile.cpus, float(os.cpu_count() or 1)))  # an engine refuses more


def _dispatchable(manifest: Manifest, mad: RegisteredMad, config: Config) -> Dispatchable:
    overrides = config.overrides(manifest.name)
    deadline = float(overrides.get("deadline_s", manifest.profile.deadline_s))
    return Dispatchable(mad, deadline, profile_of(manifest, overrides))
