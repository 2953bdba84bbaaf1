"""A certificate: which routing rule keeps which floor, by which test on which labels. A JSON file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eccos_core.certification.claims import CertifiedFloor, CertifiedGap, Claim
from eccos_core.errors import CertificateError, InputError
from eccos_core.io.files import atomic_writer

FORMAT = "eccos-certificate"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Certificate:
    """The rule "the model with the least cost_usd - usd_per_quality * quality" keeps the claim.

    - `usd_per_quality`: lambda, in USD. None when no setting passed; then the file records the look at the labels.
    - `fingerprint`: digest of predictor, encoder, models and prices.
    - `labels`, `labels_digest`: how many labelled questions were used, and a digest of them.
    - `mean`: the labelled mean quality of the rule. `p_value` and `test`: how the claim was tested.
    - `growing`: whether the test allows another look with more labels.
    - `made_on`: the day, as 2026-11-26.
    """

    claim: Claim
    usd_per_quality: float | None
    fingerprint: str
    labels: int
    labels_digest: str
    mean: float
    p_value: float
    test: str
    growing: bool
    made_on: str

    def require(self, claim: Claim, fingerprint: str, path: Path) -> float:
        """Return lambda, if this certificate is for that claim and those parts. Raises `CertificateError` if not."""
        again = "Run `eccos certify` again."
        if self.claim != claim:
            asked = f"{claim.in_words()} with confidence {claim.confidence:g}"
            raise CertificateError(
                f"{path}: certifies {self.claim.in_words()} with confidence {self.claim.confidence:g}, the policy asks "
                f"for {asked}. {again}"
            )
        if self.usd_per_quality is None:
            raise CertificateError(f"{path}: no setting passed the test on {self.labels} labels. {again}")
        if self.fingerprint != fingerprint:
            raise CertificateError(
                f"{path}: is void. It was made for another predictor, encoder, pool or price list "
                f"({self.fingerprint}, now {fingerprint}). {again}"
            )
        return self.usd_per_quality


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Write a certificate, whole or not at all."""
    kind = "certified_floor" if isinstance(certificate.claim, CertifiedFloor) else "within_points_of"
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, **asdict(certificate)}
    document["claim"] = {"kind": kind, **asdict(certificate.claim)}
    with atomic_writer(path) as stream:
        stream.write((json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def read_certificate(path: Path) -> Certificate:
    """Read what `write_certificate` wrote. Raises `CertificateError` for a file that is missing, damaged or foreign."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CertificateError(f"{path}: there is no certificate. `eccos certify` makes one from labels.") from error
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: cannot be read ({error}). Run `eccos certify` again.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise CertificateError(f"{path}: is no certificate of this version of eccos. Run `eccos certify` again.")
    try:
        told = dict(document["claim"])
        claim = {"certified_floor": CertifiedFloor, "within_points_of": CertifiedGap}[told.pop("kind")](**told)
        names = [field.name for field in dataclasses.fields(Certificate) if field.name != "claim"]
        return Certificate(claim=claim, **{name: document[name] for name in names})
    except (KeyError, TypeError, InputError) as error:
        raise CertificateError(f"{path}: is damaged ({error}). Run `eccos certify` again.") from error
