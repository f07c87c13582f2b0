"""Passwords: a name that nobody has costs as much to refuse as a wrong password."""

import re

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from core.identity import decoy_hash, hash_password


async def test_the_decoy_is_checked_as_a_real_hash_is_and_fits_nobody() -> None:
    real, decoy = await hash_password("right"), decoy_hash()
    assert extract_parameters(decoy) == extract_parameters(real)
    assert [len(part) for part in decoy.split("$")] == [len(part) for part in real.split("$")]
    assert re.fullmatch(r"[A-Za-z0-9+/]+", decoy.rsplit("$", 1)[1])
    with pytest.raises(VerifyMismatchError):  # computed to the end, and not refused as malformed
        PasswordHasher().verify(decoy, "right")
    assert decoy_hash() != decoy
