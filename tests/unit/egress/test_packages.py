"""Which files of a listing are left, and which addresses are an index's."""

import json
from typing import Any

import pytest

from core.egress.packages import Index, Packages
from core.egress.settings import PackagesSettings
from protos.errors import Unavailable

NOW = 1_800_000_000.0
OLD, YOUNG = "2026-12-01T00:00:00Z", "2027-01-14T12:00:00Z"  # 45 days before then, and one
PIP = Index("pip", "thing", "https://index.test/simple/thing/")
NPM = Index("npm", "thing", "https://registry.test/thing")


def packages(**settings: Any) -> Packages:
    bases = {"pip": ("https://index.test/simple/",), "npm": ("https://registry.test",)}
    return Packages(PackagesSettings(**bases | settings))


def wheel(version: str, uploaded: str | None, **more: object) -> dict[str, object]:
    name = f"thing-{version}-py3-none-any.whl"
    file = {"filename": name, "url": f"https://files.test/{name}", "hashes": {"sha256": version[0] * 64}, **more}
    return file | ({"upload-time": uploaded} if uploaded else {})


def sifted(listing: dict[str, Any], index: Index = PIP, **settings: Any) -> tuple[dict[str, Any], Packages]:
    desk = packages(**settings)
    data, files = desk.sifted(index, json.dumps(listing).encode(), NOW)
    desk.learn("run", files)
    found: dict[str, Any] = json.loads(data)
    return found, desk


def test_only_configured_indexes_have_listings() -> None:
    desk = packages()
    for url, project in (
        ("https://index.test/simple/thing/", "thing"),
        ("https://registry.test/thing", "thing"),
        ("https://registry.test/@scope%2Fthing", "@scope/thing"),
        ("https://registry.test/@scope/thing", "@scope/thing"),
    ):
        index = desk.index(url)
        assert index is not None, url
        assert index.project == project
    for url in (
        *("https://index.test/simple/", "https://index.test/other/thing/", "https://index.test/simple/a/b/"),
        *("https://index.test/simple/thing/?q=1", "http://index.test/simple/thing/", "https://registry.test/"),
        *("https://registry.test/-/v1/search", "https://registry.test/thing/1.0.0", "https://other.test/thing"),
        "https://registry.test.other/thing",
    ):
        assert desk.index(url) is None, url


def test_young_undated_and_unchecked_files_of_pip_are_taken_out() -> None:
    files = [wheel("1.0", OLD), wheel("2.0", YOUNG), wheel("3.0", None), wheel("4.0", "soon")]
    files += [wheel("5.0", OLD, hashes={}), wheel("6.0", OLD, url="ftp://files.test/x")]
    found, desk = sifted({"name": "thing", "versions": ["1.0", "2.0", "3.0"], "files": files})
    assert [each["filename"] for each in found["files"]] == ["thing-1.0-py3-none-any.whl"]
    assert found["versions"] == ["1.0"]
    file = desk.file("run", "https://files.test/thing-1.0-py3-none-any.whl", NOW)
    assert file is not None
    assert (file.version, file.digest, desk.stored(file)) == ("1.0", "1" * 64, "sha256:" + "1" * 64)
    assert desk.file("run", "https://files.test/thing-2.0-py3-none-any.whl", NOW) is None


def test_an_operator_may_take_what_has_no_date_or_any_age() -> None:
    listing = {"files": [wheel("1.0", OLD), wheel("2.0", YOUNG), wheel("3.0", None)]}
    found, _ = sifted(listing, undated=True)
    assert [each["filename"][6:9] for each in found["files"]] == ["1.0", "3.0"]
    found, _ = sifted(listing, min_age_days=0)
    assert [each["filename"][6:9] for each in found["files"]] == ["1.0", "2.0"]


def test_metadata_is_fetched_where_its_digest_is_told_and_is_no_package() -> None:
    files = [wheel("1.0", OLD, **{"core-metadata": {"sha256": "a" * 64}}), wheel("2.0", OLD, **{"core-metadata": True})]
    found, desk = sifted({"files": files})
    assert found["files"][0]["core-metadata"] == {"sha256": "a" * 64}
    assert "core-metadata" not in found["files"][1]
    file = desk.file("run", "https://files.test/thing-1.0-py3-none-any.whl.metadata", NOW)
    assert file is not None
    assert not file.is_package
    assert desk.file("run", "https://files.test/thing-2.0-py3-none-any.whl.metadata", NOW) is None


def test_the_newest_that_is_old_enough_is_npms_latest() -> None:
    def version(number: str, shasum: str = "b" * 40) -> dict[str, Any]:
        return {"version": number, "dist": {"tarball": f"https://registry.test/t-{number}.tgz", "shasum": shasum}}

    numbers = ["1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"]
    times = {"1.0.0": "2026-11-01T00:00:00Z", "1.1.0": OLD, "1.2.0-rc.1": "2026-12-02T00:00:00Z", "2.0.0": YOUNG}
    versions = {each: version(each) for each in numbers}
    versions["0.9.0"] = version("0.9.0", shasum="")  # nothing to check it with
    listing = {"versions": versions, "time": times | {"0.9.0": OLD}, "dist-tags": {"latest": "2.0.0"}}
    found, desk = sifted(listing, NPM)
    assert list(found["versions"]) == ["1.0.0", "1.1.0", "1.2.0-rc.1"]
    assert found["dist-tags"] == {"latest": "1.1.0"}
    file = desk.file("run", "https://registry.test/t-1.1.0.tgz", NOW)
    assert file is not None
    assert (file.algorithm, desk.stored(file)) == ("sha1", "")
    desk.keep(file, "sha256:" + "c" * 64)
    assert desk.stored(file) == "sha256:" + "c" * 64


@pytest.mark.parametrize("listing", [b"<html>", b"[]", b"{}", b'{"files": 3}', b'{"files": [1]}', b"[" * 100_000, b""])
def test_what_is_no_listing_is_said_to_be_none(listing: bytes) -> None:
    with pytest.raises(Unavailable, match="no listing of thing that tells when"):
        packages().sifted(PIP, listing, NOW)
