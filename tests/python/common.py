"""common.py - what the tests share: an engine with memory, and a peer."""

import ctypes
import logging
import time
import unittest

from mooncake.engine import TransferEngine
from peer import Peer

# Failures are wanted here; assertLogs() sees them all the same.
logging.getLogger("mooncake.engine").addHandler(logging.NullHandler())
logging.getLogger("mooncake.engine").propagate = False

SIZE = 4 << 20


class Memory:
    def __init__(self, size=SIZE):
        self.buffer = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self.buffer)
        self.size = size

    def fill(self, seed, length=None):
        """Bytes that differ from those of other seeds; returns them."""
        length = length or self.size
        pattern = bytes((seed * 7 + i * 31 + (i >> 8)) & 255 for i in range(4096))
        data = (pattern * (length // 4096 + 1))[:length]
        self.buffer[:length] = data
        return data

    def bytes(self, offset, length):
        return ctypes.string_at(self.address + offset, length)


def engine_with(memory=None, host="127.0.0.1", metadata="P2PHANDSHAKE"):
    engine = TransferEngine()
    if engine.initialize(host, metadata, "tcp", "") != 0:
        raise RuntimeError(engine.last_error())
    if memory:
        assert engine.register_memory(memory.address, memory.size) == 0
    return engine


def until(condition, seconds=5):
    """The first value that is true, or the last."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.002)


class Pair(unittest.TestCase):
    """An engine here, one in another process, and what one wrote to memory."""

    env = None

    @classmethod
    def setUpClass(cls):
        cls.peer = Peer(cls.env)
        cls.memory = Memory()
        cls.engine = engine_with(cls.memory)
        cls.there = cls.peer.session

    @classmethod
    def tearDownClass(cls):
        cls.peer.close()
        del cls.engine
