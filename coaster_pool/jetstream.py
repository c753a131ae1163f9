# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool in Jetstream's configuration: the three values below ``backends.cloud_swift.pool_info``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import settings_file, yaml_text
from .failure import USAGE, Failure
from .yaml_text import Document, Node

SECTION = ("backends", "cloud_swift", "pool_info")

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:/-]*[A-Za-z0-9._/-]\Z")
"""Text that is the same with and without quotes, also between braces."""


class PoolInfo(NamedTuple):
    """What Jetstream reads; the product of the first two is the number of CPUs that it hands out."""

    cpus_per_worker: int
    workers: int
    serviceurl: str


class Written(NamedTuple):
    """``path`` is the file itself, behind any links; ``backup`` the file that holds what was there before, if anything was."""

    path: Path
    changed: bool
    backup: Path | None


def pool_info(slots: Iterable[int], url: str) -> PoolInfo:
    """The values for a pool with a worker of each of these numbers of slots, at least one."""
    known = list(slots)
    return PoolInfo(min(known), len(known), url)


def block(values: PoolInfo) -> str:
    """The values as YAML to paste."""
    return "".join(f"{line}\n" for line in _lines(SECTION, _written(values), 0, 2))


def default_path(environment: Mapping[str, str]) -> Path:
    """Where Jetstream looks for its configuration.

    Its library, confuse, takes ``$JETSTREAMDIR``, else the first of ``~/.config`` and ``$XDG_CONFIG_HOME`` that has one, else ``~/.config``.
    """
    if environment.get("JETSTREAMDIR"):
        return Path(environment["JETSTREAMDIR"]).expanduser() / "config.yaml"
    folders = [Path("~/.config").expanduser()]
    if environment.get("XDG_CONFIG_HOME"):
        folders.append(Path(environment["XDG_CONFIG_HOME"]).expanduser())
    paths = [folder / "jetstream" / "config.yaml" for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def edit(text: str, values: PoolInfo) -> str:
    """The configuration with the values in it and every other byte as it was.

    Raises ValueError with a sentence when the text is not YAML, has something else than a mapping where the section belongs, or cannot
    take the values without a change to the rest.
    """
    document = yaml_text.read(text)
    new = text
    for start, end, piece in sorted(_edits(text, document, values), reverse=True):
        new = new[:start] + piece + new[end:]
    if not _is_right(document, new, values):
        raise ValueError(f"{'.'.join(SECTION)} cannot be written there without a change to the rest: write it by hand")
    return new


def write(path: str | Path, values: PoolInfo, check: bool = False) -> Written:
    """Put the values into the configuration, in one step, with a backup beside it; ``check`` only tells whether that would change it.

    A missing file is made, for this user alone. The backup is ``config.yaml.bak``, or with a number behind that when there is one
    already; one that differs from the file by nothing but the three values is left as it is and serves again. Raises Failure.
    """
    def differs_by_values(backup: bytes) -> bool:
        try:
            return edit(backup.decode(), values) == new
        except ValueError:
            return False

    try:
        target = settings_file.find(path)
        old = settings_file.read(target)
        new = edit((old or b"").decode(), values)
        if new.encode() == old:
            return Written(target, False, None)
        settings_file.check_writable(target)
        backup = None if check else settings_file.replace(target, old, new.encode(), differs_by_values)
        return Written(target, True, backup)
    except UnicodeDecodeError as error:
        raise Failure(USAGE, f"{path} cannot be used: it is not text in UTF-8") from error
    except ValueError as error:
        raise Failure(USAGE, f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise Failure(USAGE, f"{path} cannot be written: {error.strerror}") from error


Edit = tuple[int, int, str]
"""From where to where in the text, and what comes there."""


def _edits(text: str, document: Document, values: PoolInfo) -> list[Edit]:
    """What turns the text into one with the values. Raises ValueError."""
    node, key = document.root, None
    fields = _written(values)
    if node is None or (node.is_null and node.start == node.end):
        return [_at_end(text, document, _lines(SECTION, fields, 0, 2))]
    for depth, name in enumerate(SECTION):
        _check_mapping(node, SECTION[:depth], document)
        found = _child(node, name, SECTION[:depth])
        if found is None:
            if any(_text(other) == "<<" for other, dummy in node.pairs):
                raise ValueError(f"{_dotted(SECTION[:depth])} takes values from elsewhere (<<): write {name} out there")
            return [_insert(text, document, node, key, SECTION[depth:], fields)]
        key, child = found
        if child.is_null:
            return _replace_null(text, document, node, key, child, SECTION[depth + 1:], fields)
        node = child
    _check_mapping(node, SECTION, document)
    edits: list[Edit] = []
    for name, value in values._asdict().items():
        found = _child(node, name, SECTION)
        if found is not None:
            edits += _replace(found[1], value, name, document)
            del fields[name]
    return edits + ([_insert(text, document, node, key, (), fields)] if fields else [])


def _check_mapping(node: Node, path: Sequence[str], document: Document) -> None:
    """Raises ValueError when nothing can be put into the node, or not without a change elsewhere."""
    if node.kind == "alias":
        raise ValueError(f"{_dotted(path)} is an alias (*{node.anchor}): write it out there")
    if node.kind != "mapping":
        raise ValueError(f"{_dotted(path)} holds a {'list' if node.kind == 'sequence' else 'single value'} in place of a mapping")
    _check_own(node, path, document)


def _check_own(node: Node, path: Sequence[str], document: Document) -> None:
    if node.anchor in document.aliases:
        raise ValueError(f"{_dotted(path)} is used elsewhere too, by its anchor &{node.anchor}: write that out there")


def _child(mapping: Node, name: str, path: Sequence[str]) -> tuple[Node, Node] | None:
    found = [pair for pair in mapping.pairs if _text(pair[0]) == name]
    if len(found) > 1:
        raise ValueError(f"{_dotted((*path, name))} stands there twice, on lines {found[0][0].line + 1} and {found[1][0].line + 1}: keep one")
    return found[0] if found else None


def _replace(node: Node, value: int | str, name: str, document: Document) -> list[Edit]:
    """Edits of a value that is there."""
    path = (*SECTION, name)
    if _holds(node, value):
        return []
    if node.kind not in ("scalar", "alias"):
        raise ValueError(f"{_dotted(path)} holds a {'list' if node.kind == 'sequence' else 'mapping'} in place of a single value")
    if node.kind == "scalar":
        _check_own(node, path, document)
    if node.style in ("|", ">") or node.line != node.end_line:
        raise ValueError(f"{_dotted(path)} is longer than one line: write it on one")
    return [(node.start, node.end, (" " if node.start == node.end else "") + _scalar(value, node.style))]


def _replace_null(
    text: str, document: Document, mapping: Node, key: Node, null: Node, keys: Sequence[str], fields: Mapping[str, str],
) -> list[Edit]:
    """Edits where a section has its name but nothing in it."""
    if mapping.style == "flow":
        return [(null.start, null.end, (" " if null.start == null.end else "") + "{" + _in_braces(keys, fields) + "}")]
    step = _step(document)
    blank = len(text[:null.start].rstrip(" \t"))
    return [(blank, null.end, ""), _after_line(text, key.end, _lines(keys, fields, key.column + step, step))]


def _insert(
    text: str, document: Document, mapping: Node, key: Node | None, keys: Sequence[str], fields: Mapping[str, str],
) -> Edit:
    """The edit that adds to a mapping: in braces at its start, else below its ``key``, or at the end of the document."""
    if mapping.style == "flow":
        comma = ("," if text[mapping.end].isspace() else ", ") if mapping.pairs else ""
        return mapping.end, mapping.end, _in_braces(keys, fields) + comma
    lines = _lines(keys, fields, mapping.pairs[0][0].column, _step(document))
    return _at_end(text, document, lines) if key is None else _after_line(text, key.end, lines)


def _after_line(text: str, index: int, lines: Sequence[str]) -> Edit:
    newline = _newline(text)
    found = _BREAK.search(text, index)
    if found is None:
        return len(text), len(text), "".join(newline + line for line in lines)
    return found.end(), found.end(), "".join(line + newline for line in lines)


def _at_end(text: str, document: Document, lines: Sequence[str]) -> Edit:
    newline, end = _newline(text), document.end
    before = text[:end].removeprefix("\ufeff")
    if not before or _BREAK.fullmatch(before[-1]):
        return end, end, "".join(line + newline for line in lines)
    return end, end, "".join(newline + line for line in lines)


def _newline(text: str) -> str:
    found = _BREAK.search(text)
    return found.group() if found else "\n"


def _step(document: Document) -> int:
    """By how much the document indents, as far as its first levels tell."""
    for key, child in document.root.pairs if document.root else ():
        if child.kind == "mapping" and child.style == "block":
            return child.pairs[0][0].column - key.column
    return 2


def _lines(keys: Sequence[str], fields: Mapping[str, str], indent: int, step: int) -> list[str]:
    lines = [f"{' ' * (indent + depth * step)}{key}:" for depth, key in enumerate(keys)]
    return lines + [f"{' ' * (indent + len(keys) * step)}{name}: {value}" for name, value in fields.items()]


def _in_braces(keys: Sequence[str], fields: Mapping[str, str]) -> str:
    """The content of a mapping in braces."""
    inner = ", ".join(f"{name}: {value}" for name, value in fields.items())
    for key in reversed(keys):
        inner = f"{key}: {{{inner}}}"
    return inner


def _written(values: PoolInfo) -> dict[str, str]:
    return {name: _scalar(value) for name, value in values._asdict().items()}


def _scalar(value: int | str, style: str = "") -> str:
    """The value as YAML, in the quotes of what was there."""
    if isinstance(value, int):
        return str(value)
    if _PLAIN.match(value) and style in ("", "'"):
        return style + value + style
    return json.dumps(value)


def _holds(node: Node, value: int | str) -> bool:
    """Whether Jetstream reads the value there."""
    node = node.target or node
    if node.kind != "scalar" or node.tag is not None:
        return False
    if isinstance(value, int):
        return node.style == "" and node.value == str(value)
    return node.value == value and (node.style != "" or bool(_PLAIN.match(value)))


def _text(key: Node) -> str | None:
    node = key.target or key
    return node.value if node.kind == "scalar" else None


def _dotted(path: Sequence[str]) -> str:
    return ".".join(path) or "it"


def _is_right(before: Document, text: str, values: PoolInfo) -> bool:
    """Whether the text has the values, and all else as it was before."""
    try:
        after = yaml_text.read(text).root
        node = after
        for name in SECTION:
            found = _child(node, name, ()) if node else None
            node = found[1] if found else None
        there = {name: _child(node, name, ()) if node else None for name in PoolInfo._fields}
    except ValueError:
        return False
    has_values = all((found := there[name]) is not None and _holds(found[1], value) for name, value in values._asdict().items())
    return has_values and bool(_rest(before.root, SECTION) == _rest(after, SECTION))


def _rest(node: Node | None, path: Sequence[str]) -> Any:
    """Mappings within each other without the three values, and without those that have nothing else; None when nothing is left."""
    if node is None or node.is_null:
        return None
    pairs = []
    for key, child in node.pairs:
        name = _text(key)
        if path and name == path[0]:
            left = _rest(child, path[1:])
        elif not path and name in PoolInfo._fields:
            left = None
        else:
            left = _form(child)
        if left is not None:
            pairs.append((_form(key), left))
    return (node.style, node.tag, node.anchor, pairs) if pairs else None


def _form(node: Node) -> Any:
    return (
        node.kind, node.style, node.tag, node.anchor, node.value, [_form(item) for item in node.items],
        [(_form(key), _form(child)) for key, child in node.pairs],
    )
