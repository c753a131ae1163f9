# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to start a pool: seconds and client CPU, beside other tools that do the same, in one run on one machine.

    python -m benchmarks.start --quick                              1 and 4 isolated test hosts, two minutes
    python -m benchmarks.start                                      1, 4, 16 and 48, five rounds; then 200 for the model
    python -m benchmarks.start --swift-bin-dir SWIFT/bin --write    with Swift/K; into results.json and docs/performance.md

Needs root, as isolated test hosts do. ``docs/performance.md`` has the method and the last results.
"""
