"""The commands that the package installs."""

import os
import sys
from typing import List

HERE = os.path.dirname(os.path.abspath(__file__))


def execute(arguments: List[str]) -> None:
    """Become the program mooncake, which lies beside this file in a wheel."""
    program = os.environ.get("MOONCAKE_PROGRAM") or os.path.join(HERE, "mooncake")
    sys.stdout.flush()
    try:
        os.execv(program, ["mooncake"] + arguments)
    except OSError as error:
        sys.exit("mooncake: cannot run %s: %s" % (program, error.strerror))


def mooncake() -> None:
    execute(sys.argv[1:])


def topology_dump() -> int:
    """Locations and the NICs near them, as JSON."""
    from .engine import TransferEngine

    print(TransferEngine().get_local_topology())
    return 0


def transfer_engine_bench() -> int:
    from . import _bench

    return _bench.main(sys.argv[1:])
