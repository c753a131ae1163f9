# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to start a pool: seconds and client CPU, beside other tools that do the same, in one run on one machine.

    python -m benchmarks.start                                      1, 4, 16 and 48 isolated test hosts, five rounds
    python -m benchmarks.start --hosts 16 --runs 7 --against-swift SWIFT/bin

Needs root, as isolated test hosts do. ``docs/performance.md`` has the method and the last results.
"""
