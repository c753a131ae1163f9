# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A YAML text as nodes that know where they stand in it, for edits that leave every other byte alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass
class Node:
    """A piece of the text: from ``start`` to ``end``, anchor and tag included; of a mapping or sequence only what opens it.

    ``kind`` is scalar, mapping, sequence or alias; ``style`` a scalar's quote (empty when plain), or block or flow. ``anchor`` is the
    name that a node gives itself, or that an alias refers to; ``target`` the node that an alias means. Lines and columns count from 0.
    """

    kind: str
    start: int
    end: int
    line: int
    end_line: int
    column: int
    style: str = ""
    value: str = ""
    tag: str | None = None
    anchor: str | None = None
    target: Node | None = None
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    @property
    def is_null(self) -> bool:
        """Whether nothing is written there, or one of the words for nothing."""
        return (self.kind, self.style, self.tag, self.anchor) == ("scalar", "", None, None) and self.value in ("", "~", "null", "Null", "NULL")


@dataclass
class Document:
    """``root`` is None in a text without any node; ``end`` is where more of the root can be added; ``aliases`` the anchors in use."""

    root: Node | None
    end: int
    aliases: set[str]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Jetstream reads its configuration with confuse, which lets a plain value start with %."""

    def check_plain(self) -> bool:
        return bool(super().check_plain() or self.peek() == "%")


def read(text: str) -> Document:
    """The one document of the text. Raises ValueError with a sentence when it is not valid YAML, or more than one document."""
    aliases: set[str] = set()
    document = Document(None, len(text), aliases)
    documents = 0
    try:
        events = yaml.parse(text, Loader=_Loader)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                document.root = _node(next(events), events, {}, aliases)
            elif isinstance(event, yaml.DocumentEndEvent):
                document.end = event.start_mark.index
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"it is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {str(error).splitlines()[0]}") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(f"it is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if documents > 1:
        raise ValueError(f"it holds {documents} YAML documents in place of one")
    return document


def _node(event: Any, events: Iterator[Any], anchors: dict[str, Node], aliases: set[str]) -> Node:
    start, end = event.start_mark, event.end_mark
    node = Node("alias", start.index, end.index, start.line, end.line, start.column, anchor=event.anchor)
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise yaml.MarkedYAMLError(problem=f"there is no anchor &{event.anchor}", problem_mark=start)
        aliases.add(event.anchor)
        node.target = anchors[event.anchor]
        return node
    if event.anchor is not None:
        anchors[event.anchor] = node
    node.tag = event.tag
    if isinstance(event, yaml.ScalarEvent):
        node.kind, node.style, node.value = "scalar", event.style or "", event.value
        return node
    node.kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
    node.style = "flow" if event.flow_style else "block"
    while not isinstance(event := next(events), yaml.CollectionEndEvent):
        child = _node(event, events, anchors, aliases)
        if node.kind == "sequence":
            node.items.append(child)
        else:
            node.pairs.append((child, _node(next(events), events, anchors, aliases)))
    return node
