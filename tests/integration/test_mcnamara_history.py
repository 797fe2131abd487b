"""Git objects read as data: the same content git gives, and damage that stays one object's damage."""

import random
import subprocess
from contextlib import ExitStack
from pathlib import Path

import anyio

from periphery.mcnamara import history
from periphery.mcnamara.gitobjects import Objects, Unreadable, blob_id, tips
from periphery.mcnamara.inventory import File
from periphery.mcnamara.own import Own
from tests.unit.mcnamara.lab import write

SECRET = "gl" + "pat-" + "Zq8Xw2Lk9Vb3Nm7Rt5Yp"


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "init.defaultBranch=main", "-c", "gc.auto=0")
    ended = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return ended.stdout.strip()


def repository(root: Path, *, packed: bool) -> Path:
    """Forty commits, a branch, an annotated tag, a secret that came and went, one that was amended away."""
    root.mkdir()
    git(root, "init", "-q")
    for number in range(40):
        write(
            root, {"n.txt": "\n".join(str(each) for each in range(number, 900)), f"d/{number % 7}.txt": f"{number}\n"}
        )
        if number == 5:
            write(root, {"conf.env": f"TOKEN={SECRET}\n"})
        if number == 9:
            write(root, {"conf.env": "TOKEN=\n"})
        git(root, "add", ".")
        git(root, "commit", "-qm", f"commit {number}")
    git(root, "tag", "-a", "v1", "-m", "one")
    write(root, {"later.env": f"TOKEN={SECRET[:-1]}q\n"})
    git(root, "add", ".")
    git(root, "commit", "-qm", "oops")
    git(root, "reset", "-q", "--hard", "HEAD~1")
    (root / ".git/ORIG_HEAD").unlink()
    if packed:
        git(root, "repack", "-qad")
        git(root, "pack-refs", "--all")
    return root


def data(root: Path) -> dict[str, Path]:
    return {str(each.relative_to(root / ".git")): each for each in (root / ".git").rglob("*") if each.is_file()}


def test_every_object_is_read_as_git_reads_it_loose_and_packed_with_deltas(tmp_path: Path) -> None:
    for packed in (False, True):
        root = repository(tmp_path / str(packed), packed=packed)
        listed = git(root, "cat-file", "--batch-check", "--batch-all-objects").splitlines()
        with ExitStack() as stack:
            objects = Objects(data(root), stack)
            assert {each.hex() for each in objects.ids()} == {line.split()[0] for line in listed}
            for line in listed:
                id, kind, size = line.split()
                found = objects.read(bytes.fromhex(id))
                assert (found.kind, len(found.content)) == (kind, int(size))
                if kind == "blob":
                    assert blob_id(found.content, 20).hex() == id
        assert {each.hex() for each in tips(data(root))} >= set(git(root, "rev-parse", "HEAD", "v1").splitlines())


async def test_secrets_of_earlier_commits_and_of_unreachable_ones_are_found_once(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository", packed=False)
    commit = git(root, "log", "--format=%H", "--diff-filter=A", "--", "conf.env")
    files = [File(f".git/{name}", place, place.stat().st_size) for name, place in data(root).items()]
    files += [File("n.txt", root / "n.txt", 1), File("conf.env", root / "conf.env", 1)]

    async def tell(done: int, total: int) -> None:
        return None

    with anyio.fail_after(60):
        coverage = await history.look(files, [Own("secrets")], tmp_path / "scratch", tell)
    assert coverage.state.startswith("ok: 40 commits")
    found = {hit.path.partition("@")[0]: hit for hit in coverage.hits}
    assert set(found) == {"conf.env", "(unreachable)"}
    assert f"commit {commit} of 20" in found["conf.env"].message
    assert "no commit reaches" in found["(unreachable)"].message


async def test_a_damaged_repository_is_partial_and_never_clean(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository", packed=True)
    pack = next((root / ".git/objects/pack").glob("*.pack"))
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
    files = [File(f".git/{name}", place, place.stat().st_size) for name, place in data(root).items()]

    async def tell(done: int, total: int) -> None:
        return None

    coverage = await history.look(files, [Own("secrets")], tmp_path / "scratch", tell)
    assert coverage.failed
    assert "objects could not be read" in coverage.state


def test_random_damage_to_packs_and_indexes_ends_in_unreadable_objects_only(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository", packed=True)
    whole = {name: place.read_bytes() for name, place in data(root).items() if name.startswith("objects/pack/pack-")}
    ids = [line.split()[0] for line in git(root, "cat-file", "--batch-check", "--batch-all-objects").splitlines()]
    chance = random.Random(3)
    for number in range(25):
        places = {}
        for name, content in whole.items():
            damaged = bytearray(content)
            for _ in range(chance.randrange(1, 30)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            places[name] = tmp_path / f"{number}{Path(name).suffix}"
            places[name].write_bytes(damaged)
        with ExitStack() as stack:
            objects = Objects(places, stack)
            for id in ids:
                try:
                    objects.read(bytes.fromhex(id))
                except Unreadable:
                    continue
