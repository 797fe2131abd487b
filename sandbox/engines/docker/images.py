"""The images of one lab in the engine: found by their inputs, loaded, built, tagged, dropped."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import IO

from docker.errors import ImageNotFound

from sandbox.engine import SandboxError
from sandbox.engines.docker.client import open_client, quietly, speaking_plainly
from sandbox.engines.docker.config import LAB, MB, NAME, UID, image_tag
from sandbox.profiles import seccomp


@dataclass(frozen=True)
class Image:
    """An image in the engine."""

    id: str
    tag: str
    size: int  # bytes, with the images it stands on


class Images:
    """The images of one lab, as the image builder needs them. Synchronous: a builder has nothing else to do."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._api = open_client()

    def tag(self, image: str, key: str) -> str:
        """What the image is called in the engine."""
        return image_tag(self._lab, image, key)

    def find(self, image: str, key: str) -> str | None:
        """The id of an image that was built from the same inputs, by this lab or another."""
        with speaking_plainly():
            found = self._api.images(filters={"label": [f"madlab.image={image}", f"madlab.key={key}"]})
        return str(found[0]["Id"]) if found else None

    def adopt(self, image: str, key: str) -> bool:
        """Makes one that was built from the same inputs this lab's current one; tells whether there is one."""
        found = self.find(image, key)
        if found is None:
            return False
        with speaking_plainly(), suppress(ImageNotFound):  # another lab's, dropped since we asked
            self._name(found, image, key)
            return True
        return False

    def common(self, layers: Sequence[str]) -> int:
        """How many of `layers`, given by digest and lowest first, the engine has as the ground of an image of ours."""
        with speaking_plainly():
            most = 0
            for image in self._api.images(filters={"label": "madlab.image"}):
                with suppress(ImageNotFound):  # another lab's, dropped since we asked
                    there = self._api.inspect_image(image["Id"])["RootFS"].get("Layers") or ()
                    pairs = zip(there, layers, strict=False)
                    most = max(most, sum(1 for _ in takewhile(lambda pair: pair[0] == f"sha256:{pair[1]}", pairs)))
            return most

    def load(self, archive: IO[bytes]) -> None:
        """Gives the engine an image in the form of `docker save`."""
        with speaking_plainly():
            for progress in self._api.load_image(archive):
                if "error" in progress:
                    raise SandboxError(f"the engine refused the image: {progress['error']}")

    def build(self, context: bytes, tag: str, labels: dict[str, str]) -> str:
        """Builds from a packed context with a Dockerfile, where a registry answers; returns the image's id."""
        with speaking_plainly():
            said = ""
            for progress in self._api.build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, labels=labels, rm=True, decode=True
            ):
                said = progress.get("error", said)
            if said:
                raise SandboxError(f"the engine could not build {tag}: {said}")
            return str(self._api.inspect_image(tag)["Id"])

    def name(self, identity: str, image: str, key: str) -> None:
        """Tags the image as this lab's current one, and drops the tags of older ones."""
        with speaking_plainly():
            self._name(identity, image, key)

    def _name(self, identity: str, image: str, key: str) -> None:
        repository = f"madlab-{self._lab[:8]}/{image}"
        for tag in (key, "current"):
            self._api.tag(identity, repository, tag)
        for old in self._api.images(name=repository):
            for tag in old["RepoTags"] or ():
                if tag not in (f"{repository}:{key}", f"{repository}:current"):
                    with quietly():
                        self._api.remove_image(tag)

    def remove(self, identity: str) -> None:
        """Drops an image that turned out to be no good."""
        with speaking_plainly(), quietly():
            self._api.remove_image(identity, force=True)

    def forget(self) -> None:
        """Drops all tags of this lab; layers and images that another lab uses stay."""
        for image in self.list():
            with speaking_plainly(), quietly():
                self._api.remove_image(image.tag)

    def run(self, identity: str, command: Sequence[str]) -> tuple[int, str]:
        """Runs a command in an image, walled in like any sandbox, and returns its exit code and what it said."""
        config = {
            "Image": identity,
            "Cmd": list(command),
            "NetworkDisabled": True,
            "Labels": {LAB: self._lab, NAME: "check"},
            "Env": ["HOME=/workspace", "TMPDIR=/workspace"],
            "HostConfig": {
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp.text()}"],
                "Tmpfs": {"/workspace": f"rw,exec,nosuid,nodev,size=64m,uid={UID},gid={UID}"},
                "Memory": 1024 * MB,
                "PidsLimit": 256,
            },
        }
        with speaking_plainly(identity):
            container = self._api.create_container_from_config(config)["Id"]
            try:
                self._api.start(container)
                code = self._api.wait(container)["StatusCode"]
                return int(code), self._api.logs(container).decode(errors="replace")
            finally:
                self._api.remove_container(container, force=True)

    def list(self) -> list[Image]:
        """This lab's images."""
        with speaking_plainly():
            found = self._api.images()
        prefix = f"madlab-{self._lab[:8]}/"
        tags = ((tag, image) for image in found for tag in image["RepoTags"] or ())
        return sorted(
            (Image(image["Id"], tag, image["Size"]) for tag, image in tags if tag.startswith(prefix)),
            key=lambda image: image.tag,
        )
