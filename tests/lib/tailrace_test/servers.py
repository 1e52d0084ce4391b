"""Where the real servers are: built once by tests/servers/setup.sh into a cache outside the clone."""

import functools
import pathlib
import subprocess

TESTS = pathlib.Path(__file__).resolve().parents[2]
ROOT = TESTS.parent


@functools.lru_cache(maxsize=None)
def server_dir(name):
    """The folder of loki, elasticsearch, opensearch or kubernetes; builds it when missing (minutes, once)."""
    run = subprocess.run(
        [str(TESTS / "servers" / "setup.sh"), name],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=3600, check=False,
    )
    assert run.returncode == 0, f"the server {name} could not be set up:\n{run.stderr[-4000:]}"
    return pathlib.Path(run.stdout.split()[-1])
