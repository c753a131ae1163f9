# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster import pool as module
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    SUBMITTED,
    SUBMITTING,
    Status,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.pool import Cancel, Client, Drop, Job, Pool, PoolError, Send, Tell, Worker

MINUTE = 60


def told(actions: list[Any]) -> list[Any]:
    """Actions as plain data."""
    plain: list[Any] = []
    for action in actions:
        if isinstance(action, Tell):
            plain.append((action.identity, action.status.code))
        elif isinstance(action, Send):
            plain.append(("send", str(action.worker), action.job.identity))
        elif isinstance(action, Cancel):
            plain.append(("cancel", str(action.worker), action.identity))
        else:
            assert isinstance(action, Drop)
            plain.append(("drop", str(action.worker)))
    return plain


def submit(pool: Pool, client: Client, identity: str = "cog-1", walltime: int = 600, size: int = 0) -> tuple[Job, list[Any]]:
    job, actions = pool.submit(client, identity, walltime, "description", size)
    return job, told(actions)


def sent(actions: list[Any]) -> list[str]:
    return [action.job.client_identity for action in actions if isinstance(action, Send)]


def one_of_each(slots: int = 1, **settings: Any) -> tuple[Pool, Worker, Client]:
    pool = Pool(100, **settings)
    worker, actions = pool.add_worker("handle", "w1", "node1", slots)
    assert actions == []
    return pool, worker, pool.add_client("handle", 7)


# the life of a job


def test_a_drained_worker_gets_no_more_jobs_and_keeps_those_it_has() -> None:
    pool, worker, client = one_of_each(slots=2)
    job, _actions = submit(pool, client, "cog-1")
    pool.drain(worker)
    pool.drain(worker)
    assert submit(pool, client, "cog-2")[1] == []
    assert told(pool.status(worker, job.identity, Status(COMPLETED))) == [("cog-1", SUBMITTED), ("cog-1", COMPLETED)]
    assert (pool.queued, worker.jobs) == (1, {})
    _other, actions = pool.add_worker("other", "w2", "node2")
    assert sent(actions) == ["cog-2"]
    assert pool.worker_lost(worker) == []
    assert pool.workers_lost == 0
    assert submit(pool, client, "cog-3")[1] == []


def test_a_job_from_submission_to_its_end() -> None:
    pool, worker, client = one_of_each()
    job, actions = submit(pool, client)
    assert job.identity == "cog-1:100"
    assert actions == [("cog-1", SUBMITTING), ("send", "w1:000000", "cog-1:100")]
    assert (pool.queued, pool.active, client.jobs) == (0, 1, {"cog-1": job})
    assert told(pool.accepted(worker, "cog-1:100")) == [("cog-1", SUBMITTED)]
    assert told(pool.accepted(worker, "cog-1:100")) == []
    assert told(pool.status(worker, "cog-1:100", Status(ACTIVE))) == [("cog-1", ACTIVE)]
    done = Status(COMPLETED, 0, "", 0, b"out", b"err")
    last = pool.status(worker, "cog-1:100", done)
    assert told(last) == [("cog-1", COMPLETED)]
    assert last[0].status is done
    assert (pool.queued, pool.active, pool.completed, worker.completed, client.jobs, worker.jobs) == (0, 0, 1, 1, {}, {})


def test_a_status_that_comes_twice_or_for_nothing_is_passed_over() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    pool.status(worker, job.identity, Status(COMPLETED))
    assert pool.status(worker, job.identity, Status(COMPLETED)) == []
    assert pool.status(worker, "unknown", Status(FAILED)) == []
    assert pool.accepted(worker, "unknown") == []
    assert (pool.completed, pool.failed) == (1, 0)


def test_a_worker_cannot_report_on_the_job_of_another() -> None:
    pool, _worker, client = one_of_each()
    job, _actions = submit(pool, client)
    other, _actions2 = pool.add_worker("other", "w2", "node2")
    assert pool.status(other, job.identity, Status(COMPLETED)) == []
    assert pool.active == 1


def test_a_status_before_the_workers_acceptance_means_accepted() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    assert told(pool.status(worker, job.identity, Status(ACTIVE))) == [("cog-1", SUBMITTED), ("cog-1", ACTIVE)]
    assert pool.accepted(worker, job.identity) == []


def test_a_job_waits_for_a_worker() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    assert submit(pool, client)[1] == []
    assert pool.queued == 1
    _worker, actions = pool.add_worker("handle", "w1", "node1")
    assert told(actions) == [("cog-1", SUBMITTING), ("send", "w1:000000", "cog-1:0")]


def test_a_rejected_job_fails_and_gives_its_slot_back() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    actions = pool.rejected(worker, job.identity, "Missing executable")
    assert told(actions) == [("cog-1", FAILED)]
    assert actions[0].status.message == "Block task failed: Missing executable"
    assert submit(pool, client, "cog-2")[1][1] == ("send", "w1:000000", "cog-2:101")
    assert pool.failed == worker.failed == 1


def test_a_walltime_over_the_limit_fails_at_once() -> None:
    pool, _worker, client = one_of_each()
    job, actions = pool.submit(client, "cog-1", 9000 * 3600, None)
    assert told(actions) == [("cog-1", FAILED)]
    assert actions[0].status.message == "Task walltime > maxJobTime - reserve (9000:00:00 > 8639:59:00)"
    assert (pool.active, client.jobs) == (0, {})
    assert submit(pool, client, "cog-2", jobs.MAX_WALLTIME)[1][-1][0] == "send"


# queue and slots


def test_longest_walltime_first_then_first_come() -> None:
    # The measured example of coaster-protocol 1.4.
    pool, worker, client = one_of_each()
    first, _actions = submit(pool, client, "first-0")
    for name, walltime in (("a", 5), ("b", 10), ("c", 60), ("d", 5), ("e", 60), ("f", 5), ("g", 9.983), ("h", 150)):
        submit(pool, client, name, int(walltime * MINUTE))
    order = []
    running = first.identity
    for _times in range(8):
        actions = pool.status(worker, running, Status(COMPLETED))
        order += sent(actions)
        running = actions[-1].job.identity
    assert order == list("hcebgadf")


def test_slots_are_never_exceeded() -> None:
    pool, worker, client = one_of_each(slots=3)
    for number in range(5):
        submit(pool, client, "cog-%d" % number)
    assert (len(worker.jobs), pool.queued, pool.slots) == (3, 2, 3)


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-4, 1), (3, 3), (10 ** 6, module.MAX_SLOTS)])
def test_the_number_of_slots_has_limits(asked: int, given: int) -> None:
    worker, _actions = Pool().add_worker("handle", "w1", "node1", asked)
    assert len(worker.slots) == given


def test_a_few_jobs_spread_over_all_workers() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    for number in range(4):
        pool.add_worker("handle", "w%d" % number, "node", 4)
    used = [submit(pool, client, "cog-%d" % number)[1][1][1] for number in range(4)]
    assert sorted(used) == ["w%d:000000" % number for number in range(4)]


def test_the_slot_with_the_best_record_comes_first() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    workers = [pool.add_worker("handle", name, "node")[0] for name in ("good", "bad", "new")]
    for code in (COMPLETED, FAILED):
        running = {}
        for number in range(3):
            job, _actions = submit(pool, client, "%d-%d" % (code, number))
            assert job.slot is not None
            running[job.slot.worker.block] = job
        pool.status(workers[0], running["good"].identity, Status(COMPLETED))
        pool.status(workers[1], running["bad"].identity, Status(FAILED))
        pool.status(workers[2], running["new"].identity, Status(CANCELED))
    assert [worker.slots[0].quality for worker in workers] == [3.0, pytest.approx(1 / 3), 1.0]
    assert [submit(pool, client, "last-%d" % number)[1][1][1] for number in range(3)] == ["good:000000", "new:000000", "bad:000000"]


def test_equal_slots_take_turns() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    workers = {name: pool.add_worker("handle", name, "node")[0] for name in "abc"}
    order = []
    for number in range(6):
        job, actions = submit(pool, client, "cog-%d" % number)
        name = actions[1][1][0]
        order.append(name)
        pool.status(workers[name], job.identity, Status(CANCELED))
    assert order == list("abcabc")


# loss of a worker


def test_a_lost_worker_fails_its_jobs_and_names_itself() -> None:
    pool, worker, client = one_of_each(slots=2)
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    submit(pool, client, "cog-3")
    actions = pool.worker_lost(worker)
    assert told(actions) == [("cog-1", FAILED), ("cog-2", FAILED)]
    assert {(action.status.exit_code, action.status.message) for action in actions} == {
        (0, "Block task failed: Connection to worker lost (worker w1:000000 on node1)")}
    assert (pool.queued, pool.active, pool.slots, pool.workers_lost, pool.failed) == (1, 0, 0, 1, 2)
    assert list(pool.workers()) == []
    assert pool.worker_lost(worker) == []
    assert pool.workers_lost == 1


def test_a_late_status_of_a_lost_worker_is_passed_over() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    pool.worker_lost(worker)
    assert pool.status(worker, job.identity, Status(COMPLETED)) == []


def test_idle_slots_of_a_lost_worker_get_no_jobs() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    lost, _actions = pool.add_worker("handle", "lost", "node", 2)
    pool.add_worker("handle", "good", "node", 4)
    pool.worker_lost(lost)
    assert {submit(pool, client, "cog-%d" % number)[1][1][1] for number in range(4)} == {"good:000000"}
    assert submit(pool, client, "cog-5")[1] == []


def test_idle_slots_of_lost_workers_are_cleared_away() -> None:
    pool = Pool()
    for number in range(200):
        worker, _actions = pool.add_worker("handle", "w%d" % number, "node", 4)
        pool.worker_lost(worker)
        assert len(pool._idle) <= 4
    assert pool.slots == 0


def test_a_job_of_a_lost_worker_goes_back_to_its_place_in_the_queue() -> None:
    pool, worker, client = one_of_each(resubmit=2)
    first, _actions = submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    assert first.identity == "cog-1:100"
    assert told(pool.worker_lost(worker)) == []
    assert (pool.queued, pool.resubmitted) == (2, 1)
    second, actions = pool.add_worker("handle", "w1", "node1")
    assert told(actions) == [("cog-1", SUBMITTING), ("send", "w1:000001", "cog-1:100:1")]
    assert pool.status(second, "cog-1:100", Status(COMPLETED)) == []
    assert told(pool.worker_lost(second)) == []
    third, actions = pool.add_worker("handle", "w1", "node1")
    assert told(actions) == [("cog-1", SUBMITTING), ("send", "w1:000002", "cog-1:100:2")]
    actions = pool.worker_lost(third)
    assert told(actions) == [("cog-1", FAILED)]
    assert actions[0].status.message.endswith("(worker w1:000002 on node1)")
    assert (pool.queued, pool.failed, pool.resubmitted) == (1, 1, 2)


def test_a_cancelled_job_is_not_resubmitted() -> None:
    pool, worker, client = one_of_each(resubmit=2)
    submit(pool, client)
    pool.cancel(client, "cog-1")
    assert told(pool.worker_lost(worker)) == [("cog-1", FAILED)]


def test_a_lost_clients_job_is_not_resubmitted() -> None:
    pool, worker, client = one_of_each(resubmit=2)
    submit(pool, client)
    pool.client_lost(client)
    assert told(pool.worker_lost(worker)) == []
    assert (pool.queued, pool.active, pool.failed) == (0, 0, 1)


def test_worker_ids_count_per_block_and_go_on() -> None:
    pool = Pool()
    first, _actions = pool.add_worker("handle", "w1", "node")
    second, _actions = pool.add_worker("handle", "w1", "node")
    other, _actions = pool.add_worker("handle", "w2", "node")
    assert [str(worker) for worker in (first, second, other)] == ["w1:000000", "w1:000001", "w2:000000"]
    pool.worker_lost(first)
    pool.worker_lost(second)
    assert pool.add_worker("handle", "w1", "node")[0].id == "000002"


def test_empty_blocks_are_remembered_in_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EMPTY_BLOCKS", 3)
    pool = Pool()
    for name in "abcd":
        pool.worker_lost(pool.add_worker("handle", name, "node")[0])
    assert list(pool.blocks) == list("bcd")
    kept, _actions = pool.add_worker("handle", "b", "node")
    pool.worker_lost(pool.add_worker("handle", "e", "node")[0])
    assert list(pool.blocks) == list("bcde")
    assert kept.id == "000001"


# a worker that comes back


def test_a_worker_that_comes_back_ends_what_is_not_wanted_any_more() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client)
    pool.worker_lost(worker)
    _back, actions = pool.add_worker("handle", "w1", "node1", 1, ["cog-1:100", "cog-9:1", "cog-9:1"])
    assert told(actions) == [("cancel", "w1:000001", "cog-1:100"), ("cancel", "w1:000001", "cog-9:1")]


def test_a_worker_that_comes_back_before_its_loss_was_seen_keeps_its_jobs() -> None:
    pool, worker, client = one_of_each(slots=2)
    kept, _actions = submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    submit(pool, client, "cog-3")
    back, actions = pool.add_worker("handle", "w1", "node1", 2, ["cog-1:100", "other-1:5"], now=5.0)
    assert told(actions) == [
        ("cancel", "w1:000001", "other-1:5"), ("drop", "w1:000000"), ("cog-2", FAILED),
        ("cog-3", SUBMITTING), ("send", "w1:000001", "cog-3:102"),
    ]
    assert worker.lost
    assert (pool.slots, pool.active, back.since) == (2, 2, 5.0)
    assert told(pool.status(back, kept.identity, Status(COMPLETED))) == [("cog-1", SUBMITTED), ("cog-1", COMPLETED)]
    assert pool.active == 1


def test_a_cancelled_job_that_comes_back_is_cancelled_there() -> None:
    pool, _worker, client = one_of_each()
    submit(pool, client)
    pool.cancel(client, "cog-1")
    back, actions = pool.add_worker("handle", "w1", "node1", 1, ["cog-1:100"])
    assert told(actions) == [("cancel", "w1:000001", "cog-1:100"), ("drop", "w1:000000")]
    assert told(pool.cancel_answered(back, "cog-1:100")) == [("cog-1", SUBMITTED), ("cog-1", CANCELED)]


def test_no_more_jobs_come_back_than_there_are_slots() -> None:
    pool, _worker, client = one_of_each(slots=2)
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    _back, actions = pool.add_worker("handle", "w1", "node1", 1, ["cog-1:100", "cog-2:101"])
    assert told(actions) == [("cancel", "w1:000001", "cog-2:101"), ("drop", "w1:000000"), ("cog-2", FAILED)]
    assert pool.active == 1


def test_jobs_do_not_come_back_to_another_block() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client)
    _other, actions = pool.add_worker("handle", "w2", "node2", 1, ["cog-1:100"])
    assert told(actions) == [("cancel", "w2:000000", "cog-1:100")]
    assert list(worker.jobs) == ["cog-1:100"]


def test_a_worker_alone_in_its_block_replaces_the_others() -> None:
    pool, worker, client = one_of_each(slots=2)
    submit(pool, client)
    back, actions = pool.add_worker("handle", "w1", "node1", 1, alone=True)
    assert told(actions) == [("drop", "w1:000000"), ("cog-1", FAILED)]
    assert list(pool.workers()) == [back]
    assert worker.lost


def test_jobs_of_replaced_workers_go_to_none_of_them() -> None:
    pool, _worker, client = one_of_each(resubmit=3)
    submit(pool, client)
    pool.add_worker("handle", "w1", "node1")
    _back, actions = pool.add_worker("handle", "w1", "node1", 1, alone=True)
    assert told(actions) == [
        ("drop", "w1:000000"), ("drop", "w1:000001"), ("cog-1", SUBMITTING), ("send", "w1:000002", "cog-1:100:1")]


# cancelling


def test_cancelling_a_waiting_job() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    submit(pool, client)
    assert told(pool.cancel(client, "cog-1")) == [("cog-1", CANCELED)]
    assert pool.cancel(client, "cog-1") == []
    assert (pool.queued, pool.cancelled, client.jobs) == (0, 1, {})
    assert pool.add_worker("handle", "w1", "node")[1] == []


def test_cancelling_a_running_job_takes_the_workers_word() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client)
    pool.accepted(worker, "cog-1:100")
    assert told(pool.cancel(client, "cog-1")) == [("cancel", "w1:000000", "cog-1:100")]
    assert pool.cancel(client, "cog-1") == []
    assert told(pool.status(worker, "cog-1:100", Status(CANCELED))) == [("cog-1", CANCELED)]
    assert pool.cancel_answered(worker, "cog-1:100") == []
    assert (pool.cancelled, pool.active) == (1, 0)


def test_a_job_may_end_before_its_cancellation_arrives() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client)
    pool.cancel(client, "cog-1")
    assert told(pool.status(worker, "cog-1:100", Status(COMPLETED)))[-1] == ("cog-1", COMPLETED)


@pytest.mark.parametrize("name", ["cog-1", "cog-1:100", "cog-1:100:1"])
def test_a_job_is_cancelled_by_any_of_its_names(name: str) -> None:
    pool, worker, client = one_of_each(resubmit=1)
    submit(pool, client)
    pool.worker_lost(worker)
    pool.add_worker("handle", "w1", "node1")
    if name == "cog-1:100:1":
        assert pool.cancel(client, name) == []
    else:
        assert told(pool.cancel(client, name)) == [("cancel", "w1:000001", "cog-1:100:1")]


@pytest.mark.parametrize("name", ["cog-2", "cog-1:99", "cog", "", "cog-1:"])
def test_nothing_else_is_cancelled(name: str) -> None:
    pool, _worker, client = one_of_each()
    submit(pool, client)
    assert pool.cancel(client, name) == []


def test_a_client_cannot_cancel_the_job_of_another() -> None:
    pool, _worker, client = one_of_each()
    submit(pool, client)
    assert pool.cancel(pool.add_client("handle", 8), "cog-1") == []


# loss of a client


def test_a_lost_clients_jobs_are_dropped_or_cancelled() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    assert told(pool.client_lost(client)) == [("cancel", "w1:000000", "cog-1:100")]
    assert (pool.queued, pool.active, pool.cancelled) == (0, 1, 1)
    assert pool.client_lost(client) == []
    assert pool.status(worker, "cog-1:100", Status(CANCELED)) == []
    assert (pool.active, pool.cancelled) == (0, 2)


def test_a_client_that_leaves_hears_of_its_running_jobs_only() -> None:
    pool, worker, client = one_of_each()
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    assert told(pool.client_leaves(client)) == [("cancel", "w1:000000", "cog-1:100")]
    assert pool.client_leaves(client) == []
    assert told(pool.status(worker, "cog-1:100", Status(CANCELED))) == [("cog-1", SUBMITTED), ("cog-1", CANCELED)]
    assert client.jobs == {}
    assert submit(pool, client, "cog-3")[1][0] == ("cog-3", SUBMITTING)


def test_the_jobs_of_other_clients_go_on() -> None:
    pool, _worker, client = one_of_each(slots=2)
    other = pool.add_client("handle", 8)
    submit(pool, client, "cog-1")
    submit(pool, other, "cog-1")
    pool.client_lost(client)
    assert pool.active == 2
    assert list(other.jobs) == ["cog-1"]


# limits


def test_an_identity_in_use_is_refused_until_its_job_ends() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    with pytest.raises(PoolError, match="cog-1 belongs to another job"):
        submit(pool, client)
    pool.status(worker, job.identity, Status(COMPLETED))
    submit(pool, client)


def test_the_queue_has_a_limit_in_number() -> None:
    pool = Pool(max_queued=2)
    client = pool.add_client("handle", 1)
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    with pytest.raises(PoolError, match="queue is full: 2 jobs wait"):
        submit(pool, client, "cog-3")
    pool.cancel(client, "cog-1")
    submit(pool, client, "cog-3")


def test_the_queue_has_a_limit_in_bytes() -> None:
    pool = Pool(max_queued_bytes=100)
    client = pool.add_client("handle", 1)
    submit(pool, client, "cog-1", size=60)
    with pytest.raises(PoolError, match="descriptions have 60 bytes"):
        submit(pool, client, "cog-2", size=41)
    pool.add_worker("handle", "w1", "node1")
    submit(pool, client, "cog-2", size=100)
    assert pool.queued_bytes == 100


def test_cancelled_jobs_do_not_stay_in_the_queue() -> None:
    pool = Pool()
    client = pool.add_client("handle", 1)
    submit(pool, client, "keep-0")
    for number in range(1000):
        submit(pool, client, "cog-%d" % number, 3600)
        pool.cancel(client, "cog-%d" % number)
    assert len(pool._queue) < 100
    assert sent(pool.add_worker("handle", "w1", "node")[1]) == ["keep-0"]


# the end


def test_shutting_down_ends_every_job() -> None:
    pool, _worker, client = one_of_each()
    submit(pool, client, "cog-1")
    submit(pool, client, "cog-2")
    actions = pool.shut_down()
    assert [(action.identity, action.status.code, action.status.message) for action in actions] == [
        ("cog-1", FAILED, "Shutting down worker"), ("cog-2", FAILED, "Shutting down service")]
    assert (pool.queued, pool.active, pool.failed) == (0, 0, 2)
    assert pool.shut_down() == []


def test_a_slot_cannot_be_vacated_twice() -> None:
    pool, worker, client = one_of_each()
    job, _actions = submit(pool, client)
    pool.status(worker, job.identity, Status(COMPLETED))
    with pytest.raises(RuntimeError):
        pool._vacate(job)


# any sequence of events


class AnyEvents(RuleBasedStateMachine):
    """Whatever happens: one terminal status for each job, never two, and nobody has more jobs than slots."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(resubmit=1, max_queued=20)
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self.open: dict[tuple[int, str], None] = {}
        self.sent: dict[str, Worker] = {}
        self.number = 0

    def do(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Tell):
                key = (action.client.number, action.identity)
                assert key in self.open, "a status after the terminal one"
                assert action.client.number in self.pool.clients, "a status for a client that is gone"
                if action.status.code in jobs.TERMINAL:
                    del self.open[key]
            elif isinstance(action, Send):
                assert not action.worker.lost
                assert action.job.identity not in self.sent, "an identity used twice"
                self.sent[action.job.identity] = action.worker
            elif isinstance(action, Cancel):
                assert not action.worker.lost
            else:
                self.workers.remove(action.worker)

    @rule(block=st.sampled_from("ab"), slots=st.integers(1, 3), data=st.data(), alone=st.booleans())
    def register(self, block: str, slots: int, data: Any, alone: bool) -> None:
        running = data.draw(st.lists(st.sampled_from([*self.sent, "cog-0:1"]), max_size=4))
        worker, actions = self.pool.add_worker(object(), block, "node", slots, running, alone)
        self.workers.append(worker)
        self.do(actions)

    @rule()
    def connect(self) -> None:
        self.number += 1
        self.clients.append(self.pool.add_client(object(), self.number))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), identity=st.integers(1, 9), walltime=st.sampled_from([60, 600, jobs.MAX_WALLTIME + 1]))
    def submit(self, data: Any, identity: int, walltime: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        name = "cog-%d" % identity
        known = (client.number, name) in self.open
        try:
            self.open[client.number, name] = None
            job, actions = self.pool.submit(client, name, walltime, None, 1)
            assert not known
            self.do(actions)
        except PoolError:
            if not known:
                del self.open[client.number, name]
                assert self.pool.queued == 20

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), code=st.sampled_from([ACTIVE, COMPLETED, COMPLETED, FAILED, CANCELED]))
    def report(self, data: Any, code: int) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        identity = data.draw(st.sampled_from([*worker.jobs, *self.sent, "cog-0:1"]))
        self.do(data.draw(st.sampled_from([
            lambda: self.pool.status(worker, identity, Status(code)),
            lambda: self.pool.accepted(worker, identity),
            lambda: self.pool.rejected(worker, identity, "no"),
            lambda: self.pool.cancel_answered(worker, identity),
        ]))())

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lose_worker(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        self.do(self.pool.worker_lost(worker))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), identity=st.integers(1, 9))
    def cancel(self, data: Any, identity: int) -> None:
        self.do(self.pool.cancel(data.draw(st.sampled_from(self.clients)), "cog-%d" % identity))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), lost=st.booleans())
    def lose_client(self, data: Any, lost: bool) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if lost:
            self.clients.remove(client)
            self.open = {key: None for key in self.open if key[0] != client.number}
            self.do(self.pool.client_lost(client))
        else:
            waiting = [name for name, job in client.jobs.items() if job.slot is None]
            self.do(self.pool.client_leaves(client))
            for name in waiting:
                del self.open[client.number, name]

    @invariant()
    def counts_are_right(self) -> None:
        pool = self.pool
        workers = list(pool.workers())
        assert sorted(map(str, workers)) == sorted(map(str, self.workers))
        assert pool.slots == sum(len(worker.slots) for worker in workers)
        assert pool.active == sum(len(worker.jobs) for worker in workers)
        assert pool.queued == sum(job.waiting for _walltime, _order, job in pool._queue)
        assert not pool.queued or pool.active == pool.slots, "a job waits although a slot is idle"
        for worker in workers:
            assert {slot.job.identity for slot in worker.slots if slot.job is not None} == set(worker.jobs)
        held = [(client.number, name) for client in pool.clients.values() for name in client.jobs]
        assert sorted(held) == sorted(self.open)

    def teardown(self) -> None:
        self.do(self.pool.shut_down())
        assert not self.open, "jobs without a terminal status"


AnyEvents.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyEvents = AnyEvents.TestCase
