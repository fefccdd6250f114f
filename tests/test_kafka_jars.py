"""The jars: pinned, whole or absent, and refused by name. No network is used here."""

from __future__ import annotations

import errno
import hashlib
import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from selfheal import kafka_jars
from selfheal.broker_config import Ports, properties
from selfheal.kafka_jars import Jar, ensure_jars, read_lock
from shared.errors import OperatorError

CONTENT = {"a-1.jar": b"first" * 100, "b-2.jar": b"second" * 100}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, a lock of two small jars, and a registry that delivers CONTENT."""
    monkeypatch.setenv("SELFHEAL_CACHE_DIR", str(tmp_path))
    jars = [Jar("g:x:1", name, hashlib.sha256(c).hexdigest(), len(c)) for name, c in CONTENT.items()]
    jars = [jar._replace(coordinate=f"g:{jar.file[0]}:{jar.file[2]}") for jar in jars]
    monkeypatch.setattr(kafka_jars, "read_lock", lambda: jars)
    serve(monkeypatch, CONTENT)
    return tmp_path / f"kafka-{kafka_jars.KAFKA_VERSION}"


def serve(monkeypatch, content, fetched=None):
    def download(context, coordinate):
        _, artifact, version = coordinate.split(":")
        name = f"{artifact}-{version}.jar"
        if isinstance(content[name], Exception):
            raise content[name]
        if fetched is not None:
            fetched.append(name)
        path = context.repo_cache / name
        with context.resolver.progress_callback(name, len(content[name])) as add:
            path.write_bytes(content[name])
            add(len(content[name]))
        return path

    monkeypatch.setattr(kafka_jars, "_download", download)


def jars_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_the_first_use_fetches_every_jar_and_says_so(folder):
    shown = io.StringIO()
    paths = ensure_jars(Console(file=shown))
    assert paths == [folder / name for name in CONTENT]
    assert jars_in(folder) == CONTENT
    assert "2 jars" in shown.getvalue()


def test_the_second_use_fetches_nothing(folder, monkeypatch):
    ensure_jars()
    fetched: list[str] = []
    serve(monkeypatch, CONTENT, fetched)
    ensure_jars()
    assert fetched == []


@pytest.mark.parametrize("content", [b"secoNd" * 100, b"second" * 99, b""])
def test_a_jar_that_arrives_changed_is_refused_by_name_and_not_kept(folder, monkeypatch, content):
    serve(monkeypatch, CONTENT | {"b-2.jar": content})
    with pytest.raises(OperatorError, match=r"^b-2\.jar is not the jar pinned"):
        ensure_jars()
    assert "b-2.jar" not in jars_in(folder)
    assert not list(folder.glob("*.part"))


def test_a_jar_changed_in_the_cache_is_refused_by_name(folder):
    ensure_jars()
    (folder / "a-1.jar").write_bytes(b"First" + b"first" * 99)
    with pytest.raises(OperatorError, match=r"^a-1\.jar is not the jar pinned"):
        ensure_jars()


def test_without_a_network_the_way_out_is_said(folder, monkeypatch):
    serve(monkeypatch, CONTENT | {"a-1.jar": ConnectionError("no route")})
    with pytest.raises(OperatorError, match=r"could not fetch a-1\.jar.*no route.*KAFKA_BOOTSTRAP_SERVERS"):
        ensure_jars()


def test_a_hiccup_is_tried_again(folder, monkeypatch):
    serve(monkeypatch, CONTENT)
    good, left = kafka_jars._download, [2]

    def flaky(context, coordinate):
        if coordinate == "g:a:1" and left[0]:
            left[0] -= 1
            raise RuntimeError("not found")
        return good(context, coordinate)

    monkeypatch.setattr(kafka_jars, "_download", flaky)
    ensure_jars()
    assert jars_in(folder) == CONTENT


def test_a_full_disk_is_called_a_full_disk(folder, monkeypatch):
    serve(monkeypatch, CONTENT | {"a-1.jar": OSError(errno.ENOSPC, "No space left on device")})
    with pytest.raises(OperatorError, match=r"No space left.*SELFHEAL_CACHE_DIR"):
        ensure_jars()


def test_two_at_a_time_fetch_once(folder, monkeypatch):
    fetched: list[str] = []
    serve(monkeypatch, CONTENT, fetched)
    both = [threading.Thread(target=ensure_jars) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(fetched) == sorted(CONTENT)
    assert jars_in(folder) == CONTENT


def test_the_committed_lock_is_complete_and_names_no_host():
    jars = read_lock()
    assert {"kafka_2.13-4.3.1.jar", "kafka-clients-4.3.1.jar"} <= {jar.file for jar in jars}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
    assert len({jar.file for jar in jars}) == len(jars)
    assert "://" not in kafka_jars.LOCK_FILE.read_text("utf-8")


def test_settings_stay_on_loopback_and_extra_goes_first():
    lines = properties(1, [Ports(1, 2)], {"num.io.threads": "3", "log.retention.hours": "5"}).splitlines()
    assert "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2" in lines
    assert "offsets.topic.replication.factor=1" in lines
    assert "num.io.threads=3" in lines
    assert [line for line in lines if line.startswith("log.retention.hours")] == ["log.retention.hours=5"]


def test_three_nodes_survive_one():
    lines = properties(2, [Ports(1, 2), Ports(3, 4), Ports(5, 6)], {}).splitlines()
    assert "controller.quorum.voters=1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6" in lines
    assert {"default.replication.factor=3", "min.insync.replicas=2", "node.id=2"} <= set(lines)


def test_values_are_escaped_for_java():
    assert "ssl.x=a\\u000ab\\u005cc\\u00e9\\ud83d\\ude00\n" in properties(1, [Ports(1, 2)], {"ssl.x": "a\nb\\cé😀"})
