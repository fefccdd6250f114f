"""Rule `adapters`: checksum, key, parent, bundle, names, shapes and finite numbers of every adapters record."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from audit.log import Log, Record
from audit.network import FIRST_VERSION, Adapter, Bundle, Tensors, first_adapter, shapes
from audit.report import Report

KEPT = 500  # adapters in memory; older ones are read again


class Published(NamedTuple):
    """A usable adapter. parent, request, stage: of its headers."""

    version: str
    parent: str
    request: str
    stage: str
    digest: str
    record: Record  # without its value


class Adapters:
    """Every version that a prediction may name."""

    def __init__(self, log: Log, bundle: Bundle) -> None:
        self._log, self._bundle = log, bundle
        self.published: dict[str, Published] = {}
        self.faults: dict[str, str] = {}  # record to what is wrong with it
        self._first, self._loaded = first_adapter(bundle), OrderedDict[str, Adapter]()

    def read(self, report: Report, refused_records: Collection[str], requests: Collection[str]) -> None:
        """The whole topic. refused_records: those that a scorer said it cannot use. requests: ids of heal requests.

        A bad record that all scorers refuse has done no harm, where nobody of ours has made it: it is only counted."""
        for record in self._log.read("adapters"):
            if record.value is None:
                continue  # a version taken back: nothing to check, and predictions that name it are told by others
            try:
                made = self._checked(record)
            except ValueError as exc:
                self.faults[record.where] = str(exc)
                strangers = _text(record, "request") not in requests
                if strangers and record.where in refused_records:
                    report.count("bad adapters of strangers, refused by scorers")
                    continue
                report.check("adapters", False, record.where, str(exc))
                continue
            report.check("adapters", True, record.where, "")
            self.published[made.version] = made

    def get(self, version: str) -> Adapter | None:
        """None where nobody has published a usable adapter of that version."""
        if version == FIRST_VERSION:
            return self._first
        if version in self._loaded:
            self._loaded.move_to_end(version)
            return self._loaded[version]
        made = self.published.get(version)
        record = made and self._log.get("adapters", made.record.partition, made.record.offset)
        if made is None or record is None or record.value is None:
            return None
        tensors = {k: v for k, v in load_tensors(record.value).items() if not k.startswith("optim.")}
        adapter = self._loaded[version] = Adapter(version, tensors)
        while len(self._loaded) > KEPT:
            self._loaded.popitem(last=False)
        return adapter

    def _checked(self, record: Record) -> Published:
        """Raises ValueError, which says what is wrong."""
        assert record.value is not None
        version, key = _text(record, "version"), (record.key or b"").decode("utf-8", "replace")
        if version != key or not version:
            raise ValueError(f"header version {version!r} is not the key {key!r}")
        if version == FIRST_VERSION:
            raise ValueError(f"{FIRST_VERSION} is the bundle's own and published by nobody")
        digest = hashlib.sha256(record.value).hexdigest()
        if digest != _text(record, "sha256"):
            raise ValueError(
                f"{version}: its bytes have SHA-256 {digest[:12]}.., header says {_text(record, 'sha256')[:12]}.."
            )
        if _text(record, "bundle") != self._bundle.hash:
            raise ValueError(f"{version}: made for bundle {_text(record, 'bundle')[:12]}, not {self._bundle.hash[:12]}")
        parent = _text(record, "parent")
        if parent != FIRST_VERSION and parent not in self.published:
            raise ValueError(f"{version}: its parent {parent!r} was not published before it")
        before = self.published.get(version)
        if before is not None and before.digest != digest:
            raise ValueError(f"{version}: published before with other bytes, at {before.record.where}")
        try:
            tensors = load_tensors(record.value)
        except (SafetensorError, ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"{version}: not safetensors: {exc}") from exc
        self._check_tensors(version, tensors)
        stage, request = _text(record, "stage"), _text(record, "request")
        return Published(version, parent, request, stage, digest, record._replace(value=None))

    def _check_tensors(self, version: str, tensors: Tensors) -> None:
        for name, shape in shapes(self._bundle).items():
            if name not in tensors:
                raise ValueError(f"{version}: tensor {name} is missing")
            if tensors[name].shape != shape or tensors[name].dtype != np.float32:
                raise ValueError(
                    f"{version}: tensor {name} is {tensors[name].dtype}{tensors[name].shape}, not float32{shape}"
                )
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"{version}: tensor {name} holds a number that is not finite")
        if (tensors["align.scale"] == 0).any():
            raise ValueError(f"{version}: align.scale holds a zero")
        d, order = self._bundle.d, tensors.get("align.order")
        if order is not None and sorted(order.ravel().tolist()) != list(range(d)):
            raise ValueError(f"{version}: align.order does not name each of {d} columns once")


def _text(record: Record, header: str) -> str:
    return record.headers.get(header, b"").decode("utf-8", "replace")
