# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Swift/K distribution as the engine of a pool: finding it, checking it, and running it on the Java of this machine.

Its launchers pass ``-Djava.endorsed.dirs`` to Java, which Java 9 and later refuse (coaster-protocol 7.2). The
distribution is left as it is: the pool's folder gets a small ``java`` that drops the option, and launchers that put it
in front of PATH.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess

from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional

PROGRAMS = ("coaster-service", "cog-job-submit", "worker.pl")
OLDEST_JAVA = 8
JAVA_LIMIT = 20.0
"""Seconds that Java may take to say its version."""
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_PERL = re.compile(rb"#!.*\bperl\b")


class SwiftError(Exception):
    """Swift/K cannot run here; the text says why and what to do."""


class Java:
    """A Java runtime: the ``path`` of its program and its ``version`` (8, 11, 17, …)."""

    def __init__(self, path: str, version: int) -> None:
        self.path, self.version = path, version


def in_path() -> "Optional[str]":
    """The bin directory of the Swift/K whose ``coaster-service`` is in PATH, None when there is none.

    The built-in engine's programs have the same names; only Swift/K's ``worker.pl`` is Perl.
    """
    found = shutil.which("coaster-service")
    if found is None:
        return None
    bin_dir = os.path.dirname(os.path.realpath(found))
    try:
        with open(os.path.join(bin_dir, "worker.pl"), "rb") as file:
            return bin_dir if _PERL.match(file.readline()) else None
    except OSError:
        return None


def check(bin_dir: "Optional[str]") -> str:
    """The bin directory, when it has the three programs. Raises SwiftError."""
    if not bin_dir:
        raise SwiftError("the engine 'swift' needs the bin directory of a Swift/K distribution, and PATH has no coaster-service of one")
    for program in PROGRAMS:
        path = os.path.join(bin_dir, program)
        if not os.path.isfile(path):
            inner = os.path.join(bin_dir, "bin")
            there = inner if os.path.isfile(os.path.join(inner, program)) else "the bin directory of a Swift/K distribution"
            raise SwiftError("%s has no %s: name %s" % (bin_dir, program, there))
        if not os.access(path, os.R_OK if program == "worker.pl" else os.R_OK | os.X_OK):
            raise SwiftError("%s may not be run by this user: mend its mode" % path)
    return bin_dir


def find_java() -> Java:
    """The ``java`` in PATH, as Swift/K's launchers take it, else the one in JAVA_HOME. Raises SwiftError."""
    help_ = "install a Java runtime and put it in PATH, or use the built-in engine"
    path = shutil.which("java") or shutil.which("java", path=os.path.join(os.environ.get("JAVA_HOME") or "/nowhere", "bin"))
    if path is None:
        raise SwiftError("there is no Java on this machine, and Swift/K needs Java %d or later: %s" % (OLDEST_JAVA, help_))
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function  # the wrapper asks it too
            [path, "-version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=JAVA_LIMIT, check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SwiftError("%s does not run (%s): %s" % (path, error, help_)) from error
    said = done.stdout.decode("utf-8", "replace").strip()
    version = _VERSION.search(said)
    if done.returncode or version is None:
        raise SwiftError("%s does not run (it said: %s): %s" % (path, said.splitlines()[0] if said else "nothing", help_))
    if int(version.group(1)) < OLDEST_JAVA:
        raise SwiftError("%s is Java %s, and Swift/K needs Java %d or later: %s" % (path, version.group(1), OLDEST_JAVA, help_))
    return Java(os.path.abspath(path), int(version.group(1)))


def open_ports(ports: "Dict[str, int]") -> str:
    """What is said when a pool runs on Swift/K (coaster-protocol 7.3); ``ports`` as far as they are known, else 0."""
    known = ", ".join(str(port) for port in ports.values() if port)
    return (
        "Swift/K listens on every interface without authentication: whoever reaches its ports on this machine%s can run commands "
        "on the workers and read and write your files here, so let a firewall drop what comes from outside (workers that use "
        "tunnels, the default, need no open port), or use the built-in engine" % (" (%s)" % known if known else "")
    )


def furnish(folder: str, bin_dir: str, java: Java) -> str:
    """Make the three programs in the pool's ``folder``; returns their directory.

    ``bin/coaster-service`` and ``bin/cog-job-submit`` run those of ``bin_dir`` with ``java-shim/java``, ``bin/worker.pl``
    is a link. Raises state.StateError.
    """
    shim, programs = os.path.join(folder, "java-shim"), os.path.join(folder, "bin")
    for path in (shim, programs):
        state.make_folder(path)
    _write_program(os.path.join(shim, "java"), _shim(java))
    for program in PROGRAMS[:2]:
        launcher = "#!/bin/sh\nPATH=%s:$PATH\nexport PATH\nexec %s \"$@\"\n" % (
            shlex.quote(shim), shlex.quote(os.path.join(os.path.abspath(bin_dir), program)))
        _write_program(os.path.join(programs, program), launcher)
    worker = os.path.join(programs, PROGRAMS[2])
    if os.path.lexists(worker):
        os.unlink(worker)
    os.symlink(os.path.join(os.path.abspath(bin_dir), PROGRAMS[2]), worker)
    return programs


def _shim(java: Java) -> str:
    drop = ""
    if java.version > 8:
        drop = (
            "for word do\n"
            "  shift\n"
            "  case $word in -Djava.endorsed.dirs=*) ;; *) set -- \"$@\" \"$word\" ;; esac\n"
            "done\n"
        )
    return "#!/bin/sh\n%sexec %s \"$@\"\n" % (drop, shlex.quote(java.path))


def _write_program(path: str, text: str) -> None:
    state.write(path, text.encode("utf-8", "surrogateescape"), stat.S_IRWXU)
