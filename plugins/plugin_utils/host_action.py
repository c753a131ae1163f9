# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins that talk to a worker host share: the exchange through Ansible's connection, and its failures."""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action import ActionBase

from ansible_collections.coasters.pool.plugins.module_utils import state
from ansible_collections.coasters.pool.plugins.module_utils.text import printable

from . import causes, exchange, host_keys

CROWD_LIMIT = 10.0
"""Seconds in which a login that is dropped is tried again."""
CROWD_PAUSE = 1.0
"""Seconds between such tries, at most."""
MAX_MEMORY = 32 * 1048576
"""Bytes that a host's answer may make this process take; Ansible keeps all of it."""


Result = TypeVar("Result")


class HostFailure(Exception):
    """The host said why it cannot do what was asked; ``cause`` is the class of it."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class HostAction(ActionBase):  # type: ignore[misc]
    """A subclass has SPEC (its arguments) and work()."""

    TRANSFERS_FILES = False
    SPEC: Mapping[str, Any] = {}
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result; a host that cannot be reached, or cannot do it, gives a ``cause`` and a sentence."""
        del tmp
        result: dict[str, Any] = super().run(None, task_vars)
        dummy, wanted = self.validate_argument_spec(argument_spec=dict(self.SPEC))
        try:
            if self._connection.transport == "ssh":
                self._separate_connection()
                self._check_connection()
            return {**result, **self.work(wanted, (task_vars or {}).get("inventory_hostname", ""))}
        except HostFailure as failure:
            return dict(result, failed=True, cause=failure.cause, msg=str(failure))
        except (exchange.ExchangeError, state.StateError) as error:
            raise AnsibleActionFail(str(error)) from error
        except AnsibleConnectionFailure as error:
            cause = causes.of(str(error))
            return dict(result, unreachable=True, cause=cause.name, msg=cause.sentence)

    def work(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        """What is to be done with the validated arguments on the inventory's ``host``; its part of the result."""
        raise NotImplementedError

    @cached_property
    def ssh_words(self) -> list[str]:
        """The ssh command as Ansible would run it, without the host. Raises AnsibleConnectionFailure."""
        return [to_text(word) for word in self._connection._build_command(self._connection.get_option("ssh_executable"), "ssh")]

    def _separate_connection(self) -> None:
        """Ansible lets hosts share one ssh connection that have the same address, port and user, also where jump hosts make
        different machines of them; its ``ssh_common_args`` are where it wants those to be named."""
        common = self._connection.get_option("ssh_common_args")
        if common and not self._connection.get_option("control_path"):
            way = [self._connection.get_option(name) for name in ("host", "port", "remote_user")] + [common]
            self._connection.set_option("control_path", f"%(directory)s/{hashlib.sha256(repr(way).encode()).hexdigest()[:10]}")

    def _check_connection(self) -> None:
        """Raises ExchangeError when ssh would not do what it looks like."""
        if str(self._connection.get_option("host")).startswith("-"):
            raise exchange.ExchangeError("the name of a host cannot start with '-', where ssh would take it for an option")
        host_keys.check(self.ssh_words)

    def exchange(self, verb: str, pool: str, settings: Mapping[str, str], program: bytes = b"") -> tuple[dict[str, str], list[str]]:
        """The values and the log lines of the host's answer.

        Raises HostFailure when it names an error, ExchangeError, StateError on a bad pool name, AnsibleConnectionFailure.
        """
        words, data = exchange.command(verb, state.check_name(pool)), exchange.standard_input(settings, program)
        # What runs on this machine itself would inherit the limit.
        with contextlib.nullcontext() if self._connection.transport == "local" else bounded_memory(MAX_MEMORY):
            done = self.connected(lambda: self._execute(words, data))
        try:
            values = exchange.answer(done["stdout"], verb)
        except exchange.ExchangeError as error:
            said = printable((done["stderr"].strip().splitlines() or [""])[-1])
            raise exchange.ExchangeError(str(error) + (f" (it said: {said})" if said else "")) from error
        if "error" in values:
            raise HostFailure(values.get("cause", "host"), values["error"])
        return values, exchange.log_lines(done["stdout"])

    def _execute(self, words: str, data: bytes) -> dict[str, Any]:
        done: dict[str, Any] = self._low_level_execute_command(words, in_data=data, sudoable=True)
        if done["rc"] == 255:
            raise AnsibleConnectionFailure(done["stderr"])
        return done

    @staticmethod
    def connected(attempt: Callable[[], Result]) -> Result:
        """The result of the attempt, which is made again when the login is dropped because too many come at once to the host,
        or to the one before it, and when ssh ended while Ansible wrote to it, which then does not tell why. Raises
        AnsibleConnectionFailure."""
        until = time.monotonic() + CROWD_LIMIT
        while True:
            try:
                return attempt()
            except AnsibleConnectionFailure as error:
                if causes.of(str(error)).name not in ("dropped", "unsaid") or time.monotonic() > until:
                    raise
            # By chance, so that those who were dropped together do not come back together.
            time.sleep(random.uniform(0.1, CROWD_PAUSE))


@contextlib.contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Let this process, which Ansible has forked for one task on one host, take so many bytes more and no others (Linux).

    Raises ExchangeError when that is not enough.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + size, before[1]))
    try:
        yield
    except MemoryError:
        raise exchange.ExchangeError("its answer is endless, or far too long: look at what its login files and its shell print") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
