"""The own certificate is made once and kept; a pin is one certificate and no other."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from support.uacerts import client_certificate
from twinloop.sources.opcua.certificates import (
    Pins,
    application_uri,
    decode_certificate,
    describe,
    fingerprint,
    own_certificate,
    read_certificate,
    subject_of,
    uri_of,
)


def test_the_own_certificate_is_made_once_and_its_key_is_its_owners(tmp_path: Path) -> None:
    certificate, key = own_certificate(tmp_path, "plant-1")
    before = certificate.read_bytes(), key.read_bytes()
    assert own_certificate(tmp_path, "plant-1") == (certificate, key)
    assert (certificate.read_bytes(), key.read_bytes()) == before
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = read_certificate(certificate)
    assert uri_of(made).startswith("urn:")
    assert uri_of(made).endswith(":twinloop:plant-1")
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days > 15 * 365
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own-certificate.der", "own-key.der"]


def test_a_certificate_lost_between_two_starts_is_made_again_from_the_same_key(tmp_path: Path) -> None:
    certificate, _ = own_certificate(tmp_path, "plant-1")
    made = read_certificate(certificate)
    certificate.unlink()  # as by a process killed between the two files
    assert read_certificate(own_certificate(tmp_path, "plant-1")[0]).public_key() == made.public_key()


def test_all_that_make_it_at_the_same_moment_have_the_same(tmp_path: Path) -> None:
    def seen(_: int) -> tuple[bytes, bytes]:
        certificate, key = own_certificate(tmp_path, "plant-1")
        return certificate.read_bytes(), key.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(seen, range(4)))) == 1


def test_a_pin_is_replaced_whole_and_read_in_either_form(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "trusted")
    assert pins.load("dcs") is None
    pem, _ = client_certificate(tmp_path)
    first = read_certificate(pem)
    pins.pin("dcs", first)
    assert pins.load("dcs") == first
    second = read_certificate(own_certificate(tmp_path, "p")[0])
    pins.pin("dcs", second)
    assert pins.load("dcs") == second
    assert [path.name for path in (tmp_path / "trusted").iterdir()] == ["dcs.der"]
    assert ("SHA-256", fingerprint(second)) in describe(second)
    chain = (tmp_path / "trusted" / "dcs.der").read_bytes() * 2  # as servers send it with its issuer's
    assert decode_certificate(chain) == second


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82", b"-----BEGIN CERTIFICATE-----\n", b"x" * 50])
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_certificate(data)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"twinloop test client", b"twinloop \xff\xfest client"),  # no UTF-8
        (b"\x86\x18urn:twinloop:test:client", b"\x83\x18urn:twinloop:test:client"),  # a name of no known type
        (b"\x06\x03\x55\x1d\x13", b"\x06\x03\x55\x1d\x11"),  # an extension twice
    ],
)
def test_a_certificate_whose_texts_cannot_be_read_is_described_all_the_same(
    tmp_path: Path, was: bytes, now: bytes
) -> None:
    good = read_certificate(client_certificate(tmp_path)[0]).public_bytes(serialization.Encoding.DER)
    assert was in good
    shown = decode_certificate(good.replace(was, now))
    said = dict(describe(shown))
    assert said["SHA-256"] == fingerprint(shown)
    assert said["subject"] == subject_of(shown)
    assert (said["subject"] == said["issuer"] == "unreadable") == (b"\xff" in now)
    assert (said["application URI"] == "none") == (b"\xff" not in now)


def test_a_plant_may_have_any_name(tmp_path: Path) -> None:
    made = read_certificate(own_certificate(tmp_path, "Fässer")[0])
    assert uri_of(made) == application_uri("Fässer")
    assert uri_of(made).endswith(":twinloop:F%C3%A4sser")
    assert application_uri("Plant_1.a b").endswith(":twinloop:Plant_1.a b")
