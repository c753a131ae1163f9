# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""supervisor.sh, run by real shells: what it does when its worker, its service or itself goes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time

import pytest

from tests.unit.plugins.plugin_utils.host.account import WORKER, Account


def log(account: Account) -> str:
    return (account.folder() / "logs" / "supervisor.log").read_text()


def perl(account: Account) -> None:
    """Give the account a Perl that runs Python programs, and a supervisor that looks after its connection ten times as often."""
    for name, text in (("perl", '[ "$1" = -MSocket ] || exec python3 "$@"'), ("sleep", '[ "$1" != 5 ] || set -- 0.5\nexec /bin/sleep "$@"')):
        (account.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (account.bin / name).chmod(0o755)


def gone(account: Account) -> bool:
    return not account.processes() and not (account.folder() / "supervisor.pid").exists() and not (account.folder() / "worker.pid").exists()


def test_a_killed_worker_is_started_again_without_its_jobs(account: Account) -> None:
    account.start()
    first = account.started()[0]
    os.kill(first["pid"], signal.SIGKILL)
    account.wait(lambda: len(account.started()) == 2)
    second = account.started()[1]
    account.wait(lambda: not account.alive(first["job"]))
    assert [account.alive(second[name]) for name in ("pid", "job")] == [True, True]
    assert second["words"] == first["words"]
    assert account.pid("worker") == second["pid"]
    assert account.start()["changed"] == "no"
    assert "the worker ended with status 137; starting it again in 0 s" in log(account)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all(account: Account, number: signal.Signals) -> None:
    account.start()
    os.kill(account.pid("supervisor"), number)
    account.wait(lambda: gone(account))
    assert "ended: told to" in log(account)


def test_a_worker_that_does_not_end_is_killed(plain: Account) -> None:
    plain.start(program=b"import signal\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n" + WORKER)
    plain.wait(plain.started)
    os.kill(plain.pid("supervisor"), signal.SIGTERM)
    plain.wait(lambda: gone(plain))


def test_a_worker_that_its_service_sent_home_is_not_started_again(account: Account) -> None:
    (account.home / "behaviour").write_text("0")
    account.start(program=WORKER)
    account.wait(lambda: gone(account))
    assert len(account.started()) == 1
    assert "ended: the service sent the worker home" in log(account)


@pytest.mark.parametrize("errno", [22, 99, 110, 111, 113])
def test_a_builtin_worker_that_found_no_service_has_tried_long_enough(plain: Account, errno: int) -> None:
    (plain.home / "behaviour").write_text(str(errno))
    plain.start()
    plain.wait(lambda: gone(plain))
    assert len(plain.started()) == 1
    assert "ended: no service within the time limit" in log(plain)


@pytest.mark.parametrize(("engine", "status"), [("builtin", 1), ("builtin", 127), ("swift", 111)])
def test_a_worker_that_keeps_failing_is_given_up_after_the_limit(plain: Account, engine: str, status: int) -> None:
    (plain.home / "behaviour").write_text(str(status))
    perl(plain)
    plain.start(engine=engine, time_limit="4")
    plain.wait(lambda: gone(plain))
    assert 2 <= len(plain.started()) <= 4
    assert "ended: no service or no working worker for 2 s" in log(plain)
    assert f"the worker ended with status {status}; starting it again in 1 s" in log(plain)


CONNECTED = b'''\
import json, os, socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[3].rsplit(":", 1)[1])))
with open(os.environ["HOME"] + "/started", "a") as file:
    file.write(json.dumps({"pid": os.getpid()}) + "\\n")
time.sleep(1000)
'''


def test_a_swift_worker_that_overlooks_the_end_of_its_service_is_started_again(account: Account) -> None:
    perl(account)
    with socket.create_server(("127.0.0.1", 0)) as service:
        account.start(engine="swift", urls=f"http://127.0.0.1:{service.getsockname()[1]}", program=CONNECTED)
        connection, dummy = service.accept()
        time.sleep(2)  # until its connection has been seen
        connection.close()
        account.wait(lambda: len(account.started()) == 2)
        [first, second] = [said["pid"] for said in account.started()]
        assert [account.alive(first), account.alive(second)] == [False, True]
        assert "the service is gone: ending its worker" in log(account)
        os.kill(account.pid("supervisor"), signal.SIGTERM)
        account.wait(lambda: gone(account))


def test_a_swift_worker_that_stays_connected_is_left_alone(plain: Account) -> None:
    perl(plain)
    with socket.create_server(("127.0.0.1", 0)) as service:
        plain.start(engine="swift", urls=f"http://127.0.0.1:{service.getsockname()[1]}", program=CONNECTED)
        connection, dummy = service.accept()
        time.sleep(3)
        assert len(plain.started()) == 1 and plain.alive(plain.started()[0]["pid"])
        connection.close()


def test_a_signal_during_the_pause_ends_it_at_once(account: Account) -> None:
    (account.home / "behaviour").write_text("1")
    account.start()
    account.wait(lambda: "starting it again in 3 s" in log(account))
    os.kill(account.pid("supervisor"), signal.SIGTERM)
    account.wait(lambda: gone(account))


def test_after_it_has_ended_by_itself_the_same_command_starts_anew(plain: Account) -> None:
    (plain.home / "behaviour").write_text("0")
    plain.start()
    plain.wait(lambda: gone(plain))
    (plain.home / "behaviour").unlink()
    assert plain.start()["changed"] == "yes"
    assert plain.exchange("stop")["changed"] == "yes"
    assert os.listdir(plain.home) == ["started"]


def test_a_supervisor_without_its_folder_ends(plain: Account) -> None:
    """A stop may come while a start that was cut off still runs on the host."""
    plain.start()
    worker = plain.started()[0]
    shutil.rmtree(plain.folder())
    os.kill(worker["pid"], signal.SIGKILL)
    plain.wait(lambda: not plain.processes())
    assert len(plain.started()) == 1
