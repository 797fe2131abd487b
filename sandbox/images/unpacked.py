"""Images as folders, one for each layer, for an engine that lays them over each other by itself.

    unpacked/DIGEST/…          a layer, named by the digest of its archive; shared by all images and labs that have it
    unpacked/ground-…/…        lies below all: the places where something is mounted, and the files of a machine's name
    labs/LAB/NAME.json         an image of one lab: its layers and its environment

Reading is all that an engine needs, and this reads. `sandbox.images.unpack` makes them.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from sandbox.engine import SandboxError
from sandbox.images import how_to_make


@dataclass(frozen=True)
class Unpacked:
    """An image: folders below `folder`, the highest first, and what everything in it finds in its environment."""

    key: str
    folder: Path
    layers: tuple[str, ...]
    environment: dict[str, str]


class Images:
    """The unpacked images of one lab."""

    def __init__(self, lab: str, cache: Path) -> None:
        self.folder = cache / "unpacked"
        self._named = cache / "labs" / lab

    def find(self, name: str) -> Unpacked:
        """The lab's image of that name.

        Raises:
            SandboxError: there is none, or a part of it is gone; the message says how to make it.
        """
        mend = how_to_make(self._named.name, name, "bubblewrap")
        try:
            found = json.loads((self._named / f"{name}.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise SandboxError(f"the lab has no unpacked image {name}: {mend}") from None
        image = Unpacked(found["key"], self.folder, tuple(found["layers"]), found["environment"])
        if not all((self.folder / each).is_dir() for each in image.layers):
            raise SandboxError(f"a layer of the unpacked image {name} is gone: {mend}")
        return image

    def keep(self, name: str, image: Unpacked) -> None:
        """From here on `name` is that image."""
        self._named.mkdir(parents=True, exist_ok=True)
        unfinished = self._named / f".{name}.new"
        unfinished.write_text(json.dumps({"key": image.key, "layers": image.layers, "environment": image.environment}))
        unfinished.rename(self._named / f"{name}.json")

    def drop(self, name: str) -> None:
        """The lab has no such image any more; its layers stay for others, and go when nobody used them for long."""
        (self._named / f"{name}.json").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """What this lab has."""
        return sorted(path.stem for path in self._named.glob("*.json"))

    def forget(self) -> None:
        """Drops all names of this lab."""
        shutil.rmtree(self._named, ignore_errors=True)
