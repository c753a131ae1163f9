# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every node stands where it says; what is no YAML is told in a sentence."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coaster_pool import yaml_text
from coaster_pool.yaml_text import Node

TEXT = """\
--- # settings
plain: a word
'quoted': "word"   # said
empty:
nothing: ~
flow: {a: 1, b: [x, 'y']}
list: &l
- !!str 3
- |
  lines
again: *l
time: %H:%M
...
"""


def test_nodes_stand_where_they_say() -> None:
    document = yaml_text.read(TEXT)
    assert document.root is not None
    shown = {}
    for key, node in document.root.pairs:
        assert TEXT.splitlines()[key.line][key.column:].startswith(TEXT[key.start:key.end])
        shown[key.value] = TEXT[node.start:node.end]
    assert shown == {
        "plain": "a word", "quoted": '"word"', "empty": "", "nothing": "~", "flow": "{", "list": "&l\n-", "again": "*l", "time": "%H:%M",
    }
    assert TEXT[document.end:] == "...\n"
    assert document.aliases == {"l"}


def test_what_a_node_is() -> None:
    root = yaml_text.read(TEXT).root
    assert root is not None
    nodes = {key.value: node for key, node in root.pairs}
    assert (nodes["plain"].kind, nodes["plain"].style, nodes["plain"].value) == ("scalar", "", "a word")
    assert nodes["quoted"].style == '"'
    assert [name for name, node in nodes.items() if node.is_null] == ["empty", "nothing"]
    assert (nodes["flow"].kind, nodes["flow"].style) == ("mapping", "flow")
    assert [item.value for item in nodes["flow"].pairs[1][1].items] == ["x", "y"]
    assert (nodes["list"].kind, nodes["list"].style, nodes["list"].anchor) == ("sequence", "block", "l")
    assert [(item.tag, item.style, item.end_line - item.line) for item in nodes["list"].items] == [("tag:yaml.org,2002:str", "", 0), (None, "|", 2)]
    assert (nodes["again"].kind, nodes["again"].anchor) == ("alias", "l")
    assert nodes["again"].target is nodes["list"]
    assert nodes["time"].value == "%H:%M"


@pytest.mark.parametrize("text", ["", "# nothing", "\n\n", "\ufeff"])
def test_a_text_without_a_node(text: str) -> None:
    document = yaml_text.read(text)
    assert (document.root, document.end) == (None, len(text))


def test_a_node_can_hold_itself() -> None:
    root = yaml_text.read("&a [*a]").root
    assert root is not None
    assert root.items[0].target is root


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b: c", "it is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("a:\n\tb: 1", "it is not valid YAML: line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: *b", "it is not valid YAML: line 1, column 4: there is no anchor &b"),
        ("a: \0", "it is not valid YAML: unacceptable character #x0000: special characters are not allowed"),
        ('a: "\\UFFFFFFFF"', "it is not valid YAML: "),
        ("[" * 2000, "it is nested too deeply"),
        ("a\n--- b\n--- c", "it holds 3 YAML documents in place of one"),
    ],
)
def test_what_is_no_document(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        yaml_text.read(text)
    assert str(error.value).startswith(sentence)
    assert str(error.value).isprintable()


def plain(node: Node) -> object:
    if node.kind == "mapping":
        return {key.value: plain(child) for key, child in node.pairs}
    return [plain(item) for item in node.items] if node.kind == "sequence" else node.value


WORDS = st.text("ab:#-'\"é 1%&*\n", max_size=12)
TREES = st.recursive(WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=12)


@given(TREES, st.sampled_from([True, False, None]), st.integers(2, 6))
def test_it_reads_what_was_written(tree: object, flow: bool | None, indent: int) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, indent=indent, allow_unicode=True)
    root = yaml_text.read(text).root
    assert root is not None
    assert plain(root) == tree


@given(st.text("a:-?[]{}&*!|>'\"%@`#,<. \t\n~\\U0\0\ufeff", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = yaml_text.read(text)
    except ValueError as error:
        assert str(error).startswith("it ")
        return
    assert 0 <= document.end <= len(text)
