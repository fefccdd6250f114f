"""An authorizer's no, in words that name the right that is missing."""

from __future__ import annotations

import confluent_kafka as ck

from shared.errors import OperatorError

_DENIED = (
    ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    ck.KafkaError.GROUP_AUTHORIZATION_FAILED,
    ck.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


class Denied(OperatorError):
    """The broker's authorizer said no. what: the operation and what it was on, empty where the client does not tell."""

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(f"not allowed: {what} ({reason}); docs/security.md and `selfheal acl` have the rights")


def denial(error: ck.KafkaError, what: str = "") -> Denied | None:
    """For an authorizer's no, else None."""
    return Denied(what, error.str()) if error.code() in _DENIED else None
