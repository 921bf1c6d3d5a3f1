"""Consent: who gave the right to learn from pictures, and for what. Checked here, kept as it was said. Pure."""

from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import PreconditionUnmet, Violations

_MAX_GIVEN_BY = 200
_MAX_PURPOSE = 500
_MAX_EVIDENCE = 500


def check_consent(consent: ConsentEntry | None, field: str, violations: Violations) -> None:
    """Note what is wrong with a consent that is given; `field` is where it came."""
    if consent is None:
        return
    for name, text, least, most in (
        ("given_by", consent.given_by, 1, _MAX_GIVEN_BY),
        ("purpose", consent.purpose, 1, _MAX_PURPOSE),
        ("evidence", consent.evidence, 0, _MAX_EVIDENCE),
    ):
        fits = text.isprintable() and len(text.strip()) >= least and len(text) <= most
        violations.check(fits, f"{field}.{name}", text[:80], f"{least} to {most} printable characters")


def require_consent(consent: ConsentEntry | None, subject: str, remedy: str) -> None:
    """Raise PreconditionUnmet where there is none; for operators who require one.

    subject: name of what it is missing from. remedy: how the caller gives it, for example `create it with one`.
    """
    if consent is None:
        raise PreconditionUnmet(
            "CONSENT_REQUIRED",
            subject,
            f"{subject} does not say who gave the right to learn from its pictures, which is required here; {remedy}",
        )
