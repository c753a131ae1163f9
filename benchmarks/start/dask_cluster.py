# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by a Python that has Dask: an SSHCluster with the scheduler on the first host and a worker on each.

    dask_cluster.py READY USER IDENTITY KNOWN_HOSTS REMOTE_PYTHON HOST...

Makes the file READY when the scheduler lists every worker, and stays.
"""

import pathlib
import signal
import sys

from dask.distributed import Client, SSHCluster


def main(ready, user, identity, known_hosts, remote_python, *hosts):
    cluster = SSHCluster(
        [hosts[0], *hosts], connect_options={"username": user, "client_keys": [identity], "known_hosts": known_hosts},
        worker_options={"nthreads": 2}, scheduler_options={"host": hosts[0], "port": 0, "dashboard": False}, remote_python=remote_python,
    )
    Client(cluster).wait_for_workers(len(hosts))
    pathlib.Path(ready).touch()
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
