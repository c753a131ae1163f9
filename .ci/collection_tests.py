# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-test on a copy of this checkout: it wants a path that ends in ``ansible_collections/coasters/pool``.

Run as: python .ci/collection_tests.py sanity|units [OPTION …], with the Python of an environment that has ansible-core.
The copy, and a home folder that keeps ansible-test's own virtual environments, are in ``build/ansible-test``, for each environment apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "ansible-test" / Path(sys.prefix).name
HOME = PLACE / "home"
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def copy(target: Path) -> None:
    """Put what git tracks or would track below ``target``, which is emptied before."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # ansible-test asks the nearest git for its files, and this checkout's ignores build/.
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)


def prepare_home() -> None:
    """Give ansible-test the user's settings of pip, and a way to bring pip without a download from elsewhere."""
    for name in (".config/pip", ".pip"):
        mine, theirs = HOME / name, Path.home() / name
        if theirs.is_dir() and not mine.is_symlink():
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.symlink_to(theirs)
    from ansible_test._internal import python_requirements

    version = re.search(r"pip='([0-9.]+)'", Path(python_requirements.__file__).read_text())
    if version is None:
        raise SystemExit("This ansible-test names no version of pip: see get_venv_packages() in its python_requirements.py.")
    cached = HOME / ".ansible" / "test" / "cache" / f"get_pip_{version[1].replace('.', '_')}.py"
    cached.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / ".ci" / "get_pip.py", cached)


def search_path() -> str:
    """A PATH with this environment, and with every Python that works and no shims of Pythons that do not."""
    links = HOME / "bin"
    links.mkdir(parents=True, exist_ok=True)
    for version in PYTHONS:
        found = subprocess.run([ROOT / ".ci" / "find-python", version], capture_output=True, text=True, check=False).stdout.strip()
        link = links / f"python{version}"
        link.unlink(missing_ok=True)
        if found:
            link.symlink_to(found)
    return os.pathsep.join((str(Path(sys.executable).parent), str(links), "/usr/local/bin", "/usr/bin", "/bin"))


def main() -> int:
    """Run it; returns its exit status."""
    target = PLACE / "ansible_collections" / "coasters" / "pool"
    copy(target)
    prepare_home()
    environment = dict(os.environ, HOME=str(HOME), PATH=search_path(), LC_ALL="C.UTF-8")
    return subprocess.run([str(Path(sys.executable).parent / "ansible-test"), *sys.argv[1:]], cwd=target, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
