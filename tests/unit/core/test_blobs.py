"""Finished files appear whole under keys that we made, and nowhere else."""

from pathlib import Path

import pytest

from core.blobs import DirectoryBlobs


def test_a_file_comes_back_under_its_key(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"picture")
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put_file("recordings/1/party-a.webm", source)
    assert blobs.local_path("recordings/1/party-a.webm").read_bytes() == b"picture"


def test_a_second_put_replaces_the_first_and_leaves_no_scraps(tmp_path: Path) -> None:
    source = tmp_path / "source"
    blobs = DirectoryBlobs(tmp_path / "blobs")
    for content in (b"one", b"two"):
        source.write_bytes(content)
        blobs.put_file("a/b", source)
    assert blobs.local_path("a/b").read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "blobs/a").iterdir()] == ["b"]


@pytest.mark.parametrize(
    "key", ["../x", "a/../b", "/etc/passwd", "", "a//b", "A", "a/.hidden", "a\x00", "a/", "é"]
)
def test_a_key_that_could_lead_elsewhere_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        DirectoryBlobs(tmp_path).local_path(key)


def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectoryBlobs(tmp_path).local_path("a/b")
    DirectoryBlobs(tmp_path).delete("a/b")


def test_what_lies_below_a_prefix_is_listed_and_deleted_drafts_included(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for key in ("recordings/a/one.webm", "recordings/a/two.jpg", "recordings/ab/one.webm"):
        blobs.put_file(key, source)
    (tmp_path / "blobs/recordings/a/.three.mp4.part").write_bytes(b"half")
    assert blobs.keys_below("recordings/a") == ("recordings/a/one.webm", "recordings/a/two.jpg")
    for _ in range(2):
        blobs.delete_below("recordings/a")
        left = [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert left == ["one.webm"]
    assert blobs.keys_below("recordings/a") == ()
