#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The worker of this checkout; ``perl worker.pl`` runs it too, because perl starts what the first line names.
# A shell that reads this hands it to Python.
"exec" "python3" "$0" "$@"

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "plugins", "module_utils"))

from coaster.worker_command import main

sys.exit(main())
