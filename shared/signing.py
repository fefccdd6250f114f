"""Signed adapters and control records: with a key set, nothing that changes what is served is taken from a stranger.

Header `signature`: HMAC-SHA256, as 64 hex digits, over topic, key, value and every other header. The topic, prefix
included, is part of it, so that a record of one pipeline is no order to another. docs/security.md says what this
keeps out and what it does not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from shared.errors import OperatorError, Refused
from shared.kafka import Out, Taken
from shared.settings import ServiceSettings
from shared.topics import Name, topic_name

SIGNED: tuple[Name, ...] = ("adapters", "control")
HEADER = "signature"
KEY_ENV = "SELFHEAL_SIGNING_KEY"
KEY_CHARS = 32  # at least, so that it cannot be guessed: `openssl rand -hex 32` gives 64
_NOTHING = 2**64 - 1  # the length written for a part that is not there: no value is not an empty value


class Seal:
    """Signs what is published to the two topics of a prefix, and checks what is read from them.

    keys: the first signs, every one is accepted, so that a key can be replaced while records signed with the old one
    are still on the topics. Without keys nothing is signed and all is accepted.
    """

    def __init__(self, prefix: str = "", keys: Sequence[bytes] = ()) -> None:
        self._topics = {topic_name(name, prefix) for name in SIGNED}
        self._keys = tuple(keys)

    @classmethod
    def of(cls, settings: ServiceSettings, prefix: str | None = None) -> Seal:
        """prefix: another pipeline's than the settings name. Raises OperatorError: a key too short, a file that cannot
        be read."""
        return cls(settings.prefix if prefix is None else prefix, read_keys(settings))

    def sign(self, out: Out) -> Out:
        """The same record, with its signature where it needs one."""
        if not self._keys or out.topic not in self._topics:
            return out
        headers = {name: _bytes(value) for name, value in out.headers.items() if name != HEADER}
        key = None if out.key is None else _bytes(out.key)
        signature = _signature(self._keys[0], out.topic, key, out.value, headers)
        return out._replace(headers={**headers, HEADER: signature})

    def check(self, record: Taken) -> None:
        """Raises Refused (field header:signature): a record of the two topics that no key of ours has signed."""
        if not self._keys or record.topic not in self._topics:
            return
        given = record.headers.get(HEADER)
        if given is None:
            raise Refused(f"not signed, and {KEY_ENV} is set here", f"header:{HEADER}")
        headers = {name: value for name, value in record.headers.items() if name != HEADER}
        for key in self._keys:
            wanted = _signature(key, record.topic, record.key, record.value, headers)
            if hmac.compare_digest(given, wanted.encode()):
                return
        raise Refused(f"not signed with a key of {KEY_ENV}, or changed since", f"header:{HEADER}")


def read_keys(settings: ServiceSettings) -> list[bytes]:
    """The keys that the settings name, empty where they name none. Raises OperatorError, which shows no key."""
    file, name = settings.signing_key_file, KEY_ENV
    if file is not None:
        name = f"{KEY_ENV}_FILE"
        if settings.signing_key is not None:
            raise OperatorError(f"{KEY_ENV} and {name} are both set: unset one of them")
        try:
            text = file.read_text("utf-8")
        except OSError as exc:
            raise OperatorError(f"{name}: cannot read {file} ({exc.strerror})") from exc
        except UnicodeDecodeError as exc:
            raise OperatorError(f"{name}: {file} is not text; `openssl rand -hex 32` makes a key") from exc
        keys = text.split()
        if not keys:
            raise OperatorError(f"{name}: {file} holds no key; `openssl rand -hex 32` makes one")
    else:
        keys = [] if settings.signing_key is None else settings.signing_key.get_secret_value().split()
    for i, key in enumerate(keys, 1):
        if len(key) < KEY_CHARS:
            raise OperatorError(
                f"{name}: key {i} has {len(key)} characters, at least {KEY_CHARS} are wanted; "
                "`openssl rand -hex 32` makes one"
            )
    return [key.encode() for key in keys]


def _signature(secret: bytes, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> str:
    """Every part goes in behind its length: no two records have the same bytes."""
    mac = hmac.new(secret, digestmod=hashlib.sha256)
    parts = [b"selfheal 1", topic.encode(), key, value]
    parts += [part for name in sorted(headers) for part in (name.encode("utf-8", "replace"), headers[name])]
    for part in parts:
        mac.update((_NOTHING if part is None else len(part)).to_bytes(8, "big"))
        mac.update(part or b"")
    return mac.hexdigest()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
