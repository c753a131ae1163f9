# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control port: statistics over HTTP on the loopback interface (coaster-protocol 6.1).

    /wmInfo      what Swift/K's says, times in ms since the epoch; and our own under "coaster", times in s:
                 version, now, started, url, worker_url, lost, connections,
                 workers: [{block, id, host, address, slots, busy, completed, failed, registered, last_seen}],
                 jobs: {queued, active, completed, failed, cancelled, resubmitted}
    /probe       /wmInfo, and all workers are sent a heartbeat: those who live are seen later than "now" soon
    /list        {"error": false, "errorMessage": null, "result": [names of settings]}
    /getAll      the same with {name: value} as result
    /get?name=N  {"success": true, "errorMessage": null, "result": value}
    /metrics     Prometheus text
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.parse
from typing import Any, Iterable

from .admission import AdmissionError
from .pool import Block, Job
from .service import Service
from .sockets import plain

RELEASE = "1.0.0"
"""The version of this engine."""
MAX_REQUEST = 8192
"""Largest request in bytes."""
TIME_LIMIT = 5.0
"""Seconds that a request and the reading of its answer may take."""
MAX_CONNECTIONS = 64

_FOREVER = 2 ** 62 - 1  # what Swift/K says for the walltime of a block without limit
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1", ""))
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 413: "Payload Too Large"}
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Control:
    """The statistics of a service that announces itself as ``url`` to clients and ``worker_url`` to workers."""

    def __init__(self, service: Service, url: str, worker_url: str) -> None:
        self.service, self.url, self.worker_url = service, url, worker_url
        self.connections = 0

    async def start(self, listening: socket.socket) -> None:
        """Answer requests that come to this listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=listening, backlog=64)

    def stop(self) -> None:
        """Take no more requests."""
        self._server.close()

    def answer(self, target: str) -> tuple[str, str] | None:
        """Content type and body for a path with its query; None when there is no such thing."""
        path, _mark, query = target.partition("?")
        if path == "/metrics":
            return "text/plain; version=0.0.4; charset=utf-8", metrics(self.service)
        result: Any
        if path in ("/wmInfo", "/probe"):
            result = self.information()
            if path == "/probe":
                self.service.probe()
        elif path == "/list":
            result = {"error": False, "errorMessage": None, "result": list(settings(self.service))}
        elif path == "/getAll":
            result = {"error": False, "errorMessage": None, "result": settings(self.service)}
        elif path == "/get":
            name = urllib.parse.parse_qs(query).get("name", [""])[0]
            known = settings(self.service)
            error = None if name in known else "there is no setting %r" % name
            result = {"success": name in known, "errorMessage": error, "result": known.get(name)}
        else:
            return None
        return "text/json; charset=utf-8", json.dumps(result, separators=(",", ":"))

    def information(self) -> dict[str, Any]:
        """The object of /wmInfo."""
        service, pool = self.service, self.service.pool
        now = service.now()
        peak, used = memory()
        busy = pool.active / pool.slots if pool.slots else 0.0
        return {
            "supported": True, "time": _ms(now), "wmdata": {},
            "runtime": {
                "maxHeap": os.sysconf("SC_PHYS_PAGES") * _PAGE, "crtHeap": peak, "usedHeap": used, "freeHeap": peak - used,
                "readBytesTotal": service.received.total, "readCurrentRate": service.received.current,
                "readAverageRate": service.received.average(now),
                "writeBytesTotal": service.sent.total, "writeCurrentRate": service.sent.current,
                "writeAverageRate": service.sent.average(now),
            },
            "blocks": [_block(block) for block in pool.blocks.values() if block.workers],
            "utilization": busy,
            "coaster": {
                "version": RELEASE, "now": now, "started": service.started, "url": self.url, "worker_url": self.worker_url,
                "lost": pool.workers_lost, "connections": len(service.peers),
                "workers": [
                    {
                        "block": worker.block, "id": worker.id, "host": worker.host, "address": worker.handle.address,
                        "slots": len(worker.slots), "busy": len(worker.jobs), "completed": worker.completed,
                        "failed": worker.failed, "registered": worker.since, "last_seen": worker.handle.channel.last_received,
                    }
                    for worker in pool.workers()
                ],
                "jobs": {
                    "queued": pool.queued, "active": pool.active, "completed": pool.completed, "failed": pool.failed,
                    "cancelled": pool.cancelled, "resubmitted": pool.resubmitted,
                },
            },
        }


def settings(service: Service) -> dict[str, Any]:
    """The settings of /getAll; Swift/K's names where the meaning is the same."""
    pool = service.pool
    return {
        "workerManager": "passive", "jobsPerNode": 1, "reserve": "60.000s", "maxtime": "31104000.000s",
        "resubmit": pool.resubmit, "maxQueued": pool.max_queued, "maxQueuedBytes": pool.max_queued_bytes,
        "maxConnections": service.max_connections, "silenceLimit": service.silence,
    }


def metrics(service: Service) -> str:
    """The statistics as Prometheus text."""
    pool = service.pool
    families: list[tuple[str, str, str, Iterable[tuple[str, float]]]] = [
        ("coaster_start_time_seconds", "gauge", "When the service started, since the epoch.", [("", service.started)]),
        ("coaster_workers", "gauge", "Registered workers.", [("", sum(len(block.workers) for block in pool.blocks.values()))]),
        ("coaster_workers_lost_total", "counter", "Workers that went away.", [("", pool.workers_lost)]),
        ("coaster_slots", "gauge", "Slots of all workers.", [("", pool.slots)]),
        ("coaster_jobs", "gauge", "Jobs that have not ended.", [('{state="queued"}', pool.queued), ('{state="active"}', pool.active)]),
        ("coaster_jobs_submitted_total", "counter", "Jobs accepted from clients.", [("", pool.submitted)]),
        ("coaster_jobs_ended_total", "counter", "Jobs that ended.", [
            ('{state="completed"}', pool.completed), ('{state="failed"}', pool.failed), ('{state="cancelled"}', pool.cancelled)]),
        ("coaster_jobs_resubmitted_total", "counter", "Jobs that went back to the queue.", [("", pool.resubmitted)]),
        ("coaster_connections", "gauge", "Open connections of clients and workers.", [("", len(service.peers))]),
        ("coaster_connections_refused_total", "counter", "Peers that were not let in.", [("", service.refused)]),
        ("coaster_received_bytes_total", "counter", "Bytes from clients and workers.", [("", service.received.total)]),
        ("coaster_sent_bytes_total", "counter", "Bytes to clients and workers.", [("", service.sent.total)]),
        ("coaster_memory_bytes", "gauge", "Resident memory of the service.", [("", memory()[1])]),
        ("coaster_worker_busy_slots", "gauge", "Slots with a job.", [
            ('{block="%s",id="%s",host="%s"}' % (_label(worker.block), worker.id, _label(worker.host)), len(worker.jobs))
            for worker in pool.workers()]),
    ]
    lines = []
    for name, kind, meaning, samples in families:
        lines += ["# HELP %s %s" % (name, meaning), "# TYPE %s %s" % (name, kind)]
        lines += ["%s%s %s" % (name, labels, repr(value)) for labels, value in samples]
    return "\n".join(lines) + "\n"


def memory() -> tuple[int, int]:
    """Largest and present resident memory of this process in bytes; (0, 0) without /proc."""
    fields = {}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                key, _colon, value = line.partition(":")
                if key in ("VmHWM", "VmRSS"):
                    fields[key] = int(value.split()[0]) * 1024
    except OSError:
        return 0, 0
    used = fields.get("VmRSS", 0)
    return max(fields.get("VmHWM", 0), used), used


def _block(block: Block) -> dict[str, Any]:
    slots = [slot for worker in block.workers.values() for slot in worker.slots]
    busy = sum(slot.job is not None for slot in slots)
    since = _ms(block.since)
    return {
        "id": block.id, "running": True, "workerCount": len(slots), "jobsCompleted": block.completed,
        "walltime": _FOREVER, "utilization": round(busy / len(slots), 4),
        "creationTime": since, "startTime": since, "shutdownTime": None, "terminationTime": None, "endTime": since + _FOREVER,
        "nodes": [
            {"id": worker.number, "startTime": _ms(worker.since), "hostname": worker.host} for worker in block.workers.values()
        ],
        "cpus": [
            {"id": number, "quality": slot.quality, "job": _job(slot.job) if slot.job else None} for number, slot in enumerate(slots)
        ],
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.identity, "startTime": _ms(job.started), "endTime": _ms(job.started + job.walltime),
        "walltime": job.walltime * 1000,
    }


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _label(text: str) -> str:
    safe = text.encode("utf-8", "replace").decode("utf-8")
    return safe.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class _Connection(asyncio.Protocol):
    """One HTTP request and its answer."""

    transport: asyncio.Transport
    limit: asyncio.TimerHandle

    def __init__(self, control: Control) -> None:
        self.control = control
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.control.connections += 1
        if self.control.connections > MAX_CONNECTIONS:
            self.transport.abort()
        self.limit = asyncio.get_running_loop().call_later(TIME_LIMIT, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.control.connections -= 1
        self.limit.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.data += data
        head, end, _rest = self.data.partition(b"\r\n\r\n")
        if len(head) > MAX_REQUEST:
            self._answer(413, "The request is larger than %d bytes." % MAX_REQUEST)
        elif end:
            self._request(head.decode("latin-1").split("\r\n"))

    def _request(self, lines: list[str]) -> None:
        words = lines[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines[1:])}
        if len(words) != 3 or not words[1].startswith("/") or not words[2].startswith("HTTP/1."):
            self._answer(400, "This is not an HTTP/1 request.")
        elif words[0] != "GET":
            self._answer(405, "Only GET is allowed.", "Allow: GET\r\n")
        elif _host(headers.get("host", "")) not in _LOCAL_NAMES:
            # A web page that points its own name at this machine must not read this through the user's browser.
            self._answer(403, "The Host header must name this machine as localhost.")
        else:
            try:
                remote, local = (self.transport.get_extra_info(end) for end in ("peername", "sockname"))
                self.control.service.admission.check_user((plain(remote[0]), remote[1]), (plain(local[0]), local[1]))
            except AdmissionError as error:
                self._answer(403, "Refused: %s." % error)
                return
            found = self.control.answer(words[1])
            if found is None:
                self._answer(404, "There are /wmInfo, /probe, /list, /get?name=, /getAll and /metrics.")
            else:
                self._send(200, found[0], found[1])

    def _answer(self, code: int, text: str, headers: str = "") -> None:
        self._send(code, "text/plain; charset=utf-8", text + "\n", headers)

    def _send(self, code: int, kind: str, text: str, headers: str = "") -> None:
        body = text.encode("utf-8", "replace")
        head = "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\nCache-Control: no-store\r\n%s\r\n" % (
            code, _REASONS[code], kind, len(body), headers)
        self.transport.write(head.encode("latin-1") + body)
        self.transport.close()


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urllib.parse.urlsplit("//" + header).hostname or ""
    except ValueError:
        return "?"
