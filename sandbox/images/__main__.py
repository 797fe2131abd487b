"""`python -m sandbox.images build|bundle|list|lock|needed`: what a person or deploy.sh types."""

import argparse
import os
import sys
import time
from pathlib import Path

from sandbox.engine import SandboxError
from sandbox.engines.docker.images import Images
from sandbox.images.build import Refused, Workshop, default_cache, read
from sandbox.images.bundle import make_bundle
from sandbox.images.debian import NoDebian


def main() -> int:
    """Returns 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.images", description=__doc__)
    parser.add_argument("--lab", default=os.environ.get("MADLAB_LAB", "0" * 8), help="the lab's id (or MADLAB_LAB)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="what was fetched and packed (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make images the engine lacks")
    lock = commands.add_parser("lock", help="write debian.lock, requirements.txt and other locks of today's versions")
    needed = commands.add_parser("needed", help="propose the Debian packages that those of an image need")
    build.add_argument("--engine", choices=["docker", "bubblewrap"], default="docker", help="who runs it (%(default)s)")
    for command in (build, lock, needed):
        command.add_argument("names", nargs="+", metavar="NAME", help="an image here, or the path of a folder")
    bundle = commands.add_parser("bundle", help="make the worker for images that are not ours")
    listing = commands.add_parser("list", help="this lab's images")
    for command in (build, bundle, lock, needed, listing):
        command.add_argument("--lab", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    given = parser.parse_args()

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    try:
        if given.command == "bundle":
            made = make_bundle(given.cache, say)
            print(f"{made.host}  {made.digest}")
            return 0
        if given.command == "build" and given.engine == "bubblewrap":
            from sandbox.images.unpack import Unpacker

            for name in given.names:
                Unpacker(given.lab, given.cache, say).build(read(name))
            return 0
        images = Images(given.lab)
        workshop = Workshop(images, given.cache, say)
        if given.command == "list":
            rows = images.list()
            for row in rows:
                print(f"{row.tag:60} {row.size / 1e6:8.1f} MB  {row.id[7:19]}")
            if not rows:
                print(f"lab {given.lab[:8]} has no images: run `python -m sandbox.images build base --lab {given.lab}`")
        for name in getattr(given, "names", ()):
            spec = read(name)
            if given.command == "lock":
                workshop.lock(spec)
            elif given.command == "needed":
                print("\n".join(workshop.needed(spec)))
            else:
                workshop.build(spec)
    except (Refused, NoDebian, SandboxError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
