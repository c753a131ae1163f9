# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three values get into Jetstream's configuration, and nothing else in it changes."""

from __future__ import annotations

import copy
import difflib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from coaster_pool import jetstream
from coaster_pool.failure import USAGE, Failure
from coaster_pool.jetstream import PoolInfo

VALUES = PoolInfo(3, 7, "http://127.0.0.1:4050")
FIELDS = """\
cpus_per_worker: 3
workers: 7
serviceurl: http://127.0.0.1:4050
"""
NAMES = (*jetstream.SECTION, *PoolInfo._fields)
CONFIG = """\
# ==== My Jetstream ====
log: null   # as the terminal says
history_filename: %Y-%m-%dT%H-%M-%SZ.yaml

backends:
  # this machine
  local: {cpus: 0x10,   "quoted": 'single'}
  cloud_swift:   # the pool
    (): jetstream.backends.cloud.CloudSwiftBackend
    azure_params: &azure
      key: "a long line, a long line, a long line, a long line, a long line, a long line, a long line, a long line, a long line"

    pool_info:
      workers:    2   # two
      note: |
        keep
          me
      serviceurl: ''
      cpus_per_worker: 8
  other: *azure
...
"""


def indented(text: str, by: int) -> str:
    return "".join(" " * by + line for line in text.splitlines(keepends=True))


def section(inner: str, step: int = 2, keys: tuple[str, ...] = jetstream.SECTION) -> str:
    for key in reversed(keys):
        inner = f"{key}:\n{indented(inner, step)}"
    return inner


def test_the_values_of_a_pool() -> None:
    assert jetstream.pool_info([8, 3, 16], "http://127.0.0.1:4050") == PoolInfo(3, 3, "http://127.0.0.1:4050")


@pytest.mark.parametrize("url", ["http://127.0.0.1:4050", "http://[::1]:4050", "http://node01.example.org:4050/"])
def test_the_block_to_paste(url: str) -> None:
    read = yaml.safe_load(jetstream.block(VALUES._replace(serviceurl=url)))
    assert read == {"backends": {"cloud_swift": {"pool_info": {"cpus_per_worker": 3, "workers": 7, "serviceurl": url}}}}
    assert jetstream.block(VALUES) == section(FIELDS)


def test_a_configuration_keeps_all_but_the_values() -> None:
    new = jetstream.edit(CONFIG, VALUES)
    assert new == (
        CONFIG.replace("workers:    2 ", "workers:    7 ").replace("serviceurl: ''", "serviceurl: 'http://127.0.0.1:4050'")
        .replace("cpus_per_worker: 8", "cpus_per_worker: 3")
    )
    assert jetstream.edit(new, VALUES) == new


INNER = "cloud_swift:\n" + indented("pool_info:\n" + indented(FIELDS, 2), 2)
BRACES = "{cpus_per_worker: 3, workers: 7, serviceurl: http://127.0.0.1:4050}"
CHANGES = {
    "nothing": ("", section(FIELDS)),
    "a comment": ("# mine\n", "# mine\n" + section(FIELDS)),
    "a byte order mark": ("\ufeff", "\ufeff" + section(FIELDS)),
    "no newline": ("a: 1", "a: 1\n" + section(FIELDS).rstrip("\n")),
    "an empty document": ("---\n", "---\n" + section(FIELDS)),
    "an open document": ("---", "---\n" + section(FIELDS).rstrip("\n")),
    "a closed document": ("--- # x\na: 1\n# end\n...\n", "--- # x\na: 1\n# end\n" + section(FIELDS) + "...\n"),
    "kept blank lines": ("a: |+\n  x\n\n\n", "a: |+\n  x\n\n\n" + section(FIELDS)),
    "an indented document": ("   a:\n     b: 1\n", "   a:\n     b: 1\n" + indented(section(FIELDS), 3)),
    "no section": ("backends:\n    # local\n    local:\n        cpus: 1\n",
                   "backends:\n" + indented(section(FIELDS, 4, ("cloud_swift", "pool_info")), 4) + "    # local\n    local:\n        cpus: 1\n"),
    "no pool_info": ("backends:\n  cloud_swift: # here\n    a: 1\n",
                     "backends:\n  cloud_swift: # here\n    pool_info:\n" + indented(FIELDS, 6) + "    a: 1\n"),
    "no values": (section("b: 1\n"), section(FIELDS + "b: 1\n")),
    "one value": (section("workers: 1\n"), section(FIELDS.replace("workers: 7\n", "") + "workers: 7\n")),
    "an empty key": ("backends:\nz: 1\n", "backends:\n" + indented(INNER, 2) + "z: 1\n"),
    "an empty key at the end": ("backends:\n  cloud_swift:", ("backends:\n" + indented(INNER, 2)).rstrip("\n")),
    "a null": ("backends:  ~   # none\nz: 1\n", "backends:   # none\n" + indented(INNER, 2) + "z: 1\n"),
    "a null at the end": ("backends: null", ("backends:\n" + indented(INNER, 2)).rstrip("\n")),
    "empty values": (section("cpus_per_worker:\nworkers: # many\nserviceurl: ~\n"),
                     section("cpus_per_worker: 3\nworkers: 7 # many\nserviceurl: http://127.0.0.1:4050\n")),
    "empty braces": ("{}\n", "{backends: {cloud_swift: {pool_info: " + BRACES + "}}}\n"),
    "braces": ("{a: 1}", "{backends: {cloud_swift: {pool_info: " + BRACES + "}}, a: 1}"),
    "wide braces": ("backends: { a: 1 }\n", "backends: {cloud_swift: {pool_info: " + BRACES + "}, a: 1 }\n"),
    "an empty key in braces": ("{backends: {cloud_swift: }}", "{backends: {cloud_swift: {pool_info: " + BRACES + "} }}"),
    "a null in braces": ("{backends: null}", "{backends: {cloud_swift: {pool_info: " + BRACES + "}}}"),
    "values in braces": ("backends:\n  cloud_swift: {pool_info: {workers: 1, serviceurl: 'x',\n    b: 1}}\n",
                         "backends:\n  cloud_swift: {pool_info: {cpus_per_worker: 3, workers: 7, serviceurl: 'http://127.0.0.1:4050',\n    b: 1}}\n"),
    "quotes": (section('cpus_per_worker: "3"\nworkers: \'7\'\n"serviceurl": "x" # u\n'),
               section('cpus_per_worker: 3\nworkers: 7\n"serviceurl": "http://127.0.0.1:4050" # u\n')),
    "tags": (section("cpus_per_worker: !!str 3\nworkers: !!int\nserviceurl: !x http://127.0.0.1:4050\n"), section(FIELDS)),
    "octals": (section(FIELDS.replace("workers: 7", "workers: 007")), section(FIELDS)),
    "aliases": ("x: &n 3\ny: &u a\n" + section("workers: *n\ncpus_per_worker: *n\nserviceurl: *u\n"),
                "x: &n 3\ny: &u a\n" + section("workers: 7\ncpus_per_worker: *n\nserviceurl: http://127.0.0.1:4050\n")),
    "merged values": ("x: &n {workers: 1}\n" + section("<<: *n\n"), "x: &n {workers: 1}\n" + section(FIELDS + "<<: *n\n")),
    "an alias for a key": ("x: &k workers\n" + section("*k : 1\n"),
                           "x: &k workers\n" + section("cpus_per_worker: 3\nserviceurl: http://127.0.0.1:4050\n*k : 7\n")),
    "anchors of nobody": (section("workers: &n 1\n"), section(FIELDS.replace("workers: 7\n", "") + "workers: 7\n")),
    "an old line end": ("a: 1\rb: 2\r", "a: 1\rb: 2\r" + section(FIELDS).replace("\n", "\r")),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("case", CHANGES)
def test_what_changes(case: str, newline: str) -> None:
    before, after = (text.replace("\n", newline) for text in CHANGES[case])
    new = jetstream.edit(before, VALUES)
    assert new.replace("\r\n", "\n") == after.replace("\r\n", "\n")
    assert "\n" in before or new == after.replace("\r\n", "\n")
    assert jetstream.edit(new, VALUES) == new


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b: c", "it is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("- backends\n", "it holds a list in place of a mapping"),
        ("backends\n", "it holds a single value in place of a mapping"),
        ("--- ~\n", "it holds a single value in place of a mapping"),
        ("backends: [cloud_swift]\n", "backends holds a list in place of a mapping"),
        ("backends:\n  cloud_swift: azure\n", "backends.cloud_swift holds a single value in place of a mapping"),
        (section("3\n"), "backends.cloud_swift.pool_info holds a single value in place of a mapping"),
        (section("- 3\n"), "backends.cloud_swift.pool_info holds a list in place of a mapping"),
        ("x: &x {}\nbackends: *x\n", "backends is an alias (*x): write it out there"),
        ("x: &x {}\n" + section("*x\n"), "backends.cloud_swift.pool_info is an alias (*x): write it out there"),
        (section("&x\n" + FIELDS) + "y: *x\n", "backends.cloud_swift.pool_info is used elsewhere too, by its anchor &x: write that out there"),
        ("backends: &x\n  a: 1\ny:\n  <<: *x\n", "backends is used elsewhere too, by its anchor &x: write that out there"),
        ("backends: 1\nz: 1\nbackends: 2\n", "backends stands there twice, on lines 1 and 3: keep one"),
        (section("workers: 1\n'workers': 2\n"), "backends.cloud_swift.pool_info.workers stands there twice, on lines 4 and 5: keep one"),
        ("x: &x {pool_info: {b: 1}}\nbackends:\n  cloud_swift:\n    <<: *x\n",
         "backends.cloud_swift takes values from elsewhere (<<): write pool_info out there"),
        (section("workers: &n 1\n") + "n: *n\n", "backends.cloud_swift.pool_info.workers is used elsewhere too, by its anchor &n: write that out there"),
        (section("workers: [1]\n"), "backends.cloud_swift.pool_info.workers holds a list in place of a single value"),
        (section("serviceurl:\n  a: 1\n"), "backends.cloud_swift.pool_info.serviceurl holds a mapping in place of a single value"),
        (section("serviceurl: |\n  x\n"), "backends.cloud_swift.pool_info.serviceurl is longer than one line: write it on one"),
        (section("serviceurl: 'a\n  b'\n"), "backends.cloud_swift.pool_info.serviceurl is longer than one line: write it on one"),
        ("a: |\n  no newline", "backends.cloud_swift.pool_info cannot be written there without a change to the rest: write it by hand"),
        ("? backends\n: x: 1\n", "backends.cloud_swift.pool_info cannot be written there without a change to the rest: write it by hand"),
        ("{backends}", "backends.cloud_swift.pool_info cannot be written there without a change to the rest: write it by hand"),
        ("? backends\n", "backends.cloud_swift.pool_info cannot be written there without a change to the rest: write it by hand"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        jetstream.edit(text, VALUES)
    assert str(error.value) == sentence


def test_what_is_right_is_never_refused() -> None:
    """Where nothing has to change, an anchor does not matter."""
    text = section(FIELDS.replace("workers: 7", "workers: &n 7")) + "n: *n\n"
    assert jetstream.edit(text, VALUES) == text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jetstream" / "config.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_file_is_written(file: Path) -> None:
    file.chmod(0o640)
    written = jetstream.write(file, VALUES)
    assert written == (file, True, file.with_name("config.yaml.bak"))
    assert file.read_text() == jetstream.edit(CONFIG, VALUES)
    assert file.with_name("config.yaml.bak").read_text() == CONFIG
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.with_name("config.yaml.bak"))] == [0o640, 0o640]


def test_the_same_values_do_not_touch_the_file(file: Path) -> None:
    jetstream.write(file, VALUES)
    before = file.stat()[:7], file.stat().st_mtime_ns  # not the time of the last reading
    assert jetstream.write(file, VALUES) == (file, False, None)
    assert (file.stat()[:7], file.stat().st_mtime_ns) == before
    assert names(file) == ["config.yaml", "config.yaml.bak"]


def test_pools_that_come_and_go_leave_one_backup(file: Path) -> None:
    for port in range(4050, 4060):
        written = jetstream.write(file, VALUES._replace(serviceurl=f"http://127.0.0.1:{port}"))
        assert written.backup == file.with_name("config.yaml.bak")
    assert names(file) == ["config.yaml", "config.yaml.bak"]
    assert file.with_name("config.yaml.bak").read_text() == CONFIG


def test_what_the_user_changes_is_backed_up_again(file: Path) -> None:
    jetstream.write(file, VALUES)
    own = "# mine\n" + file.read_text()
    file.write_text(own)
    assert jetstream.write(file, VALUES._replace(workers=9)).backup == file.with_name("config.yaml.bak.1")
    assert file.with_name("config.yaml.bak").read_text() == CONFIG
    assert file.with_name("config.yaml.bak.1").read_text() == own


def test_an_old_backup_that_is_no_configuration(file: Path) -> None:
    file.with_name("config.yaml.bak").write_bytes(b"\xff")
    file.with_name("config.yaml.bak.1").write_text("a: b: c")
    assert jetstream.write(file, VALUES).backup == file.with_name("config.yaml.bak.2")
    assert file.with_name("config.yaml.bak").read_bytes() == b"\xff"


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "jetstream" / "config.yaml"
    assert jetstream.write(path, VALUES, check=True) == (path, True, None)
    assert not path.parent.exists()
    assert jetstream.write(path, VALUES) == (path, True, None)
    assert path.read_text() == jetstream.block(VALUES)
    assert names(path) == ["config.yaml"]


def test_check_changes_nothing(file: Path) -> None:
    before = file.stat()
    assert jetstream.write(file, VALUES, check=True) == (file, True, None)
    assert (file.stat(), names(file)) == (before, ["config.yaml"])


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays(file: Path, tmp_path: Path, is_there: bool) -> None:
    if not is_there:
        file.unlink()
    link = tmp_path / "link.yaml"
    link.symlink_to("jetstream/config.yaml")
    assert jetstream.write(link, VALUES)[:2] == (file, True)
    assert os.readlink(link) == "jetstream/config.yaml"
    assert yaml.safe_load(file.read_text().replace("%", ""))["backends"]["cloud_swift"]["pool_info"]["workers"] == 7


def test_line_ends_stay(file: Path) -> None:
    file.write_bytes(CONFIG.replace("\n", "\r\n").encode())
    jetstream.write(file, VALUES)
    assert file.read_bytes() == jetstream.edit(CONFIG, VALUES).replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: b: c", "{path} cannot be used: it is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        (b"a: \xff", "{path} cannot be used: it is not text in UTF-8"),
        (b"#" * 1048577, "{path} cannot be used: it is larger than 1048576 bytes"),
        (b"backends: 1", "{path} cannot be used: backends holds a single value in place of a mapping"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_file_that_cannot_be_used(file: Path, content: bytes, sentence: str, check: bool) -> None:
    file.write_bytes(content)
    with pytest.raises(Failure) as failure:
        jetstream.write(file, VALUES, check)
    assert (failure.value.status, str(failure.value)) == (USAGE, sentence.format(path=file))
    assert (file.read_bytes(), names(file)) == (content, ["config.yaml"])


@pytest.mark.parametrize("check", [True, False])
def test_a_file_that_cannot_be_written(file: Path, check: bool) -> None:
    with pytest.raises(Failure) as failure:
        jetstream.write(file / "config.yaml", VALUES, check)
    assert (failure.value.status, str(failure.value)) == (USAGE, f"{file}/config.yaml cannot be written: {file} is not a folder")


def test_where_jetstream_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / ".config" / "jetstream" / "config.yaml"
    other = tmp_path / "xdg" / "jetstream" / "config.yaml"
    environment = {"XDG_CONFIG_HOME": "~/xdg"}
    assert jetstream.default_path({}) == home
    assert jetstream.default_path({"JETSTREAMDIR": "~/js", **environment}) == tmp_path / "js" / "config.yaml"
    assert jetstream.default_path(environment) == home
    other.parent.mkdir(parents=True)
    other.touch()
    assert jetstream.default_path(environment) == other
    home.parent.mkdir(parents=True)
    home.touch()
    assert jetstream.default_path(environment) == home


# Configurations of every style.

KEYS = st.text("ab_é ", min_size=1, max_size=6).filter(lambda key: key.strip())
SCALARS = st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False) | st.dates() | st.text("ab:#-'\"é 1%&*\t\n", max_size=12)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6)
SMALL = st.dictionaries(KEYS, TREES, max_size=2)
OLD_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "cpus_per_worker": st.none() | st.integers(0, 9), "workers": st.integers(0, 9) | st.just("2"), "serviceurl": st.just("") | st.just("http://x:1"),
    },
)


@st.composite
def configurations(draw: st.DrawFn, empty: st.SearchStrategy[Any]) -> dict[str, Any]:
    def with_section(name: str, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
        tree = draw(SMALL)
        if draw(st.integers(0, 4)):
            tree[name] = draw(inner)
        return dict(draw(st.permutations(list(tree.items()))))

    pool = draw(SMALL) | draw(OLD_VALUES)
    swift = with_section("pool_info", st.just(pool) | empty)
    backends = with_section("cloud_swift", st.just(swift) | empty)
    return with_section("backends", st.just(backends) | empty)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A configuration as somebody may have written it, with comments where they change nothing."""
    style = draw(st.sampled_from([None, None, "'", '"']))
    tree = draw(configurations(st.none() if style is None else st.just({})))
    text: str = yaml.safe_dump(
        tree, default_flow_style=draw(st.sampled_from([False, False, None, True])), indent=draw(st.integers(2, 5)), width=draw(st.sampled_from([20, 80, 9999])),
        default_style=style, explicit_start=draw(st.booleans()), explicit_end=draw(st.booleans()),
        allow_unicode=True, sort_keys=False,
    )
    lines = text.splitlines(keepends=True)
    for dummy in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(lines)))
        comment = draw(st.sampled_from(["# a: note\n", "\n", "    # { further\n"]))
        commented = [*lines[:place], comment, *lines[place:]]
        if loads("".join(commented)) == tree:
            lines = commented
    text = "".join(lines)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    assume(loads(text) == tree)
    return text


def loads(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def expected(tree: Any, values: PoolInfo) -> Any:
    tree = copy.deepcopy(tree)
    node = tree
    for key in jetstream.SECTION:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
    node.update(values._asdict())
    return tree


def lines_that_differ(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    removed, added = [], []
    for kind, start, end, new_start, new_end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            removed += old[start:end]
            added += new[new_start:new_end]
    return removed, added


POOLS = st.builds(
    PoolInfo, st.integers(1, 999), st.integers(1, 9999),
    st.sampled_from(["http://127.0.0.1:4050", "http://[::1]:4050", "http://node01.example.org:50000", "http://a-b/ #'\"x"]),
)


@given(texts(), POOLS, POOLS)
def test_everything_else_stays(text: str, values: PoolInfo, others: PoolInfo) -> None:
    new = jetstream.edit(text, values)
    assert yaml.safe_load(new) == expected(yaml.safe_load(text), values)
    assert jetstream.edit(new, values) == new
    removed, added = lines_that_differ(text, new)
    ended = [line for line in removed if line + ("\r\n" if "\r\n" in text else "\n") in added]
    for line in [*removed, *added]:
        assert line.rstrip("\r\n") in ended or any(name in line for name in NAMES) or "{" in line
    assert new.count("# a: note") == text.count("# a: note")
    if "\r\n" in text:
        assert new.count("\n") == new.count("\r\n")

    again = jetstream.edit(new, others)
    removed, added = lines_that_differ(new, again)
    differing = [name for name in PoolInfo._fields if getattr(values, name) != getattr(others, name)]
    assert len(removed) == len(added) <= len(differing)
    assert all(any(name in line for name in differing) for line in removed + added)
