"""Nobody who has only the files can change them unnoticed."""

import base64
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Malformed
from media import manifest, signing
from media.signing import KeyUnusable, Signature, Signer
from media.verification import verify
from tests.support.media_material import Speaker, record, talking_head

KIOSK = "a" * 32


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.at(tmp_path / "keys" / "signing-key")


@pytest.fixture
def recording(tmp_path: Path, signer: Signer) -> Path:
    directory = tmp_path / "recording"
    record(directory, [Speaker(KIOSK, talking_head(1.0))])
    manifest.recover(directory, signer=signer)
    return directory


def test_a_signed_recording_names_its_key(recording: Path, signer: Signer) -> None:
    found = verify(recording)
    assert found.problems == ()
    assert found.signed_by == base64.b64encode(signer.public_key).decode()


def test_any_changed_byte_of_the_manifest_is_found(recording: Path) -> None:
    path = recording / manifest.FILE_NAME
    whole = path.read_bytes()
    signature = Signature.decode((recording / signing.FILE_NAME).read_bytes())
    assert signature.is_over(whole)
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert not signature.is_over(changed)
    path.write_bytes(whole.replace(b'"petitioner"', b'"official"'))
    found = verify(recording)
    assert not found.is_intact and found.signed_by is None
    assert [problem.code for problem in found.problems] == ["signature"]


def test_another_key_can_sign_but_not_in_the_houses_name(
    recording: Path, signer: Signer, tmp_path: Path
) -> None:
    stranger = Signer.at(tmp_path / "stranger")
    data = (recording / manifest.FILE_NAME).read_bytes()
    (recording / signing.FILE_NAME).write_bytes(stranger.sign(data).encode())
    found = verify(recording)
    assert found.signed_by != base64.b64encode(signer.public_key).decode()


def test_a_signature_that_a_crash_left_out_is_added_and_then_kept(
    recording: Path, signer: Signer
) -> None:
    (recording / signing.FILE_NAME).unlink()
    assert verify(recording).signed_by is None
    manifest.recover(recording, signer=signer)
    first = (recording / signing.FILE_NAME).read_bytes()
    manifest.recover(recording, signer=signer)
    assert verify(recording).signed_by is not None
    assert (recording / signing.FILE_NAME).read_bytes() == first


def test_everyone_who_starts_at_once_agrees_on_one_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    everyone = threading.Barrier(8)

    def start() -> None:
        everyone.wait()
        found.append(Signer.at(tmp_path / "key").public_key)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_key_that_cannot_be_read_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="Restore it"):
        Signer.at(path)


def test_a_key_that_others_can_read_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "key"
    Signer.at(path)
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        Signer.at(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_signature_or_malformed(data: bytes) -> None:
    try:
        Signature.decode(data)
    except Malformed:
        pass
    else:
        pytest.fail("random bytes are no signature")
