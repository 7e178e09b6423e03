"""transfer_engine_bench: how fast blocks move between two processes, with the
flags of the public program of that name. What only RDMA and VRAM need is taken
and has no effect. `mooncake bench` is the thorough one.

    transfer_engine_bench --mode=target --metadata_server=P2PHANDSHAKE \\
        --local_server_name=10.0.0.2 --protocol=tcp
    transfer_engine_bench --metadata_server=P2PHANDSHAKE --segment_id=10.0.0.2:15999 \\
        --local_server_name=10.0.0.1 --protocol=tcp --operation=write
"""

import signal
import socket
import sys
import threading
import time
from typing import Dict, List

from .engine import TransferEngine

# name: default. The type is that of the default.
FLAGS = {
    "local_server_name": socket.gethostname(),
    "metadata_server": "192.168.3.77:2379",
    "mode": "initiator",
    "operation": "read",
    "protocol": "rdma",
    "device_name": "",
    "segment_id": "192.168.3.76",
    "buffer_size": 1 << 30,
    "batch_size": 128,
    "block_size": 65536,
    "duration": 10,
    "threads": 12,
    "report_unit": "GB",
    "report_precision": 2,
    "auto_discovery": False,
    "nic_priority_matrix": "",
    "backend": "classic",
    "use_vram": True,
    "init_mem": True,
    "gpu_id": 0,
}
UNITS = {
    "GB": 1e9,
    "GiB": 2**30,
    "Gb": 1e9 / 8,
    "MB": 1e6,
    "MiB": 2**20,
    "Mb": 1e6 / 8,
    "KB": 1e3,
    "KiB": 2**10,
    "Kb": 1e3 / 8,
}


class Wrong(Exception):
    """A flag that is none, or has a value that it cannot have."""


def _value(name: str, text: str):
    default = FLAGS[name]
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise Wrong("--%s is true or false, not '%s'" % (name, text))
        return text.lower() in ("true", "1", "yes")
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise Wrong("--%s is a number, not '%s'" % (name, text)) from None
    return text


def parse(arguments: List[str]) -> Dict[str, object]:
    """Flags with one dash or two, "-" or "_", "=" or a blank before the value."""
    flags = dict(FLAGS)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("-"):
            raise Wrong("'%s' is no flag" % word)
        if name.startswith("no") and isinstance(FLAGS.get(name[2:]), bool):
            name, equals, text = name[2:], "=", "false"
        if name not in FLAGS:
            raise Wrong("--%s is no flag: there are --%s" % (name, ", --".join(FLAGS)))
        if not equals and isinstance(FLAGS[name], bool):
            text = "true"
        elif not equals:
            if not rest:
                raise Wrong("--%s needs a value" % name)
            text = rest.pop(0)
        flags[name] = _value(name, text)
    for name, known in (
        ("mode", ("initiator", "target")),
        ("operation", ("read", "write")),
        ("report_unit", tuple(UNITS)),
    ):
        if flags[name] not in known:
            raise Wrong("--%s is one of %s" % (name, ", ".join(known)))
    return flags


def _open(flags) -> TransferEngine:
    engine = TransferEngine()
    if engine.initialize(
        flags["local_server_name"],
        flags["metadata_server"],
        flags["protocol"],
        flags["device_name"],
    ):
        raise SystemExit(1)
    return engine


def _memory(engine: TransferEngine, size: int) -> int:
    address = engine.allocate_managed_buffer(size)
    if not address:
        raise SystemExit(1)
    return address


def target(flags) -> int:
    stopping = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    engine = _open(flags)
    _memory(engine, flags["buffer_size"])
    name = flags["local_server_name"]
    if flags["metadata_server"] == "P2PHANDSHAKE":
        host = name.rsplit(":", 1)[0] if name.count(":") == 1 else name
        name = "%s:%d" % (host, engine.get_rpc_port())
    print("target: --segment_id=%s" % name, flush=True)
    signal.sigwait(stopping)
    return 0


class Run:
    """What the threads of an initiator share."""

    def __init__(self, flags) -> None:
        self.flags = flags
        self.engine = _open(flags)
        self.here = _memory(self.engine, flags["buffer_size"])
        self.there = self.engine.get_first_buffer_address(flags["segment_id"])
        if not self.there:
            raise SystemExit(1)
        self.lock = threading.Lock()
        self.batches = 0
        self.failed = False
        self.stop = False

    def work(self, thread: int) -> None:
        n, block = self.flags["batch_size"], self.flags["block_size"]
        places = max(self.flags["buffer_size"] // block, 1)
        stride = self.flags["threads"]
        offsets = [(i * stride + thread) % places * block for i in range(n)]
        here = [self.here + o for o in offsets]
        there = [self.there + o for o in offsets]
        move = (
            self.engine.batch_transfer_sync_write
            if self.flags["operation"] == "write"
            else self.engine.batch_transfer_sync_read
        )
        done = 0
        while not self.stop and not self.failed:
            if move(self.flags["segment_id"], here, there, [block] * n):
                self.failed = True
                break
            done += 1
        with self.lock:
            self.batches += done


def initiator(flags) -> int:
    run = Run(flags)
    threads = [
        threading.Thread(target=run.work, args=(i,)) for i in range(flags["threads"])
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    while time.monotonic() - start < flags["duration"] and not run.failed:
        time.sleep(0.01)
    run.stop = True
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    moved = run.batches * flags["batch_size"] * flags["block_size"]
    print(
        "Test completed: duration %.2f, batch count %d, throughput %.*f %s/s"
        % (
            seconds,
            run.batches,
            flags["report_precision"],
            moved / seconds / UNITS[flags["report_unit"]],
            flags["report_unit"],
        )
    )
    return 1 if run.failed else 0


def main(arguments: List[str]) -> int:
    try:
        flags = parse(arguments)
    except Wrong as error:
        print("transfer_engine_bench: %s" % error, file=sys.stderr)
        return 2
    return target(flags) if flags["mode"] == "target" else initiator(flags)
