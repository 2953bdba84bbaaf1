"""Certified floors: tests on labels that a routing rule keeps a floor, and the certificate that says so."""

from eccos_core.certification.certificate import Certificate, read_certificate, write_certificate
from eccos_core.certification.claims import CertifiedFloor, CertifiedGap, Claim
from eccos_core.certification.fixed_sequence import SequenceResult, run_sequence
from eccos_core.certification.mean_interval import mean_interval
from eccos_core.certification.mean_tests import BettingTest, BinomialTest, MeanTest

__all__ = [
    "BettingTest",
    "BinomialTest",
    "Certificate",
    "CertifiedFloor",
    "CertifiedGap",
    "Claim",
    "MeanTest",
    "SequenceResult",
    "mean_interval",
    "read_certificate",
    "run_sequence",
    "write_certificate",
]
