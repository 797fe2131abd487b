"""What apt asks an archive for, and how old a package is."""

import pytest

from core.egress.debian import built, is_list, modified, package
from protos.errors import Unavailable


def test_lists_are_known_by_their_path() -> None:
    for path in (
        *("dists/bookworm/InRelease", "dists/bookworm-updates/Release.gpg"),
        *("dists/bookworm/main/binary-amd64/Packages.xz", "dists/bookworm/main/i18n/Translation-en.xz"),
        "dists/bookworm/main/binary-amd64/by-hash/SHA256/" + "a" * 64,
    ):
        assert is_list(path), path
    for path in (
        *("dists/", "dists/x", "dists/../etc/passwd", "dists//x/y", "project/trace/x", "dists/a/b?c", "dists/a/b%2fc"),
        *("pool/main/t/thing/thing_1.0_all.deb", "dists/a/b/c/d/e/f/g"),
    ):
        assert not is_list(path), path


def test_packages_are_known_by_their_path() -> None:
    found = package("pool/main/libs/libstdc++/libstdc++6_12.2.0-14+deb12u1_amd64.deb")
    assert found is not None
    assert (found.project, found.version) == ("libstdc++6", "12.2.0-14+deb12u1")
    for path in ("pool/x_1_all.deb", "pool/main/x_1.deb", "pool/main/x_1_all.udeb", "pool/main/../x/x_1_all.deb"):
        assert package(path) is None, path


def test_an_archive_tells_when_it_got_a_file() -> None:
    assert modified(b"Wed, 21 Oct 2015 07:28:00 GMT") == 1445412480.0
    assert [modified(each) for each in (b"", b"yesterday", b"\xff")] == [0.0, 0.0, 0.0]


def test_a_package_tells_when_it_was_built() -> None:
    head = b"!<arch>\n" + b"debian-binary   1445412480  0     0     100644  4         `\n"
    assert built(head) == 1445412480.0
    for other in (b"", b"!<arch>\n", head.replace(b"debian", b"redhat"), head.replace(b"1445412480", b"yesterday ")):
        with pytest.raises(Unavailable, match="no Debian package"):
            built(other)
