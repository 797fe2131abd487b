"""Images without a registry: the same inputs are the same bytes, and nothing is built twice."""

import hashlib
from pathlib import Path

import pytest

from sandbox.engines.docker.engine import DockerEngine
from sandbox.engines.docker.images import Images
from sandbox.images.build import Refused, Workshop, alone, default_cache, read
from sandbox.images.spec import ROOM
from tests.docker_lab import built, docker_lab

pytestmark = pytest.mark.docker


def digests(layers: list[Path]) -> list[str]:
    return [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]


def bases(images: Images) -> set[str]:
    """The base images alone: other tests build images of their own meanwhile."""
    return {image.id for image in images.list() if "/base:" in image.tag}


def test_the_same_inputs_make_the_same_bytes(tmp_path: Path) -> None:
    lab = docker_lab()
    built("base")
    spec = read("base")
    with alone(default_cache()):  # where another's build sweeps out what is old
        usual = digests(Workshop(Images(lab), default_cache(), print).layers(spec))
    fresh = tmp_path / "elsewhere"
    fresh.mkdir()
    for fetched in ("debs", "wheels"):  # downloading them again would prove nothing
        (fresh / fetched).symlink_to(default_cache() / fetched)
    again = Workshop(Images(lab), fresh, print).layers(spec)
    assert digests(again) == usual


def test_a_change_of_our_code_sends_the_engine_nothing_but_the_change(tmp_path: Path) -> None:
    lab = docker_lab()
    built("base")
    folder = tmp_path / "changing"
    (folder / "word").mkdir(parents=True)
    (folder / "image.toml").write_text('from = "base"\npackages = ["./word"]\n')
    said: list[str] = []
    for word in ("one", "two"):
        (folder / "word/__init__.py").write_text(f"WORD = {str(tmp_path / word)!r}\n")
        Workshop(Images(lab), default_cache(), said.append).build(read(str(folder)))
    sent = [line for line in said if "giving it to the engine" in line]
    assert len(sent) == 2
    assert all("(0 MB)" in line for line in sent)
    [image] = [image for image in Images(lab).list() if "/changing:current" in image.tag]
    try:
        code, word = Images(lab).run(image.tag, ["python3", "-c", "import word; print(word.WORD)"])
        assert (code, word.strip()) == (0, str(tmp_path / "two"))
    finally:
        Images(lab).remove(image.id)


def test_an_image_that_is_there_is_not_built_again() -> None:
    lab = docker_lab()
    built("base")
    said: list[str] = []
    images = Images(lab)
    before = bases(images)
    Workshop(images, default_cache(), said.append).build(read("base"))
    assert len(said) == 1
    assert "unchanged" in said[0]
    assert bases(images) == before


def test_another_lab_gets_the_same_image_under_its_own_name() -> None:
    built("base")
    other = Images("feedc0de")
    try:
        Workshop(other, default_cache(), print).build(read("base"))
        assert bases(other) == bases(Images(docker_lab()))
        assert all(image.tag.startswith("madlab-feedc0de/base:") for image in other.list())
    finally:
        other.forget()
    assert other.list() == []
    assert Images(docker_lab()).list() != []


def test_an_image_that_another_lab_drops_while_it_is_taken_over_is_built(tmp_path: Path) -> None:
    built("base")
    folder = tmp_path / "passing"
    folder.mkdir()
    (folder / "word").write_text(str(tmp_path))
    (folder / "image.toml").write_text('from = "base"\n[files]\n"etc/word" = "word"\n')
    spec, one = read(str(folder)), Images("feedc0d1")

    class Late(Images):
        """Of a lab that hears of the image just before it goes."""

        def find(self, image: str, key: str) -> str | None:
            found = super().find(image, key)
            one.forget()
            return found

    other = Late("feedc0d2")
    said: list[str] = []
    try:
        Workshop(one, default_cache(), print).build(spec)
        Workshop(other, default_cache(), said.append).build(spec)
        assert "built" in said[-1]
        assert other.run(other.tag(spec.name, "current"), ["python3", "-c", "pass"])[0] == 0
    finally:
        one.forget()
        other.forget()


def test_a_folder_of_ones_own_is_an_image_on_the_base(tmp_path: Path) -> None:
    built("base")
    folder = tmp_path / "greeter"
    (folder / "greeting").mkdir(parents=True)
    (folder / "greeting/__init__.py").write_text("WORD = 'hello'\n")
    (folder / "motd").write_text("be well\n")
    (folder / "image.toml").write_text(
        'from = "base"\npackages = ["./greeting"]\n'
        'check = [["python3", "-c", "import greeting, os; assert os.environ[\'MOOD\'] == \'fine\'"]]\n'
        '[files]\n"etc/motd" = "motd"\n[env]\nMOOD = "fine"\n'
    )
    images = Images(docker_lab())
    tag = Workshop(images, default_cache(), print).build(read(str(folder)))
    code, said = images.run(tag, ["python3", "-c", "import greeting; print(greeting.WORD, open('/etc/motd').read())"])
    assert (code, said.split()) == (0, ["hello", "be", "well"])


def test_an_image_that_fails_its_check_is_refused_and_not_kept(tmp_path: Path) -> None:
    built("base")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "image.toml").write_text('from = "base"\ncheck = [["python3", "-c", "import nowhere"]]\n')
    images = Images(docker_lab())
    with pytest.raises(Refused, match="fails its check"):
        Workshop(images, default_cache(), print).build(read(str(folder)))
    assert not [image for image in images.list() if "broken" in image.tag]


def test_the_base_image_has_no_shell_no_package_manager_and_nothing_secret() -> None:
    built("base")
    listed = "import os; print([n for d in os.environ['PATH'].split(':') for n in os.listdir(d)])"
    images = Images(docker_lab())
    code, said = images.run(images.tag("base", "current"), ["python3", "-c", listed])
    assert code == 0
    assert sorted(eval(said)) == ["idna", "python3", "python3.13"]


async def test_a_check_leaves_no_container() -> None:
    assert [name for name in await DockerEngine(docker_lab()).names() if name == "check"] == []


def test_our_locks_name_no_address() -> None:
    for lock in [*ROOM.glob("*/requirements.txt"), *ROOM.glob("*/debian.lock")]:
        assert "://" not in lock.read_text()
