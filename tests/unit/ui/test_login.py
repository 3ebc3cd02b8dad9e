"""The page's password: how it is kept, what a guess costs, who has to wait for it."""

from __future__ import annotations

import threading

import pytest

from floe.errors import ConfigError
from ui import login
from ui.login import REST_S, Guesses
from ui.password import check_form, hashed, matches

KEPT = hashed("correct horse", cost=2**14)


def test_the_password_matches_its_hash_and_no_other_does() -> None:
    assert matches("correct horse", KEPT)
    assert not matches("correct horse ", KEPT)
    assert not matches("", KEPT)


def test_the_hash_is_scrypt_as_rfc_7914_has_it() -> None:
    # RFC 7914, section 12: "pleaseletmein", N = 16384, r = 8, p = 1; the salt there is no 16 bytes, so by Python's own.
    import base64
    import hashlib

    salt = bytes(range(16))
    derived = hashlib.scrypt(b"pleaseletmein", salt=salt, n=2**14, r=8, p=1, dklen=32)
    _, cost, salted, text = hashed("pleaseletmein", salt, 2**14).split("$")
    assert (cost, base64.urlsafe_b64decode(salted + "==")) == ("16384", salt)
    assert base64.urlsafe_b64decode(text + "=") == derived


def test_two_hashes_of_a_password_differ() -> None:
    assert hashed("same", cost=2**14) != hashed("same", cost=2**14)


def test_the_password_does_not_stand_in_its_hash() -> None:
    assert "horse" not in KEPT
    check_form(KEPT)


@pytest.mark.parametrize(
    "text",
    [
        "correct horse", "scrypt$1$a$b", KEPT.replace("16384", "16385"), KEPT.replace("16384", "1048576"),
        KEPT + "x", f" {KEPT}",
    ],
    ids=["a password", "too short", "no power of two", "too costly", "one more", "a blank"],
)  # fmt: skip
def test_what_is_no_hash_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_form(text)
    assert text not in str(refused.value)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_a_guess_its_address_rests_and_even_the_right_one_is_not_looked_at() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    assert guesses.try_("wrong", KEPT, "192.0.2.1") is False
    assert guesses.try_("correct horse", KEPT, "192.0.2.1") is None
    clock.now += REST_S
    assert guesses.try_("correct horse", KEPT, "192.0.2.1") is True


def test_other_addresses_are_not_kept_waiting_by_one_that_guesses() -> None:
    guesses = Guesses(Clock())
    assert guesses.try_("wrong", KEPT, "192.0.2.1") is False
    assert guesses.try_("correct horse", KEPT, "192.0.2.2") is True


def test_who_was_right_may_come_again_at_once() -> None:
    guesses = Guesses(Clock())
    assert guesses.try_("correct horse", KEPT, "192.0.2.1") is True
    assert guesses.try_("correct horse", KEPT, "192.0.2.1") is True


def test_many_at_once_from_one_address_are_one_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses, looked, said = Guesses(Clock()), [], []

    def look(given: str, kept: str) -> bool:
        looked.append(given)
        return False

    monkeypatch.setattr(login, "matches", look)
    threads = [
        threading.Thread(target=lambda n=number: said.append(guesses.try_(str(n), KEPT, ""))) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looked) == 1
    assert sorted(map(str, said)) == ["False"] + ["None"] * 19


def test_the_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "ADDRESSES", 5)
    monkeypatch.setattr(login, "matches", lambda given, kept: False)
    clock = Clock()
    guesses = Guesses(clock)
    for number in range(50):
        guesses.try_("x", KEPT, str(number))
        clock.now += REST_S
    assert len(guesses._rests) <= 5


def test_many_addresses_are_bounded_together_but_this_machine_is_not_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "matches", lambda given, kept: given == "right")
    clock = Clock()
    guesses = Guesses(clock)
    said = [guesses.try_("wrong", KEPT, f"2001:db8::{number:x}") for number in range(3 * login.MOST)]
    assert said == [False] * login.MOST + [None] * 2 * login.MOST
    assert guesses.try_("right", KEPT, "192.0.2.1") is None
    assert guesses.try_("right", KEPT, "") is True
    clock.now += login.MINUTE_S
    assert guesses.try_("right", KEPT, "192.0.2.1") is True, "nobody is kept out for ever"


def test_one_address_cannot_use_up_the_guesses_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "matches", lambda given, kept: given == "right")
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(3000):
        guesses.try_("wrong", KEPT, "192.0.2.1")
        clock.now += 0.1
    assert guesses.try_("right", KEPT, "192.0.2.2") is True
