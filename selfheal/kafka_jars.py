"""Apache Kafka's own jars: pinned, fetched once per user, checked before the JVM sees them.

``kafka-<version>.lock.json`` is the truth: every jar's coordinate, file name, SHA-256 and size. A jar comes
through jgo's Maven client (its config file may name a mirror; proxies and certificates are those of requests)
and reaches the cache only once it has passed. ``python -m selfheal.kafka_jars --relock`` resolves anew.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import platformdirs
from rich.console import Console

from selfheal.download_progress import Report, reporting
from selfheal.flock import locked
from shared.errors import OperatorError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
LOCK_FILE = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.lock.json")
# Kafka's own parts come with it; slf4j-simple is the smallest way to get its log lines onto stderr, and
# has to be of slf4j-api's version, the one kafka_2.13 asks for.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
OWN_BROKER = "or set KAFKA_BOOTSTRAP_SERVERS to use a Kafka of your own"
TRIES = 3
STALL_S = 30  # a connection that sends nothing for this long is given up
# jgo opens one connection per file; four at a time hide most of the waiting without crowding a registry.
CONNECTIONS = 4


class Jar(NamedTuple):
    """One line of the lock file. size in bytes, sha256 in hex."""

    coordinate: str
    file: str
    sha256: str
    size: int


def cache_dir() -> Path:
    """Where this user's jars are kept, for all projects: SELFHEAL_CACHE_DIR, else the platform's place."""
    chosen = os.environ.get("SELFHEAL_CACHE_DIR")
    return Path(chosen).expanduser().resolve() if chosen else platformdirs.user_cache_path("selfheal")


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """The pinned jars, in class path order."""
    return [Jar(**entry) for entry in json.loads(path.read_text("utf-8"))["jars"]]


def ensure_jars(console: Console | None = None) -> list[Path]:
    """Every pinned jar as a checked file, fetching what is missing; about 45 MB the first time.

    Blocks for the download, or for another process that is at it. Raises OperatorError when a jar cannot be
    had or is not the pinned one.
    """
    jars, folder = read_lock(), cache_dir() / f"kafka-{KAFKA_VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(not (folder / jar.file).exists() for jar in jars):
            with locked(folder / "lock"):
                _fetch_missing(jars, folder, console or Console(stderr=True))
        for jar in jars:
            check(jar, folder / jar.file)
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise
        advice = f"Free about 120 MB there, or set SELFHEAL_CACHE_DIR to another folder, {OWN_BROKER}."
        raise OperatorError(f"cannot keep Kafka's jars in {folder}: {exc.strerror}. {advice}") from exc
    return [folder / jar.file for jar in jars]


def check(jar: Jar, path: Path) -> None:
    """Raise OperatorError unless ``path`` holds exactly the pinned bytes."""
    with path.open("rb") as file:
        size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    if (size, digest) != (jar.size, jar.sha256):
        raise OperatorError(
            f"{jar.file} is not the jar pinned in {LOCK_FILE.name}: {size} bytes with SHA-256 {digest},"
            f" expected {jar.size} bytes with {jar.sha256}. It was not used. If {path} still exists, delete"
            f" it and start again; if that does not help, do not trust where the jars come from: tell us,"
            f" {OWN_BROKER}."
        )


def maven(repo_cache: Path, report: Report | None = None) -> MavenContext:
    """jgo's Maven client with the user's own repositories, if his jgo config file names some."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext, PythonResolver

    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    resolver = PythonResolver(progress_callback=report)
    return MavenContext(resolver, repo_cache, remote_repos=repositories, timeout=STALL_S)


def _fetch_missing(jars: list[Jar], folder: Path, console: Console) -> None:
    """Bring in what is not there yet. Called with the folder's lock held."""
    for leftover in folder.glob("fetch-*.part"):  # of a process that died here
        shutil.rmtree(leftover, ignore_errors=True)
    missing = [jar for jar in jars if not (folder / jar.file).exists()]
    if not missing:
        return
    what, total = f"Apache Kafka {KAFKA_VERSION}", sum(jar.size for jar in missing)
    with reporting(console, what, len(missing), total) as report, ThreadPoolExecutor(CONNECTIONS) as pool:
        fetches = [pool.submit(_fetch, jar, folder, report) for jar in missing]
        try:
            for fetch in as_completed(fetches):
                fetch.result()
                report.jar_done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(jar: Jar, folder: Path, report: Report) -> None:
    """One jar into the folder, whole and checked or not at all."""
    for left in reversed(range(TRIES)):
        with tempfile.TemporaryDirectory(prefix="fetch-", suffix=".part", dir=folder) as staging:
            try:
                path = _download(maven(Path(staging), report), jar.coordinate)
            except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors; jgo's own is the other
                if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if left:
                    continue
                raise OperatorError(
                    f"could not fetch {jar.file}, a part of Apache Kafka {KAFKA_VERSION}: {exc}. Check the"
                    f" network (needed this once) or the mirror in jgo's config file, {OWN_BROKER}."
                ) from exc
            check(jar, path)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            os.utime(path, (0, 0))  # the JVM's start-up archive remembers its jars' times
            path.replace(folder / jar.file)
            return


def _download(context: MavenContext, coordinate: str) -> Path:
    group, artifact, version = coordinate.split(":")
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def relock(path: Path = LOCK_FILE, say: Callable[[str], object] = sys.stdout.write) -> None:
    """Resolve ROOTS from nothing and write what comes as the new truth: read the difference before you
    commit it."""
    with tempfile.TemporaryDirectory() as fresh:
        context = maven(Path(fresh))
        inputs, rest = context.resolver.resolve([context.create_dependency(root) for root in ROOTS])
        jars = []
        for dependency in (*inputs, *rest):
            file: Path = dependency.artifact.resolve()
            coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            jars.append(Jar(coordinate, file.name, digest, file.stat().st_size)._asdict())
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"kafka": KAFKA_VERSION, "jars": jars}, indent=1) + "\n", "utf-8")
    part.replace(path)
    say(f"{path}: {len(jars)} jars, {sum(jar['size'] for jar in jars) / 1e6:.1f} MB\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m selfheal.kafka_jars", description=__doc__)
    parser.add_argument("--relock", action="store_true", help="resolve anew and rewrite the lock file")
    if parser.parse_args().relock:
        relock()
    else:
        sys.stdout.write(f"{len(ensure_jars())} jars checked in {cache_dir()}\n")
