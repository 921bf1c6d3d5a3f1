"""The tokens file: whose token or certificate it is, what is refused, and that nothing of it is repeated."""

import json
from pathlib import Path

import pytest

from service_kit.authentication import Authentication
from service_kit.errors import Unauthenticated
from service_kit.identities_file import read_identities
from service_kit.identity import Role
from service_kit.rereading import FileUnusable, Reread
from tests.identities import bearer, listed, token_of, write_identities

SPIFFE = "spiffe://cluster/ns/shop/sa/backend"


def known(path: Path, *entries: dict[str, object]) -> Authentication:
    write_identities(path, *entries)
    return Authentication(Reread([path], lambda: read_identities(path)), None)


def refusal(authentication: Authentication, metadata: object, connection: object = None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authentication.identify(metadata, connection or {})  # type: ignore[arg-type]
    return caught.value.reason


def test_a_token_is_the_identity_that_it_was_given_to(tmp_path: Path) -> None:
    shop, all_seeing = listed("shop", ["trainer", "generator"], ["shop"]), listed("ops", ["operator"], ["*"])
    authentication = known(tmp_path / "tokens.json", shop, all_seeing)
    identity = authentication.identify(bearer("shop"), {})
    assert (identity.name, identity.roles) == ("shop", {Role.TRAINER, Role.GENERATOR})
    assert (identity.may_use("shop"), identity.may_use("other")) == (True, False)
    assert authentication.identify(bearer("ops"), {}).may_use("any")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", "Bearer wrong"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer "),), "TOKEN_INVALID"),
        ((("authorization", token_of("shop")),), "TOKEN_INVALID"),
        ((("authorization", f"Basic {token_of('shop')}"),), "TOKEN_INVALID"),
        ((*bearer("shop"), *bearer("shop")), "TOKEN_INVALID"),
        ((("authorization-bin", b"Bearer"),), "TOKEN_MISSING"),
    ],
)
def test_no_token_or_a_bad_one_is_nobody(tmp_path: Path, metadata: object, reason: str) -> None:
    authentication = known(tmp_path / "tokens.json", listed("shop", ["trainer"], ["shop"]))
    assert refusal(authentication, metadata) == reason


def test_a_certificate_is_known_by_its_spiffe_id_or_another_of_its_names(tmp_path: Path) -> None:
    authentication = known(
        tmp_path / "tokens.json",
        listed("shop", ["trainer"], ["shop"], [SPIFFE]),
        listed("other", ["viewer"], ["shop"], ["other.example"]),
    )
    for connection in (
        {"peer_spiffe_id": [SPIFFE.encode()]},
        {"x509_subject_alternative_name": [b"unknown", SPIFFE.encode()]},
    ):
        assert authentication.identify((), connection).name == "shop"
    # A bad token is not mended by a good certificate; a name that is no SAN is none; two identities at once are nobody.
    good = {"peer_spiffe_id": [SPIFFE.encode()]}
    assert refusal(authentication, (("authorization", "Bearer wrong"),), good) == "TOKEN_INVALID"
    assert refusal(authentication, (), {"x509_common_name": [SPIFFE.encode()]}) == "TOKEN_MISSING"
    both = {"x509_subject_alternative_name": [SPIFFE.encode(), b"other.example"]}
    assert refusal(authentication, (), both) == "CERTIFICATE_UNKNOWN"
    assert refusal(authentication, (), {"peer_spiffe_id": [b"spiffe://x/\xff"]}) == "CERTIFICATE_UNKNOWN"


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.json"
    authentication = known(path, listed("shop", ["trainer"], ["shop"]))
    write_identities(path, listed("shop", ["trainer"], ["shop"]), listed("new", ["viewer"], ["shop"]))
    assert authentication.identify(bearer("new"), {}).name == "new"
    write_identities(path, listed("new", ["viewer"], ["shop"]))
    assert refusal(authentication, bearer("shop")) == "TOKEN_INVALID"
    for broken in ("{", json.dumps({"identities": [token_of("new")]})):
        path.write_text(broken)
        caplog.clear()
        for _ in range(3):
            assert authentication.identify(bearer("new"), {}).name == "new"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    assert authentication.identify(bearer("new"), {}).name == "new"
    assert token_of("new") not in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"roles": ["admin"]}, "roles"),
        ({"roles": []}, "roles"),
        ({"projects": []}, "projects"),
        ({"projects": ["*", "shop"]}, "projects"),
        ({"projects": ["../x"]}, "projects"),
        ({"tokens_sha256": ["a-token-in-the-clear"]}, "tokens_sha256"),
        ({"token": "a-token-in-the-clear"}, "token"),
        ({"name": "two words"}, "name"),
    ],
)
def test_a_wrong_entry_is_refused_by_field_and_not_repeated(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = write_identities(tmp_path / "tokens.json", listed("shop", ["trainer"], ["shop"]) | change)
    with pytest.raises(FileUnusable, match=named) as caught:
        read_identities(path)
    assert "a-token-in-the-clear" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (listed("shop", ["viewer"], ["b"]) | {"tokens_sha256": []}, "name"),
        (listed("shop", ["viewer"], ["b"]) | {"name": "other"}, "tokens_sha256"),
        (listed("other", ["viewer"], ["b"], [SPIFFE]), "certificates"),
    ],
)
def test_what_must_mean_one_identity_may_not_stand_there_twice(
    tmp_path: Path, second: dict[str, object], named: str
) -> None:
    path = write_identities(tmp_path / "tokens.json", listed("shop", ["trainer"], ["a"], [SPIFFE]), second)
    with pytest.raises(FileUnusable, match=f"a {named} stands there twice"):
        read_identities(path)
