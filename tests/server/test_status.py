"""`pingmon status`, `pingmon doctor` and `pingmon backup --keep`: what whoever looks after a server is told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pingmon.cli import doctor, main
from pingmon.cli.asking import ask
from pingmon.cli.pki_authority import create_authority, issue_leaf
from pingmon.config import Config, load
from pingmon.services.bundle import open_services
from pingmon.store.last_backup import NAME, LastBackup, known, note
from tests.support.processes import Server, free_port, make_pki, running_server, write_server

DAY_S = 86_400


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """All a server has, but it does not run."""
    server = Server(tmp_path, free_port())
    make_pki(tmp_path)
    write_server(server, interval_s=1, mesh=False)
    open_services(load(server.config)).close()
    return server


@pytest.fixture
def config(server: Server) -> Config:
    return load(server.config)


def told(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code and what is said."""
    capsys.readouterr()
    code = main.run([*words, "--config", str(server.config)])
    said = capsys.readouterr()
    return code, said.out, said.err


def status(server: Server, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code, out, _ = told(server, capsys, "status", "--output", "json")
    return code, json.loads(out)


def mends(config_file: Path) -> list[str]:
    return [finding.line() for finding in doctor.findings(config_file) if finding.mend]


@pytest.mark.e2e
def test_a_server_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ready, by the answer of the server itself; a backup is known from then on; nothing is to be mended."""
    with running_server(tmp_path / "server") as server:
        server.admin("targets", "add", "lo", "127.0.0.1")
        (tmp_path / "backups").mkdir()
        server.admin("backup", str(tmp_path / "backups"))

        code, found = status(server, capsys)
        assert (code, found["ready"], found["why"], found["url"]) == (0, True, None, server.url)
        assert (found["version"], found["connected_agents"]) == (found["installed_version"], 0)
        assert (found["agents"], found["targets"], found["series"]) == ({"approved": 0}, 1, 0)
        assert found["databases"]["pingmon.db"] > 4096
        assert (found["certificate"]["days_left"], found["last_backup"]["age_s"] < 60) == (89, True)

        code, out, _ = told(server, capsys, "status")
        assert code == 0
        assert "ready        yes\n" in out
        code, out, _ = told(server, capsys, "doctor")
        assert (code, "MEND" in out) == (0, False)
        assert f"ok    the server is ready at 127.0.0.1 port {server.port}\n" in out

        shutil.move(tmp_path / "server/data/samples.db", tmp_path / "away")
        assert ask(load(server.config)).why == "the sample database cannot be read: unable to open database file"
        shutil.move(tmp_path / "away", tmp_path / "server/data/samples.db")

        create_authority(tmp_path / "other", "other")
        issue_leaf(tmp_path / "other", "x", [], out_cert=tmp_path / "x.pem", out_key=tmp_path / "x.key")
        os.replace(tmp_path / "x.pem", tmp_path / "server/server.pem")  # noqa: PTH105
        why = ask(load(server.config)).why or ""
        assert f"does not show {tmp_path}/server/server.pem: another program, or a new certificate" in why


def test_a_server_that_does_not_run(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and the reason; the rest is told all the same. To the doctor that is no fault."""
    code, found = status(server, capsys)

    assert (code, found["ready"]) == (1, False)
    assert found["why"] == (
        f"nothing listens at 127.0.0.1 port {server.port}; start it with `systemctl start pingmon-server`"
    )
    assert (found["agents"], found["last_backup"]) == ({"approved": 0}, None)
    code, out, _ = told(server, capsys, "doctor")
    assert code == 0
    assert f"ok    no server runs, and 127.0.0.1 port {server.port} is free\n" in out


@pytest.fixture
def stranger(server: Server) -> Iterator[None]:
    """Another TLS server at the same port, that says it is ready."""
    create_authority(server.directory / "other", "other")
    pair = {"out_cert": server.directory / "x.pem", "out_key": server.directory / "x.key"}
    issue_leaf(server.directory / "other", "localhost", [], **pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair["out_cert"], pair["out_key"])
    with socket.create_server(("127.0.0.1", server.port)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, context))
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _answer(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, suppress(OSError), context.wrap_socket(peer, server_side=True) as tls:
            tls.recv(1000)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.usefixtures("stranger")
def test_another_program_at_its_port_is_not_believed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever answers without our certificate is not our server, whatever it says."""
    code, found = status(server, capsys)

    assert (code, found["ready"]) == (1, False)
    assert "does not show" in found["why"]
    assert mends(server.config) == [f"MEND  the server is not ready: {found['why']}"]


def expired(server: Server) -> None:
    (server.directory / "server.pem").unlink()


def other_key(server: Server) -> None:
    (server.directory / "ca/ca.key").replace(server.directory / "server.key")


def wrong_order(server: Server) -> None:
    chain = (server.directory / "server.pem").read_text()
    create_authority(server.directory / "other", "other")
    (server.directory / "server.pem").write_text(chain + (server.directory / "other/ca.pem").read_text())


def other_name(server: Server) -> None:
    text = server.config.read_text()
    server.config.write_text(text.replace(f'public_url = "{server.url}"', 'public_url = "https://monitor.example.net"'))


def open_directory(server: Server) -> None:
    (server.directory / "data").chmod(0o750)


def open_secret(server: Server) -> None:
    (server.directory / "data/pepper").chmod(0o644)


def broken_database(server: Server) -> None:
    (server.directory / "data/samples.db").write_bytes(b"garbage" * 1000)


def no_backup(server: Server) -> None:
    os.utime(server.directory / "data/identity.key", times=(time.time() - 3 * DAY_S,) * 2)


def old_backup(server: Server) -> None:
    note(server.directory / "data", LastBackup(round((time.time() - 3 * DAY_S) * 1000), "/x.tar", 1))


def bad_setting(server: Server) -> None:
    server.config.write_text("[server]\nprot = 1\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (expired, "MEND  certificate: certificate {home}/server.pem does not exist; make one with"),
        (other_key, "MEND  certificate: certificate {home}/server.pem does not belong to key {home}/server.key;"),
        (wrong_order, "MEND  certificate {home}/server.pem: number 1 in it was not issued by the next; put the leaf"),
        (other_name, "MEND  certificate {home}/server.pem: it is for localhost, 127.0.0.1, ::1, not for monitor.exa"),
        (open_directory, "MEND  data directory {home}/data, for its user only: others may read: `chmod go= {home}/d"),
        (
            open_secret,
            "MEND  data directory {home}/data, for its user only: others may read: `chmod go= {home}/data/",
        ),
        (broken_database, "MEND  samples.db: it cannot be read (file is not a database); `pingmon db check`, then"),
        (no_backup, "MEND  no backup yet: make one with `pingmon backup DIR`, daily"),
        (old_backup, "MEND  last backup 3 d ago, /x.tar: make one with `pingmon backup DIR`, daily"),
        (bad_setting, "MEND  configuration: server.prot is not a setting"),
    ],
)
def test_each_fault_has_its_mend(
    server: Server, capsys: pytest.CaptureFixture[str], spoil: Callable[[Server], None], sentence: str
) -> None:
    """One line for it, exit code 1, and nothing else is found fault with."""
    assert mends(server.config) == []
    spoil(server)

    code, out, _ = told(server, capsys, "doctor")

    [line] = [line for line in out.splitlines() if line.startswith("MEND")]
    assert (code, line[: len(sentence.format(home=server.directory))]) == (1, sentence.format(home=server.directory))


def test_a_certificate_that_ends_soon_and_a_full_disk(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both before they hurt."""
    later = time.time() + 77 * DAY_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert [f.line() for f in doctor.certificate(config) if f.mend] == [
        f"MEND  certificate {config.tls.certificate}, 12 days left: "
        "renew it: `pingmon pki issue`, or whoever issued it; no restart is needed"
    ]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 2**29))
    lines = [f.line() for f in doctor.directory(config) if f.mend]
    assert lines[0] == (
        "MEND  0.5 GiB are free on its disk: make room: on a full disk nothing is stored, and nothing acknowledged"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_leaves_the_databases_alone(config: Config) -> None:
    """Opened by the wrong user they would be left with files the server may not touch; so it says who to be."""
    os.chown(config.data_dir, 65534, 65534)
    before = sorted(path.name for path in config.data_dir.iterdir())

    [finding] = doctor.directory(config)

    assert "run this as nobody (`runuser -u nobody -- ...`)" in finding.mend
    assert sorted(path.name for path in config.data_dir.iterdir()) == before


@pytest.mark.parametrize(
    ("host", "covered"),
    [("a.example.net", True), ("example.net", False), ("b.a.example.net", False), ("192.0.2.1", True)],
)
def test_names_of_a_certificate(host: str, covered: bool) -> None:
    """A star stands for one label."""
    assert doctor.tls_covers(("*.example.net", "192.0.2.1"), host) is covered


# -- backup --keep --


def test_only_the_newest_backups_are_kept(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a backup that succeeded, and only files that are named like one."""
    place = tmp_path / "backups"
    place.mkdir()
    old = [place / f"pingmon-2020010{day}T000000Z.tar" for day in range(1, 5)]
    others = [place / name for name in ("pingmon-20200101T000000Z.tar.gpg", "pingmon-mine.tar", "x.tar")]
    for path in old + others:
        path.write_text("old")
    (place / "pingmon-20190101T000000Z.tar").symlink_to(others[0])
    (place / "pingmon-20180101T000000Z.tar").mkdir()

    code, out, _ = told(server, capsys, "backup", str(place), "--keep", "2")

    made, *removed = out.splitlines()
    assert (code, [line.split()[0] for line in removed]) == (0, [str(path) for path in old[:3]])
    left = sorted(path.name for path in place.iterdir())
    assert len(left) == 1 + 1 + len(others) + 2
    assert {old[3].name, Path(made.split()[0]).name, "pingmon-20190101T000000Z.tar"} <= set(left)


def test_a_backup_that_fails_removes_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old ones are all there is then."""
    place = tmp_path / "backups"
    place.mkdir()
    old = [place / f"pingmon-2020010{day}T000000Z.tar" for day in (1, 2)]
    for path in old:
        path.write_text("old")
    (server.directory / "data/samples.db").unlink()

    code, _, err = told(server, capsys, "backup", str(place), "--keep", "1")

    assert (code, err[:30]) == (1, "pingmon: there is no samples.d")
    assert sorted(place.iterdir()) == old
    assert known(server.directory / "data") is None


@pytest.mark.parametrize("words", [("--keep", "0"), ("--keep", "-1")])
def test_none_is_not_a_number_to_keep(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Nor can a single file be kept back."""
    assert told(server, capsys, "backup", str(tmp_path), *words)[0] == 2
    assert told(server, capsys, "backup", str(tmp_path / "one.tar"), "--keep", "1")[0] == 2
    assert not (tmp_path / "one.tar").exists()


def test_a_backup_without_a_note_is_one(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and the backup stands."""
    (server.directory / "data" / f".{NAME}").mkdir()

    code, out, err = told(server, capsys, "backup", str(tmp_path / "one.tar"))

    assert (code, Path(out.split()[0]).exists()) == (0, True)
    assert err.startswith("the backup is whole, but ")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"at_ms": "x"}'])
def test_a_note_that_nobody_wrote_is_none(tmp_path: Path, text: str) -> None:
    """Damaged, it says nothing."""
    (tmp_path / NAME).write_text(text)

    assert known(tmp_path) is None
