"""peers_engine.py - one process of two that peers_engine.lua measures.

  python peers_engine.py mooncake|nixl SPAN

It opens an engine with SPAN bytes of private memory, and prints, as a line of JSON,
what a peer must know to reach them. Then it does what lines of JSON on stdin say:

  {"what": "connect", "peer": ...}      the first line of the other process
  {"what": "run", "op": "write", "block": 4096, "batch": 16, "ms": 300}

answering each with a line, {"error": "..."} if it went wrong, until stdin ends. Which
engine `mooncake` is, and what it may use, is the environment's choice: PEER_PROTOCOL
(tcp) and PEER_DEVICES are what it is opened with. Lists of addresses are made before
the clock runs.
"""

import ctypes
import json
import mmap
import os
import sys
from time import perf_counter_ns

STEP = 7919
HOST = "127.0.0.1"
PROBE = 1 << 16


def offsets(span, block, batch):
    return [i * STEP % (span // block) * block for i in range(batch)]


class Mooncake:
    """mooncake.engine, the public one or ours."""

    def __init__(self, address, span):
        from mooncake.engine import TransferEngine

        self.address = address
        self.engine = TransferEngine()
        protocol = os.environ.get("PEER_PROTOCOL", "tcp")
        devices = os.environ.get("PEER_DEVICES", "")
        if self.engine.initialize(HOST, "P2PHANDSHAKE", protocol, devices):
            raise RuntimeError("initialize() failed")
        if self.engine.register_memory(address, span):
            raise RuntimeError("register_memory() failed")
        self.me = {
            "session": "%s:%d" % (HOST, self.engine.get_rpc_port()),
            "address": address,
        }

    def connect(self, peer):
        self.session, self.far = peer["session"], peer["address"]

    def batch(self, op, places, block):
        """A function that moves these blocks, and returns when they are there."""
        session, name = self.session, "transfer_sync_" + op
        here = [self.address + at for at in places]
        there = [self.far + at for at in places]
        sizes = [block] * len(places)
        if len(places) == 1:
            here, there, sizes = here[0], there[0], block
        else:
            name = "batch_" + name
        transfer = getattr(self.engine, name)

        def move():
            if transfer(session, here, there, sizes):
                raise RuntimeError("%s() failed" % name)

        return move


class Nixl:
    """A NIXL agent with UCX. Requests are prepared once, and posted each time anew,
    which is the fastest way that it offers; the caller polls."""

    def __init__(self, address, span):
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        self.address = address
        self.agent = nixl_agent("agent-%d" % os.getpid(), nixl_agent_config())
        self.agent.register_memory([(address, span, 0, "")], "DRAM")
        about = self.agent.get_agent_metadata()
        self.me = {"metadata": about.hex(), "address": address}

    def connect(self, peer):
        about = bytes.fromhex(peer["metadata"])
        self.peer, self.far = self.agent.add_remote_agent(about), peer["address"]

    def prepared(self, agent, base, places, block):
        blocks = [(base + at, block, 0) for at in places]
        return self.agent.prep_xfer_dlist(agent, blocks, "DRAM")

    def batch(self, op, places, block):
        here = self.prepared("NIXL_INIT_AGENT", self.address, places, block)
        there = self.prepared(self.peer, self.far, places, block)
        every = list(range(len(places)))
        agent = self.agent
        handle = agent.make_prepped_xfer(op.upper(), here, every, there, every)

        def move():
            state = agent.transfer(handle)
            while state == "PROC":
                state = agent.check_xfer_state(handle)
            if state != "DONE":
                raise RuntimeError("a transfer ended as %s" % state)

        return move


def check(engine):
    """What is written and read back has been there."""
    sent = os.urandom(PROBE)
    ctypes.memmove(engine.address, sent, PROBE)
    engine.batch("write", [0], PROBE)()
    ctypes.memset(engine.address, 0, PROBE)
    engine.batch("read", [0], PROBE)()
    if ctypes.string_at(engine.address, PROBE) != sent:
        raise RuntimeError("what was read is not what was written")


def measure(move, seconds):
    """Times of batches, sorted, and of all, in ns."""
    times = []
    start = now = perf_counter_ns()
    end = start + seconds * 1e9
    while now < end:
        before = now
        move()
        now = perf_counter_ns()
        times.append(now - before)
    return sorted(times), now - start


def run(engine, span, op, block, batch, ms):
    move = engine.batch(op, offsets(span, block, batch), block)
    times, wall = measure(move, ms / 1e3)
    n = len(times)
    return {
        "bytes": n * batch * block,
        "gb_per_s": n * batch * block / wall,
        "p50_us": times[n // 2] / 1e3,
        "p99_us": times[n * 99 // 100] / 1e3,
    }


def open_engine(kind, span):
    memory = mmap.mmap(-1, span, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # It is there for as long as this object.
    start = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(start)
    ctypes.memset(address, 1, span)
    engine = {"mooncake": Mooncake, "nixl": Nixl}[kind](address, span)
    engine.memory = start
    return engine


def answer(engine, span, what, **more):
    if what == "run":
        return run(engine, span, **more)
    engine.connect(**more)
    check(engine)
    return {}


def main(kind, span):
    # Engines print. The answers go where stdout was.
    out = os.fdopen(os.dup(1), "w", 1)
    os.dup2(2, 1)

    def say(function, *arguments, **more):
        try:
            text = json.dumps(function(*arguments, **more))
        except Exception as error:
            text = json.dumps({"error": "%s: %s" % (type(error).__name__, error)})
        print(text, file=out)

    engine = None

    def start():
        nonlocal engine
        engine = open_engine(kind, span)
        return engine.me

    say(start)
    for line in iter(sys.stdin.readline, ""):
        say(answer, engine, span, **json.loads(line))
    out.flush()
    os._exit(0)                 # some engines take seconds to close


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
