"""A broker that lets nobody in unasked: a CA of its own, TLS with passwords or certificates, an authorizer.

Three ways in: PLAINTEXT for the test itself (ANONYMOUS, allowed everything), SASL_SSL for the users of USERS, SSL for
whoever has a certificate of the CA. All on loopback, as everything that the embedded broker opens.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from selfheal.broker import EmbeddedBroker
from selfheal.broker_config import HOST, free_ports

# operator may do everything (super.users); the others what a test allows them.
USERS = {
    name: f"pass-of-{name}-4711" for name in ("operator", "producer", "scorer", "healer", "monitor", "pin", "nobody")
}
MECHANISM = "SCRAM-SHA-512"


class Pair(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: str
    key: str


class Authority:
    """Signs certificates for as long as a test lasts."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key.public_key(), ca=True)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def pair(self, name: str) -> Pair:
        """For a server on loopback and for a client alike."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._sign(subject, key.public_key(), ca=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(made.public_bytes(serialization.Encoding.PEM).decode(), private.decode())

    def _sign(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not ca:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")])
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
            builder = builder.add_extension(here, critical=False)
        return builder.sign(self._key, hashes.SHA256())


class Secured(NamedTuple):
    """A running broker. plain: librdkafka settings of the way in that is open to the test alone. ca: path of the CA's
    certificate. authority: signs more certificates."""

    plain: dict[str, str]
    sasl_ssl: str
    mtls: str
    ca: Path
    authority: Authority

    def user(self, name: str, password: str | None = None) -> dict[str, str]:
        """librdkafka settings of a user with a password, over TLS."""
        return {
            "bootstrap.servers": self.sasl_ssl,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": name,
            "sasl.password": USERS[name] if password is None else password,
            "ssl.ca.location": str(self.ca),
        }


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One for the session: tests are kept apart by their prefixes."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority("a CA of this test")
    server, ca = authority.pair("broker"), folder / "ca.pem"
    ca.write_text(authority.pem)
    [sasl, tls] = (pair.client for pair in free_ports(2, None))
    extra = {
        "listeners": f"SASL_SSL://{HOST}:{sasl},SSL://{HOST}:{tls}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
        "sasl.enabled.mechanisms": MECHANISM,
        f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": server.certificate,
        "ssl.keystore.key": server.key,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": authority.pem,
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:operator;User:CN=operator",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    }
    with EmbeddedBroker(folder / "kafka", extra=extra) as broker:
        plain = {"bootstrap.servers": broker.bootstrap}
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        admin = AdminClient(plain)
        asked = admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(name, info, password.encode()) for name, password in USERS.items()]
        )
        for future in asked.values():
            future.result(20)
        yield Secured(plain, f"{HOST}:{sasl}", f"{HOST}:{tls}", ca, authority)
