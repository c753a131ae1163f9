# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of the documentation: what a real pool on test hosts shows. As root: python docs/pictures/make.py"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from coaster_pool import screen  # noqa: E402  # found through the line before
from tests import conftest, testhosts  # noqa: E402  # the same
from tests.docs.reader import Reader, own_network  # noqa: E402  # the same

HOSTS = ["user@1.0.0.1*16", "user@1.0.0.2*16", "user@1.0.0.3*32", "user@1.0.0.4"]
WIDTH = 100
SUBMIT = "cog-job-submit -provider coaster-persistent -service-contact http://127.0.0.1:4050 -redirected"
JOBS = f"""
export PATH=~/.local/state/coasters/default/bin:$PATH
for job in $(seq 24); do {SUBMIT} /bin/true & done
{SUBMIT} /bin/false &
wait
for job in $(seq 70); do {SUBMIT} /bin/sleep 60 > /dev/null 2>&1 & done
"""


def picture(name: str, *shown: RenderableType) -> None:
    """Write NAME.svg with what is shown, in a font of the viewer's."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(*shown, sep="\n")
    drawn = console.export_svg(title=name.replace("_", " "), unique_id=name)
    text = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    (HERE / f"{name}.svg").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def main() -> None:
    from ansible_collections.coasters.pool.plugins.module_utils import statistics

    with own_network(), testhosts.start(len(HOSTS), "isolated") as hosts, tempfile.TemporaryDirectory() as place, Reader(hosts, Path(place)) as reader:
        hosts[-1].refuse()
        typed = f"start-pool {' '.join(HOSTS)}"
        started = reader.run(typed)
        shown = started.rstrip().replace(str(reader.home), "/home/me")  # the one of the test is long
        picture("start", Text(f"$ {typed}", style="bold"), Text(shown))

        reader.run(JOBS)
        known = reader.state()
        while (now := statistics.fetch(known["control_url"], 10)).jobs["queued"] == 0 or now.jobs["active"] < 64:
            time.sleep(0.2)
        picture("show_stats", screen.draw(known["url"], now, dict(re.findall(r"^(\S+): failed: (.*)$", started, re.MULTILINE))))


if __name__ == "__main__":
    conftest.collections_root()
    main()
