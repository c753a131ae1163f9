# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A distribution to run as the engine ``swift``: the one that COASTERS_SWIFT_BIN_DIR names, else one made of our own programs.

The made one has what makes Swift/K's hard to run: launchers that pass ``-Djava.endorsed.dirs`` and evaluate their words,
a ``java`` that refuses this option as Java 9 and later do, and that is not the process which was started.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle

VARIABLE = "COASTERS_SWIFT_BIN_DIR"

LAUNCHER = """\
#!/bin/sh
words=
for word do words="$words '$word'"; done
eval java -Dlog4j.configuration=log4j.properties -Djava.endorsed.dirs=/nowhere/lib/endorsed -classpath /nowhere/lib {program} $words
return_code=$?
exit $return_code
"""

JAVA = """\
#!/bin/sh
if [ "$1" = -version ]; then
  echo 'openjdk version "17.0.15" 2025-04-15' >&2
  exit 0
fi
for word do
  case $word in -Djava.endorsed.dirs=*)
    echo "$word is not supported. Endorsed standards and standalone APIs"
    echo "in modular form will be supported via the concept of upgradeable modules."
    echo "Error: Could not create the Java Virtual Machine."
    exit 1 ;;
  esac
done
shift 3
program=$1
shift
exec {programs}/"$program" "$@"
"""
"""Called as: java -Dlog4j… -classpath PATH PROGRAM WORDS…"""


class Distribution:
    """``bin_dir`` has the three programs, ``path`` the folders that belong in front of PATH to run them; ``real``: Swift/K itself."""

    def __init__(self, bin_dir: Path, path: list[Path], real: bool) -> None:
        self.bin_dir, self.path, self.real = bin_dir, path, real

    def env(self, env: dict[str, str]) -> dict[str, str]:
        """The environment with the Java that belongs to the programs."""
        return {**env, "PATH": os.pathsep.join([*map(str, self.path), env.get("PATH", os.defpath)])}


def given() -> Distribution | None:
    """The user's own distribution."""
    name = os.environ.get(VARIABLE)
    return Distribution(Path(name).resolve(), [], real=True) if name else None


def made(folder: Path) -> Distribution:
    """One of our own programs below ``folder``."""
    programs, bin_dir, java = folder / "programs", folder / "distribution" / "bin", folder / "java"
    for path in (bin_dir, java):
        path.mkdir(parents=True)
    bundle.programs(str(programs), sys.executable)
    for program in ("coaster-service", "cog-job-submit"):
        write_program(bin_dir / program, LAUNCHER.format(program=program))
    # One file, as Swift/K's is. Perl runs what the first line names.
    (bin_dir / "worker.pl").write_bytes(b"#!/usr/bin/env python3\n" + bundle.worker_archive())
    (bin_dir / "worker.pl").chmod(0o755)
    write_program(java / "java", JAVA.format(programs=shlex.quote(str(programs))))
    return Distribution(bin_dir, [java], real=False)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
