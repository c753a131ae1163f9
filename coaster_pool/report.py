# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a pool as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import json
import time
from typing import Any


def as_json(name: str, state: dict[str, Any] | None) -> str:
    """One JSON object: ``name``, ``running``, and of a running pool what coaster_service_info returns."""
    return json.dumps({"name": name, "running": state is not None, **(state or {})}, sort_keys=True)


def as_text(name: str, state: dict[str, Any] | None, now: float) -> str:
    """URL, engine, since when, jobs, and a row for each worker. ``now`` in epoch seconds."""
    if state is None:
        return f"pool {name!r} does not run"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state["since"]))
    jobs = ", ".join(f"{count} {what}" for what, count in state["jobs"].items() if count is not None)
    lost = "" if state["lost"] is None else f", {state['lost']} lost"
    lines = [
        f"Pool     {name} ({state['engine']} engine)",
        f"URL      {state['url']}",
        f"Since    {since}" + (f", service started again {state['restarts']} times" if state["restarts"] else ""),
        f"Jobs     {jobs}",
        f"Workers  {len(state['workers'])} active{lost}",
    ]
    rows = [("HOST", "SLOTS", "BUSY", "DONE", "LAST SEEN")]
    for worker in sorted(state["workers"], key=lambda worker: str(worker["name"])):
        seen = f"{max(0.0, now - worker['last_seen']):.0f} s ago" if worker["last_seen"] else "-"
        rows.append((worker["name"], str(worker["slots"]), str(worker["busy"]), str(worker["completed"]), seen))
    width = max(len(row[0]) for row in rows)
    lines += [f"{row[0]:{width}}  {row[1]:>5}  {row[2]:>5}  {row[3]:>8}  {row[4]}" for row in rows]
    without = sorted(set(state.get("members", ())) - {worker["name"] for worker in state["workers"]})
    lines += [f"{name:{width}}  no worker: run the start command again" for name in without]
    return "\n".join(lines)
