# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The man page of start-pool and its completions for bash and zsh, made from its command line and the README's tables.

Run as: python .ci/manual.py   (writes share).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coaster_pool import command_line, version  # noqa: E402  # found through the line before

PROGRAM = "start-pool"
MANUAL = ROOT / "share" / "man" / "man1" / f"{PROGRAM}.1"
BASH = ROOT / "share" / "bash-completion" / "completions" / PROGRAM
ZSH = ROOT / "share" / "zsh" / "site-functions" / f"_{PROGRAM}"
TABLES = {"EXIT STATUS": "Exit statuses", "ENVIRONMENT": "Environment"}
VALUES = {
    "FILE": ('compgen -f -- "$word"', "_files"),
    "DIR": ('compgen -d -- "$word"', "_files -/"),
    "WAY": ('compgen -W "auto direct tunnel" -- "$word"', "(auto direct tunnel)"),
    "NAME": ("_start_pool_pools", "_start_pool_pools"),
    "USER": ('compgen -u -- "$word"', "_users"),
}
"""How bash and zsh complete the value of an option, by its name in the help; what is not here is left to the user."""


def roff(text: str) -> str:
    """Text in which nothing means something to troff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...").replace("`", "")
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def shown(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What the help says of the option."""
    return (action.help or "") % dict(vars(action), prog=parser.prog)


def names(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The option as the help has it, ``-i, --inventory FILE``."""
    return parser.formatter_class(prog=parser.prog)._format_action_invocation(action)


def table(heading: str) -> Iterator[list[str]]:
    """The rows of the README's table below the heading, without the first."""
    section = (ROOT / "README.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    yield from rows[2:]


def manual(parser: argparse.ArgumentParser) -> str:
    """The man page."""
    description = (parser.description or "").replace("\n", " ")
    lines = [
        f'.TH START\\-POOL 1 "" "coaster\\-pool {version.VERSION}" "User Commands"',
        ".SH NAME", "start\\-pool \\- start a pool of coaster workers on ssh hosts",
        ".SH SYNOPSIS", f".B {roff(PROGRAM)}", roff(parser.format_usage().partition(f"{PROGRAM} ")[2].strip()),
        ".SH DESCRIPTION", roff(description),
    ]
    for group in parser._action_groups:
        if group._group_actions:
            lines += [".SS " + roff((group.title or "").capitalize())]
        for action in group._group_actions:
            lines += [".TP", f".B {roff(names(parser, action))}", roff(shown(parser, action))]
    for heading, name in TABLES.items():
        lines += [f".SH {heading}"]
        for row in table(name):
            lines += [".TP", f".B {roff(row[0])}", roff(f"{row[2]} ({row[1]})" if len(row) > 2 else row[1])]
    examples = (parser.epilog or "").replace("%(prog)s", PROGRAM).splitlines()[1:]
    lines += [".SH EXAMPLES", ".nf", *(roff(line.strip()) for line in examples), ".fi"]
    lines += [".SH SEE ALSO", roff("ssh_config(5), ansible-playbook(1), cog-job-submit -help")]
    return "\n".join(lines) + "\n"


def completion_for_bash(parser: argparse.ArgumentParser) -> str:
    """The completion for bash."""
    options = _options(parser)
    cases = []
    for metavar, (words, dummy) in VALUES.items():
        found = [name for action in options if _value(action) == metavar for name in action.option_strings]
        cases.append(f"        {' | '.join(found)}) {words} ;;")
    rest = [name for action in options if action.nargs is None and _value(action) not in VALUES for name in action.option_strings]
    return FOR_BASH.format(cases="\n".join(cases), rest=" | ".join(rest), options=" ".join(name for action in options for name in action.option_strings))


def completion_for_zsh(parser: argparse.ArgumentParser) -> str:
    """The completion for zsh."""
    specs = []
    for action in _options(parser):
        names = action.option_strings
        again = "*" if isinstance(action, argparse._AppendAction) else f"({' '.join(names)})"
        text = re.sub(r"([][\\])", r"\\\1", shown(parser, action)).replace("'", "'\\''")
        value = _value(action)
        end = f"{'::' if action.nargs == '?' else ':'}{value}:{VALUES.get(value, ('', ''))[1]}" if value else ""
        written = f"{{{','.join(names)}}}" if len(names) > 1 else names[0]
        specs.append(f"'{again}'{written}'[{text}]{end}'")
    return FOR_ZSH.format(specs=" \\\n        ".join(specs))


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def _value(action: argparse.Action) -> str:
    """The name of the option's value, empty when it has none."""
    return "" if action.nargs == 0 else str(action.metavar or action.dest.upper())


FOR_BASH = """\
# shellcheck shell=bash
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Completion of start-pool for bash. Made from its command line by `make manual`.

_start_pool_pools() {{
    local pools=${{XDG_STATE_HOME:-$HOME/.local/state}}/coasters
    compgen -W "$(ls "$pools" 2> /dev/null)" -- "$word"
}}

_start_pool_hosts() {{
    local user=
    case $word in *@*) user=${{word%@*}}@ ;; esac
    compgen -P "$user" -A hostname -- "${{word#"$user"}}"
    compgen -P "$user" -W "localhost $(sed -n 's/^ *[Hh]ost  *\\([^*?!]*\\)$/\\1/p' ~/.ssh/config 2> /dev/null)" -- "${{word#"$user"}}"
}}

_start_pool_words() {{
    case $before in
{cases}
        {rest}) ;;
        *)
            case $word in
                -*) compgen -W "{options}" -- "$word" ;;
                *) _start_pool_hosts ;;
            esac
            ;;
    esac
}}

_start_pool() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    case " ${{COMP_WORDS[*]:0:COMP_CWORD}} " in
        *" -- "*) mapfile -t COMPREPLY < <(compgen -c -- "$word") ;;
        *) mapfile -t COMPREPLY < <(_start_pool_words) ;;
    esac
}}

complete -o filenames -F _start_pool start-pool start_pool.py
"""

FOR_ZSH = """\
#compdef start-pool start_pool.py
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Completion of start-pool for zsh. Made from its command line by `make manual`.

_start_pool_pools() {{
    local pools=(${{XDG_STATE_HOME:-$HOME/.local/state}}/coasters/*(N/:t))
    compadd -a pools
}}

_start_pool_hosts() {{
    compset -P '*@'
    _ssh_hosts
}}

_start_pool() {{
    local end=${{words[(i)--]}}
    if (( end < CURRENT )); then
        shift $end words
        (( CURRENT -= end ))
        _normal
        return
    fi
    _arguments -S \\
        {specs} \\
        '*:host:_start_pool_hosts'
}}

_start_pool "$@"
"""


if __name__ == "__main__":
    made = command_line.parser(PROGRAM)
    for path, text in ((MANUAL, manual(made)), (BASH, completion_for_bash(made)), (ZSH, completion_for_zsh(made))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
