"""peer.py - the public Mooncake's engine, driven line by line, for public_test.lua.

A line of stdin is a command with its arguments; its answer is a line of stdout: "ok" and
what came of it, or "no" and why. The wheel is mooncake-transfer-engine-non-cuda.
"""

import ctypes
import mmap
import os
import random
import sys
import threading
import zlib

PROTOCOL = os.environ.get("PEER_PROTOCOL", "tcp")
DEVICES = os.environ.get("PEER_DEVICES", "")
if PROTOCOL == "tcp":
    os.environ["MC_FORCE_TCP"] = "1"

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode  # noqa: E402

engine = TransferEngine()
buffers = {}


def view(addr, length):
    """The bytes of a buffer of ours."""
    for start, (memory, size) in buffers.items():
        if start <= addr and addr + length <= start + size:
            return memoryview(memory)[addr - start:addr - start + length]
    raise ValueError("no such buffer")


def do_open(name, metadata):
    r = engine.initialize(name, metadata, PROTOCOL, DEVICES)
    if metadata == "P2PHANDSHAKE":
        host = name if name.endswith("]") else name.rsplit(":", 1)[0]
        name = f"{host}:{engine.get_rpc_port()}"
    return f"{r} {name}"


def do_alloc(length):
    length = int(length)
    memory = mmap.mmap(-1, length)
    addr = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    r = engine.register_memory(addr, length)
    buffers[addr] = memory, length
    return f"{r} {addr}"


def do_drop(addr):
    return engine.unregister_memory(int(addr))


def do_fill(addr, length, seed):
    pattern = random.Random(int(seed)).randbytes(min(int(length), 1 << 16))
    to = view(int(addr), int(length))
    for at in range(0, len(to), len(pattern)):
        n = min(len(pattern), len(to) - at)
        to[at:at + n] = pattern[:n]
    return zlib.crc32(to)


def do_crc(addr, length):
    return zlib.crc32(view(int(addr), int(length)))


def do_move(op, name, near, far, length):
    move = engine.transfer_sync_read if op == "read" else engine.transfer_sync_write
    return move(name, int(near), int(far), int(length))


def do_batch(op, name, near, far, length, stride, n):
    move = engine.batch_transfer_sync_read if op == "read" else \
        engine.batch_transfer_sync_write
    at = [i * int(stride) for i in range(int(n))]
    return move(name, [int(near) + i for i in at], [int(far) + i for i in at],
                [int(length)] * int(n))


def do_async(name, near, far, length, n):
    ids = [engine.batch_transfer_async_write(
        name, [int(near) + i * int(length)], [int(far) + i * int(length)],
        [int(length)]) for i in range(int(n))]
    return engine.get_batch_transfer_status(ids)


def do_threads(n, rounds, name, near, far, length):
    """Each thread writes and reads back a part of its own; how many went wrong."""
    length, wrong = int(length), []

    def main(i):
        a, b = int(near) + i * length, int(far) + i * length
        for k in range(int(rounds)):
            crc = do_fill(a, length, i * 1000 + k)
            if engine.transfer_sync_write(name, a, b, length):
                wrong.append("write")
            view(a, length)[:] = bytes(length)
            if engine.transfer_sync_read(name, a, b, length):
                wrong.append("read")
            if do_crc(a, length) != crc:
                wrong.append("bytes")

    threads = [threading.Thread(target=main, args=(i,)) for i in range(int(n))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return f"{len(wrong)} {' '.join(wrong[:5])}"


def do_notify(name, near, far, length, key, message):
    return engine.transfer_sync(name, int(near), int(far), int(length),
                                TransferOpcode.Write, TransferNotify(key, message))


def do_notes():
    return " ".join(f"{n.name}={n.msg}" for n in engine.get_notifies())


def do_probe(name):
    return engine.send_probe(name)


def do_first(name):
    return engine.get_first_buffer_address(name)


for line in sys.stdin:
    command, *arguments = line.split()
    try:
        answer = f"ok {globals()['do_' + command](*arguments)}"
    except Exception as why:  # a test reads it
        answer = f"no {why!r}"
    print(answer, flush=True)
