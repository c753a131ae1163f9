# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: what becomes of the jobs, the pool and its processes when hosts, cables and programs fail.

``python -m tests.faults`` injects one fault after another into pools on isolated test hosts that work on a load of jobs,
and prints a table; ``--short`` takes those that fit into two minutes.
"""
