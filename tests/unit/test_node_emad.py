"""The eMAD in Node is the Python one in another language, and its packages are locked without addresses."""

import json
from pathlib import Path

from core.manifest import load_manifest

EMADS = Path(__file__).parents[1] / "emads"


def test_it_offers_the_same_tools() -> None:
    node, python = load_manifest(EMADS / "node-echo"), load_manifest(EMADS / "echo")
    assert node.tools == python.tools, "copy the tools of tests/emads/echo/manifest.toml"
    assert node.program[0] == "node"


def test_its_packages_are_locked_by_hash_and_name_no_address() -> None:
    text = (EMADS / "node-echo" / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert all(each.get("integrity") for name, each in packages.items() if name)
    assert "://" not in text
    wanted = json.loads((EMADS / "node-echo" / "package.json").read_text())["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
