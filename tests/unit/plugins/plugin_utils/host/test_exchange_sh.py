# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""exchange.sh, run by real shells as on a host: every verb, and what can go wrong there."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.plugin_utils import exchange
from tests.unit.plugins.plugin_utils.host.account import WORKER, Account, stranger

CORES = str(len(os.sched_getaffinity(0)))


def test_start_reports_what_runs(account: Account) -> None:
    answer = account.start(environment={"SSH_CONNECTION": "10.1.2.3 5000 10.1.2.4 22"})
    [worker] = account.started()
    assert answer == {
        "changed": "yes", "pending": "", "interpreter": shutil.which("python3", path=account.environment["PATH"]),
        "urls": "http://127.0.0.1:1", "hostname": os.uname().nodename, "client": "10.1.2.3", "slots": "3",
        "running": str(account.pid("supervisor")), "end": "start",
    }
    assert worker["pid"] == account.pid("worker")
    folder = account.folder()
    assert worker["words"] == ["-c", "3", "-timelimit", "60", "http://127.0.0.1:1", f"@{folder}/block", f"{folder}/logs"]
    assert (folder / "block").read_text() == "secret\n"
    assert (folder / "worker").read_bytes() == WORKER


def test_the_same_again_changes_nothing(account: Account) -> None:
    first = account.start()
    again = account.start()
    assert again == first | {"changed": "no", "before": "builtin 3 http://127.0.0.1:1"}
    assert len(account.started()) == 1
    assert os.listdir(account.folder().parent) == ["default"]


def test_stop_leaves_nothing(account: Account) -> None:
    account.start()
    ran = {"before": "builtin 3 http://127.0.0.1:1"}
    assert account.exchange("stop", dry="yes") == {"changed": "yes", "end": "stop", **ran}
    assert account.alive(account.pid("worker"))
    assert account.exchange("stop") == {"changed": "yes", "end": "stop", **ran}
    assert account.processes() == []
    assert not (account.home / ".coasters").exists()
    assert account.exchange("stop") == {"changed": "no", "end": "stop"}


def test_stop_with_the_logs_kept(account: Account) -> None:
    account.start()
    assert account.exchange("stop", keep_logs="yes")["changed"] == "yes"
    assert account.processes() == []
    assert os.listdir(account.folder()) == ["logs"]
    assert "a line of the worker" in (account.folder() / "logs" / "worker.log").read_text()
    assert account.exchange("stop", keep_logs="yes", dry="yes")["changed"] == "no"
    assert account.exchange("stop", keep_logs="yes")["changed"] == "no"
    assert account.exchange("stop", dry="yes")["changed"] == "yes"
    assert account.exchange("stop")["changed"] == "yes"
    assert not (account.home / ".coasters").exists()


def test_status(account: Account) -> None:
    assert {name: account.exchange("status")[name] for name in ("slots", "running", "worker")} == {"slots": "", "running": "", "worker": ""}
    account.start()
    shown = account.exchange("status")
    assert (shown["slots"], shown["before"]) == ("3", "builtin 3 http://127.0.0.1:1")
    assert (shown["running"], shown["worker"]) == (str(account.pid("supervisor")), str(account.pid("worker")))
    assert not (account.home / "x").exists()


def test_log(account: Account) -> None:
    account.start()

    def shown(lines: str) -> list[str]:
        account.exchange("status", lines=lines)
        return exchange.log_lines(account.output)

    account.wait(lambda: shown("20") == ["a line of the worker"])
    os.kill(account.pid("supervisor"), signal.SIGTERM)
    account.wait(lambda: "ended: told to" in " ".join(shown("20")))
    assert len(shown("1")) == 1


def test_no_log(plain: Account) -> None:
    assert plain.exchange("status", lines="1")["error"] == "this pool has no logs on this host"


def test_check_changes_nothing(account: Account) -> None:
    answer = account.start(verb="check")
    assert (answer["changed"], answer["running"], answer["slots"]) == ("yes", "", "3")
    assert os.listdir(account.home) == []
    account.start()
    answer = account.start(verb="check")
    assert (answer["changed"], answer["running"]) == ("no", str(account.pid("supervisor")))
    answer = account.start(verb="check", urls="http://127.0.0.1:2")
    assert answer["changed"] == "yes"
    assert account.start(verb="check", block="another", replace="yes")["changed"] == "yes"
    assert account.start(verb="check", block="")["changed"] == "no", "a check need not know the id"
    assert len(account.started()) == 1


@pytest.mark.parametrize("changed", [{"urls": "http://127.0.0.1:2"}, {"block": "another", "replace": "yes"}])
def test_a_worker_for_another_service_is_replaced(plain: Account, changed: dict[str, Any]) -> None:
    plain.start()
    first = plain.started()[0]
    assert plain.start(**changed)["changed"] == "yes"
    assert not plain.alive(first["pid"])
    assert not plain.alive(first["job"])
    assert plain.start(**changed)["changed"] == "no"


def test_a_worker_with_another_id_is_told_of_first(account: Account) -> None:
    """It may be of the same pool, on a machine with two names."""
    account.start()
    for verb in ("check", "start"):
        assert account.start(verb=verb, block="another") == {"other": "secret", "end": verb}
    assert account.alive(account.started()[0]["pid"])
    assert os.listdir(account.folder().parent) == ["default"]


OTHER = WORKER + b"# another version\n"


@pytest.mark.parametrize(
    ("changed", "pending"), [({"slots": "5"}, "slots"), ({"program": OTHER}, "version"), ({"slots": "1", "program": OTHER}, "slots version")]
)
def test_a_busy_worker_is_not_disturbed_unasked(plain: Account, changed: dict[str, Any], pending: str) -> None:
    plain.start()
    answer = plain.start(**changed)
    assert (answer["changed"], answer["pending"].split(), answer["slots"]) == ("no", pending.split(), "3")
    assert plain.alive(plain.started()[0]["pid"])
    answer = plain.start(restart="yes", **changed)
    assert (answer["changed"], answer["pending"]) == ("yes", "")
    plain.wait(lambda: len(plain.started()) == 2)
    assert not plain.alive(plain.started()[0]["job"])
    assert plain.start(restart="yes", **changed)["changed"] == "no"


def test_slots_are_the_usable_cores(plain: Account) -> None:
    assert plain.start(slots="")["slots"] == CORES
    assert plain.start(slots="")["changed"] == "no"


def test_slots_know_affinity(plain: Account) -> None:
    one = min(os.sched_getaffinity(0))
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {one})
    try:
        assert plain.start(verb="check", slots="")["slots"] == "1"
    finally:
        os.sched_setaffinity(0, kept)


@pytest.mark.parametrize(("seen", "url"), [("10.1.2.3", "http://10.1.2.3:4051"), ("fe80::1", "http://[fe80::1]:4051"), ("", "http://127.0.0.1:4051")])
def test_the_clients_address_is_what_the_host_sees(plain: Account, seen: str, url: str) -> None:
    answer = plain.start(verb="check", urls="http://@:4051", environment={"SSH_CONNECTION": f"{seen} 1 10.0.0.1 22" if seen else ""})
    assert answer["urls"] == url


def test_the_clients_address_where_sudo_hides_it(plain: Account) -> None:
    words = shlex.quote(exchange.command("check", "default"))
    data = exchange.standard_input(plain.settings | {"urls": "http://@:4051"}, b"#")
    done = subprocess.run(
        ["/bin/sh", "-c", f"env -u SSH_CONNECTION /bin/sh -c {words}; :"], input=data, capture_output=True, cwd=plain.home, check=False,
        env=plain.environment | {"SSH_CONNECTION": "10.1.2.3 1 10.0.0.1 22"},
    )
    assert exchange.answer(done.stdout.decode(), "check")["urls"] == "http://10.1.2.3:4051"


def test_two_pools_side_by_side(account: Account) -> None:
    account.start("one")
    account.start("one.2", slots="5", block="other")
    first, second = account.started()
    assert account.exchange("stop", "one")["changed"] == "yes"
    assert not account.folder("one").exists()
    assert [account.alive(first[name]) for name in ("pid", "job")] == [False, False]
    assert [account.alive(second[name]) for name in ("pid", "job")] == [True, True]
    assert account.exchange("status", "one.2")["slots"] == "5"


def test_a_killed_supervisor_then_stop(account: Account) -> None:
    account.start()
    os.kill(account.pid("supervisor"), signal.SIGKILL)
    account.wait(lambda: not account.alive(account.pid("supervisor")))
    worker = account.started()[0]
    assert account.alive(worker["pid"])
    assert account.exchange("status")["running"] == ""
    assert account.exchange("stop")["changed"] == "yes"
    assert account.processes() == []
    assert not (account.home / ".coasters").exists()


def test_a_killed_supervisor_then_start(account: Account) -> None:
    account.start()
    os.kill(account.pid("supervisor"), signal.SIGKILL)
    account.wait(lambda: not account.alive(account.pid("supervisor")))
    assert account.start()["changed"] == "yes"
    first, second = account.started()
    assert [account.alive(first[name]) for name in ("pid", "job")] == [False, False]
    assert account.alive(second["pid"])


def test_after_a_reboot(plain: Account) -> None:
    plain.start()
    plain.clear()
    assert plain.exchange("status")["running"] == ""
    assert plain.start()["changed"] == "yes"
    assert plain.alive(plain.pid("worker"))


def test_a_stranger_with_the_old_process_id_is_left_alone(plain: Account) -> None:
    with stranger(dict(os.environ)) as other:
        for verb in ("start", "stop"):
            plain.start()
            plain.clear()
            for name in ("supervisor", "worker"):
                (plain.folder() / f"{name}.pid").write_text(f"{other.pid}\n")
            assert (plain.start() if verb == "start" else plain.exchange("stop"))["changed"] == "yes"
            assert other.poll() is None


def test_orphans_of_a_worker_that_is_gone_are_swept(account: Account) -> None:
    account.start()
    worker = account.started()[0]
    for pid in (account.pid("supervisor"), worker["pid"]):
        os.kill(pid, signal.SIGKILL)
    assert account.alive(worker["job"])
    account.exchange("stop")
    assert account.processes() == []


def test_other_processes_of_the_user_live_on(account: Account) -> None:
    mark = {"COASTERS_MARK": "defaultX1"}
    with stranger(account.environment | mark) as bystander:
        account.start()
        account.exchange("stop")
        assert bystander.poll() is None


def test_no_python(plain: Account) -> None:
    tools = plain.bin
    for folder in ("/usr/bin", "/bin"):
        for tool in Path(folder).iterdir():
            if "python" not in tool.name and "platform" not in tool.name and not (tools / tool.name).is_symlink():
                (tools / tool.name).symlink_to(tool)
    answer = plain.start(environment={"PATH": str(tools)}, interpreter="/nowhere/python")
    assert answer == {
        "cause": "interpreter", "end": "start",
        "error": "there is no Python 3.6 or later on this host at /nowhere/python: install it or set swift_worker_interpreter",
    }
    assert os.listdir(plain.home) == []


def test_an_old_python_is_passed_over(plain: Account) -> None:
    old = plain.bin / "python3"
    old.write_text("#!/bin/sh\necho Python 2.7 >&2; exit 1\n")
    old.chmod(0o755)
    assert plain.start(verb="check")["interpreter"] not in ("", str(old))


def test_the_interpreter_that_is_named(plain: Account) -> None:
    mine = plain.home / "my python"
    mine.symlink_to(sys.executable)
    answer = plain.start(verb="check", interpreter=str(mine))
    assert Path(answer["interpreter"]).resolve() == Path(sys.executable).resolve()


def test_perl_for_swift(plain: Account) -> None:
    (plain.bin / "perl").symlink_to(sys.executable)
    answer = plain.start(verb="check", engine="swift")
    assert answer["interpreter"].endswith("perl") or answer["cause"] == "interpreter"


def test_no_perl(plain: Account) -> None:
    answer = plain.start(verb="check", engine="swift", interpreter="/nowhere/perl")
    assert (answer["cause"], answer["error"]) == ("interpreter", "there is no Perl on this host at /nowhere/perl: install it, or use the built-in engine")


def test_the_workers_words_for_swift(plain: Account) -> None:
    """worker.pl takes neither a time limit nor a file for the block id; here a Python stands in for Perl as the interpreter."""
    perl = plain.bin / "perl"
    perl.write_text(f'#!/bin/sh\n[ "$1" = -MSocket ] || exec {sys.executable} "$@"\n')
    perl.chmod(0o755)
    plain.start(engine="swift")
    assert plain.started()[0]["words"] == ["-c", "3", "http://127.0.0.1:1", "secret", str(plain.folder() / "logs")]


def test_a_transfer_that_is_cut_off(account: Account) -> None:
    answer = account.start(cut=100)
    assert (answer["cause"], answer["error"]) == ("transfer", "the worker's program arrived cut off: run the same command again")
    assert os.listdir(account.home) == []
    account.start()
    assert account.start(cut=100)["cause"] == "transfer"
    assert account.alive(account.pid("worker"))


def test_no_home(plain: Account) -> None:
    for home in ("", "/nowhere"):
        answer = plain.start(environment={"HOME": home})
        assert (answer["cause"], answer["error"]) == ("home", "the user has no home directory on this host: make one")


def test_a_home_where_nothing_can_be_made(account: Account) -> None:
    (account.home / ".coasters").touch()
    for dummy in range(2):
        answer = account.start()
        assert answer["cause"] == "disk"
        assert answer["error"] == f"the folder {account.home}/.coasters cannot be made: free space or mend its owner"


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system needs root")
class TestFullDisk:
    @pytest.fixture(autouse=True)
    def _small(self, plain: Account) -> None:
        (plain.home / ".coasters").mkdir()

    def mounted(self, plain: Account, **settings: str) -> dict[str, str]:
        """A start in a mount namespace of its own, where the folder has 64 KiB, full but for the first file."""
        base = plain.home / ".coasters"
        script = f'mount -t tmpfs -o size=64k tmpfs "{base}" && exec /bin/sh -c "$0"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, exchange.command("start", "default")],
            input=exchange.standard_input(plain.settings | settings, WORKER + b"#" * 100_000), capture_output=True, env=plain.environment,
            timeout=60, check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return exchange.answer(done.stdout.decode(), "start")

    def test_is_named_and_leaves_nothing(self, plain: Account) -> None:
        answer = self.mounted(plain)
        assert answer["cause"] == "disk"
        assert answer["error"].startswith(f"writing to {plain.home}/.coasters failed (")
        assert plain.processes() == []


def test_the_folder_is_for_the_user_alone(account: Account) -> None:
    account.start()
    for path in (account.home / ".coasters", account.folder(), account.folder() / "block", account.folder() / "settings"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_secrets_are_in_no_command_line(plain: Account) -> None:
    plain.start(block="the-secret-id")
    for pid in plain.processes():
        assert b"the-secret-id" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_jobs_get_the_users_own_environment(account: Account) -> None:
    """Not the one that suits the scripts: neither their locale nor their umask."""
    before = os.umask(0o027)
    try:
        account.start(environment={"LANG": "POSIX", "LC_ALL": "C.UTF-8"})
        account.exchange("stop")
        account.start()
    finally:
        os.umask(before)
    first, second = account.started()
    assert first["umask"] == "0o27"
    assert (first["environment"]["LANG"], first["environment"]["LC_ALL"]) == ("POSIX", "C.UTF-8")
    assert "LC_ALL" not in second["environment"]


def test_login_files_may_talk(plain: Account) -> None:
    plain.environment["ENV"] = plain.environment["BASH_ENV"] = str(plain.home / "profile")
    (plain.home / "profile").write_text("echo Welcome\n")
    assert plain.start()["changed"] == "yes"


def test_an_exchange_that_hangs_up_leaves_nothing(plain: Account) -> None:
    """The client goes away in the middle of the transfer."""
    with subprocess.Popen(["/bin/sh", "-c", exchange.command("start", "default")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=plain.environment, start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(exchange.standard_input(plain.settings, WORKER)[:-100])
        process.stdin.flush()
        plain.wait(lambda: list((plain.home / ".coasters").glob(".new:*/worker")) if (plain.home / ".coasters").exists() else None)
        process.stdout.close()
        os.killpg(process.pid, signal.SIGHUP)
    plain.wait(lambda: not plain.processes())
    assert os.listdir(plain.home) == []


def test_an_unknown_verb_does_nothing(plain: Account) -> None:
    assert plain.exchange("explode") == {"end": "explode"}
    assert os.listdir(plain.home) == []


def test_start_does_not_wait_for_the_worker(plain: Account) -> None:
    """The exchange's output is closed when it ends, so that ssh does not wait for the supervisor."""
    began = time.monotonic()
    plain.start()
    assert time.monotonic() - began < 30
