# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of ``start_pool.py``."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import sys
from pathlib import Path

from . import jetstream, version

PROGRAM = "start-pool" if Path(sys.argv[0]).name == "start-pool" else "start_pool.py"
"""As the user calls it: installed, or in a checkout."""
EXAMPLES = """\
examples:
  %(prog)s user@1.0.0.1 user@1.0.0.2      Ctrl-C ends the pool
  %(prog)s --show-stats 'node[01-40]*16'  40 hosts, 16 slots each
  %(prog)s --detach -i hosts.yml          --stop ends the pool
  %(prog)s user@1.0.0.1 -- jetstream run  the end of the command ends it
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """One line for each option on a terminal of 80 columns, the same with every Python."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=29)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        words = super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)}{words[words.rindex(' '):]}" if action.nargs != 0 and len(action.option_strings) > 1 else words


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """All options, with their help."""
    top = argparse.ArgumentParser(
        prog=prog, usage="%(prog)s [OPTION…] user@host… [-- COMMAND…]",
        description="Starts a pool of coaster workers on ssh hosts, and the service that\nhands jobs to them.",
        epilog=EXAMPLES, formatter_class=Formatter, allow_abbrev=False, add_help=False,
    )
    add = top.add_argument_group("the pool").add_argument
    add("fqdns", nargs="*", metavar="user@host", help="host:port, ssh alias, node[01-40], host*8 (slots)")
    add("--hosts-file", action="append", default=[], metavar="FILE", help="more hosts, one a line; - is standard input")
    add("-i", "--inventory", action="append", default=[], metavar="FILE", help="an Ansible inventory with more hosts")
    add("--name", default="default", help="name of the pool (%(default)s)")
    add("--swift-bin-dir", type=_directory, metavar="DIR", help="bin directory of a Swift/K distribution to run")
    add("--min-workers", type=_count, default=1, metavar="N", help="fewer workers are an error (%(default)s)")
    add("--require-all", action="store_true", help="any host without a worker is an error")
    add("--restart", action="store_true", help="also renew workers with other slots or version")
    add("--check", action="store_true", help="say what would be done; hosts are contacted")
    add = top.add_argument_group("the network").add_argument
    add("--route", choices=("auto", "direct", "tunnel"), default="auto", metavar="WAY", help="of workers: auto (tunnels), direct or tunnel")
    add("--trust", type=_network, action="append", default=[], metavar="NETWORK", help="its hosts need no tunnel: 10.0.0.0/8")
    add("--listen", type=_plain, default="127.0.0.1", metavar="ADDRESS", help="address for clients (%(default)s)")
    add("--allow-user", type=_plain, action="append", default=[], metavar="USER", help="a user of this machine who may be a client too")
    add("--port", type=_port, default=4050, help="port for clients, 0 for any (%(default)s)")
    add("--worker-port", type=_port, default=4051, metavar="PORT", help="port for workers, 0 for any (%(default)s)")
    add("--accept-new-host-keys", action="store_true", help="take unknown host keys; changed ones never")
    add("--connect-limit", type=_seconds, default=10, metavar="S", help="seconds until a host must answer (%(default)s)")
    add = top.add_argument_group("what is shown").add_argument
    add("--show-stats", action="store_true", help="a live screen in place of the line with the URL")
    add("--jetstream-config", nargs="?", const="", metavar="FILE", help="write the pool into Jetstream's config.yaml")
    add("--json", action="store_true", help="the result as one JSON object")
    add("-q", "--quiet", action="store_true", help="nothing but the result and errors")
    add("--version", action="version", version=f"%(prog)s {version.VERSION}", help="the version")
    add("-h", "--help", action="help", help="this text")
    group = top.add_argument_group("in place of waiting until Ctrl-C")
    add = group.add_mutually_exclusive_group().add_argument
    add("--detach", action="store_true", help="return when the pool is ready; --stop ends it")
    add("--status", action="store_true", help="show the pool")
    add("--stop", action="store_true", help="end the pool, also after a start that was cut off")
    add("--remove", action="store_true", help="take the hosts out of the pool when they are idle")
    add("--logs", action="store_true", help="show the end of the hosts' logs")
    group.add_argument("--keep", action="store_true", help="with --stop: keep the logs on the hosts and here")
    group.add_argument("--drain-limit", type=_seconds, default=60, metavar="S", help="with --remove: seconds for their jobs (%(default)s)")
    return top


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ``command`` has the words after ``--``. Ends the program with status 2 and a sentence on bad ones."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1:]
        if not command:
            parser().error("name a command after --")
    top = parser()
    options = top.parse_intermixed_args(words)
    options.command = command
    _sort_out_config(options)
    named = options.fqdns or options.hosts_file or options.inventory
    if not named and not (options.status or options.stop):
        top.error("name at least one host, as user@host, an ssh alias, or localhost")
    if command and (options.detach or options.status or options.stop or options.remove or options.logs or options.show_stats):
        top.error("a command after -- goes with none of --detach, --status, --stop, --remove, --logs and --show-stats")
    if options.stop and named:
        top.error("--stop ends the whole pool: leave the hosts out, or take them out of it with --remove")
    if options.check and (options.status or options.stop or options.remove or options.logs):
        top.error("--check says what a start would do: it goes with none of --status, --stop, --remove and --logs")
    return options


def _sort_out_config(options: argparse.Namespace) -> None:
    """A word behind ``--jetstream-config`` is its file when it looks like one, else a host."""
    word = options.jetstream_config
    if word and "/" not in word and not word.endswith((".yaml", ".yml")):
        options.fqdns.insert(0, word)
        word = ""
    options.jetstream_config = str(jetstream.default_path(os.environ)) if word == "" else word


def _plain(text: str) -> str:
    """Data that Ansible takes as it is, and that writes nothing on a terminal but itself."""
    if not text.isprintable() or any(mark in text for mark in ("{{", "{%", "{#")):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: leave out control characters and '{{{{', '{{%' and '{{#'")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a network: write it as 10.0.0.0/8") from None


def _directory(text: str) -> str:
    path = Path(_plain(text)).expanduser()
    for program in ("coaster-service", "worker.pl"):
        if not (path / program).is_file():
            raise argparse.ArgumentTypeError(f"{text} has no {program}: name the bin directory of a Swift/K distribution")
    return str(path.resolve())


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number of workers: give 1 or more")
    return int(text)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds: give 1 or more")
    return int(text)
