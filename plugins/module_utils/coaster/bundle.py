# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as files: the worker as one file for any host, and the three programs as a directory (Python 3.8 and later).

Sources are read through the loader, because this package itself may have been imported from a zip file.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import marshal
import os
import pkgutil
import shlex
import sys
import types
import zipfile
from typing import Dict, List, Tuple

WORKER_MODULES = (
    "__init__", "channel", "connection", "frames", "jobs", "options", "processes", "run", "staging", "worker", "worker_command",
)
"""What the worker's program is made of."""

PROGRAMS: Dict[str, str] = {
    "coaster-service": "service_command", "worker.pl": "worker_command", "cog-job-submit": "submit_command",
}
"""The programs of an engine, each with the module that has its ``main(argv)``."""

_TIME = (1980, 1, 1, 0, 0, 0)
_UNCHECKED = b"\1\0\0\0"  # compiled code that is taken without a look at its source (PEP 552)
_MAX_SHEBANG = 127  # bytes that every kernel takes

_MAIN = """\
import sys

from coaster.%s import main

sys.exit(main())
"""

_WHERE = """\
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.modules["ssl"] = None  # asyncio would load TLS, 5 MB that nothing here uses

"""


def worker_archive() -> bytes:
    """The worker as one file: ``python3 [-IS] FILE [-c N] URLS BLOCKID LOGDIR`` with any Python from 3.6 on that has zlib.

    Beside each source is what the Python of this process makes of it. Another one passes over that and compiles the source, which
    takes half of the time that a worker needs to start.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in _worker_files():
            for path, data in ((name, content), (name + "c", _compiled(name, content))):
                entry = zipfile.ZipInfo(path, _TIME)
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def worker_sources() -> bytes:
    """All that makes a worker what it is, whichever Python packs it."""
    return b"".join(content for dummy, content in _worker_files())


def _worker_files() -> List[Tuple[str, bytes]]:
    files = [("__main__.py", (_MAIN % "worker_command").encode())]
    return files + [("coaster/%s.py" % name, source(name)) for name in WORKER_MODULES]


def _compiled(name: str, content: bytes) -> bytes:
    """As Python keeps it beside the source, when it does: to compile all of a worker takes longer than to pack it."""
    path = os.path.join(os.path.dirname(__file__), os.path.basename(name))
    kept = importlib.machinery.SourceFileLoader(name, path).get_code(name) if os.path.isfile(path) else None
    code = _named(kept, name) if kept else compile(content, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(content) + marshal.dumps(code)


def _named(code: types.CodeType, name: str) -> types.CodeType:
    """The code as of a file of that name, which traces on a host show."""
    parts = tuple(_named(part, name) if isinstance(part, types.CodeType) else part for part in code.co_consts)
    return code.replace(co_filename=name, co_consts=parts)


def programs(directory: str, python: str) -> None:
    """Write an engine's bin directory: the programs, run by the interpreter ``python``, and this package beside them.

    Files that are there already are replaced one by one, so that programs which run are not disturbed. Raises OSError.
    """
    package = os.path.join(directory, "coaster")
    os.makedirs(package, exist_ok=True)
    for name in _modules():
        _write(os.path.join(package, name + ".py"), source(name), 0o644)
    for name, module in PROGRAMS.items():
        _write(os.path.join(directory, name), _program(python, module), 0o755)


def is_current(directory: str) -> bool:
    """Whether the programs that programs() wrote into the directory are those of this package. Raises OSError."""
    for name in _modules():
        path = os.path.join(directory, "coaster", name + ".py")
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            if file.read() != source(name):
                return False
    return True


def source(name: str) -> bytes:
    """The source of a module of this package."""
    content = pkgutil.get_data(__name__.rpartition(".")[0], name + ".py")
    if content is None:
        raise OSError("the source of %s cannot be read" % name)
    return content


def _modules() -> List[str]:
    package = sys.modules[__name__.rpartition(".")[0]]
    return ["__init__"] + [module.name for module in pkgutil.iter_modules(package.__path__)]


def _program(python: str, module: str) -> bytes:
    words = (python, "-IS")
    shebang = "#!%s %s\n" % words
    if len(os.fsencode(shebang)) > _MAX_SHEBANG or len(python.split()) != 1 or "perl" in python:
        # /bin/sh reads a command, Python a string. Perl runs whatever #! names, unless that has "perl" in it.
        shebang = "#!/bin/sh\n'''exec' %s %s \"$0\" \"$@\"\n' '''\n" % (shlex.quote(python), words[1])
    return os.fsencode(shebang + _WHERE) + (_MAIN % module).partition("\n\n")[2].encode()


def _write(path: str, content: bytes, mode: int) -> None:
    temporary = "%s.%d" % (path, os.getpid())
    with open(temporary, "wb") as file:
        file.write(content)
    os.chmod(temporary, mode)
    os.replace(temporary, path)
