"""Deployment settings: read once from the environment, everything wrong named."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service_kit.settings import AccessSettings, Address, SettingsError, StoreSettings, read_settings


class SampleSettings(BaseModel):
    """A service's settings."""

    model_config = ConfigDict(frozen=True)

    store: StoreSettings = StoreSettings()
    sample_address: Address = "127.0.0.1:1"
    sample_workers: int = Field(default=1, ge=0)


def test_fields_are_read_from_the_environment_nested_ones_too() -> None:
    environment = {
        "PERSONAE_SAMPLE_WORKERS": "3",
        "PERSONAE_S3_BUCKET": "other",
        "HOME": "/root",
        "PERSONAE_OTHER_X": "",
    }
    settings = read_settings(SampleSettings, environment, ("OTHER_",))
    assert settings.sample_workers == 3
    assert settings.store.s3_bucket == "other"
    assert settings.store.s3_region == "us-east-1"


def test_settings_are_frozen() -> None:
    settings = read_settings(SampleSettings, {}, ())
    with pytest.raises(ValidationError):
        settings.sample_workers = 2  # type: ignore[misc]


def test_everything_wrong_is_named_together() -> None:
    environment = {
        "PERSONAE_SAMPLE_WORKERS": "-1",
        "PERSONAE_S3_CREATE_BUCKET": "perhaps",
        "PERSONAE_SAMPLE_WORKER": "1",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(SampleSettings, environment, ())
    for name in environment:
        assert name in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    settings = read_settings(SampleSettings, {"PERSONAE_S3_SECRET_KEY": "hush"}, ())
    assert "hush" not in repr(settings)
    assert settings.store.s3_secret_key.get_secret_value() == "hush"


@pytest.mark.parametrize("address", ["localhost", ":50051", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", ""])
def test_an_address_without_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="PERSONAE_SAMPLE_ADDRESS"):
        read_settings(SampleSettings, {"PERSONAE_SAMPLE_ADDRESS": address}, ())


def test_what_a_caller_sets_for_the_command_is_passed_over_and_nothing_that_looks_like_it() -> None:
    fine = {"PERSONAE_TOKEN": "hush", "PERSONAE_CLIENT_TLS_CA": "ca.pem"}
    read_settings(SampleSettings, fine, ())
    # A tokens file that is misspelt would otherwise leave the service open.
    for name in ("PERSONAE_TOKENS_FIL", "PERSONAE_TOKENS_FILES", "PERSONAE_TOKEN_FILE"):
        with pytest.raises(SettingsError, match=name) as caught:
            read_settings(AccessSettings, fine | {name: "x"}, ())
        assert "hush" not in str(caught.value)


def test_the_algorithm_of_signed_tokens_is_one_that_a_public_key_checks() -> None:
    for algorithm in ("none", "HS256", ""):
        with pytest.raises(SettingsError, match="PERSONAE_JWT_ALGORITHM"):
            read_settings(AccessSettings, {"PERSONAE_JWT_ALGORITHM": algorithm}, ())


def test_a_key_may_be_the_content_of_a_file_and_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret_key"
    file.write_text("hush\n")
    environment = {"PERSONAE_S3_ACCESS_KEY": "known", "PERSONAE_S3_SECRET_KEY_FILE": str(file)}
    settings = read_settings(SampleSettings, environment, ())
    assert settings.store.keys == ("known", "hush")
    assert "hush" not in repr(settings)


def test_a_key_that_is_given_twice_or_whose_file_is_not_there_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "access_key"
    file.write_text("known")
    environment = {
        "PERSONAE_S3_ACCESS_KEY": "other",
        "PERSONAE_S3_ACCESS_KEY_FILE": str(file),
        "PERSONAE_S3_SECRET_KEY_FILE": str(tmp_path / "missing"),
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(SampleSettings, environment, ())
    assert "PERSONAE_S3_ACCESS_KEY_FILE" in str(caught.value)
    assert f"{tmp_path}/missing cannot be read" in str(caught.value)
    assert "known" not in str(caught.value)
