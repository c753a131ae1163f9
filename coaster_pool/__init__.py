# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands beside ``start_pool.py``: one noun a file. Plays and roles never need it."""
