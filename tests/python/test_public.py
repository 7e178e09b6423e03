"""test_public.py - the public Mooncake's own wheel at the other end: all that
test_engine.py does with a peer of ours, and the public engine as who begins.
"""

import os
import socket
import subprocess
import unittest

import test_engine
from common import Memory, Pair, engine_with, until
from peer import LENGTH, Peer

PYTHON = os.environ["MOONCAKE_PUBLIC_PYTHON"]
# The other interpreter has a package of its own.
ENV = {"MC_FORCE_TCP": "1", "PYTHONPATH": "", "LD_PRELOAD": ""}


def public_peer(**more):
    return Peer(ENV, python=PYTHON, **more)


class PublicPair(Pair):
    @classmethod
    def setUpClass(cls):
        cls.peer = public_peer()
        cls.memory = Memory()
        cls.engine = engine_with(cls.memory)
        cls.there = cls.peer.session


class Transfers(PublicPair, test_engine.Transfers):
    pass


class PublicBegins(PublicPair):
    def call(self, method, *arguments):
        return self.peer.ask("call", method=method, arguments=arguments)

    def session(self):
        return "127.0.0.1:%d" % self.engine.get_rpc_port()

    def test_it_writes_and_reads(self):
        self.peer.ask("fill", byte=65)
        for n in (1, 4096, 1 << 20):
            self.memory.fill(1)
            there, here = self.peer.address, self.memory.address
            write = ("transfer_sync_write", self.session(), there, here + 7, n)
            self.assertEqual(self.call(*write), 0)
            self.assertEqual(self.memory.bytes(7, n), b"A" * n)
            data = self.memory.fill(2)
            read = ("transfer_sync_read", self.session(), there, here, n)
            self.assertEqual(self.call(*read), 0)
            self.assertEqual(self.peer.bytes(0, n), data[:n])
            self.peer.ask("fill", byte=65)

    def test_it_writes_batches(self):
        self.peer.ask("fill", byte=66)
        self.memory.fill(3)
        n, size = 128, 4096
        there = [self.peer.address + i * size for i in range(n)]
        here = [self.memory.address + (n - 1 - i) * size for i in range(n)]
        result = self.call(
            "batch_transfer_sync_write", self.session(), there, here, [size] * n
        )
        self.assertEqual(result, 0)
        self.assertEqual(self.memory.bytes(0, n * size), b"B" * n * size)

    def test_it_is_refused_what_is_not_registered(self):
        there = self.peer.address
        write = ("transfer_sync_write", self.session(), there, 4096, 4096)
        self.assertNotEqual(self.call(*write), 0)
        self.assertEqual(self.call("send_probe", self.session()), 0)
        self.assertEqual(
            self.call("get_first_buffer_address", self.session()), self.memory.address
        )


class Names(unittest.TestCase):
    def test_in_the_public_metadata_server(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        server = subprocess.Popen(
            [PYTHON, "-m", "mooncake.http_metadata_server"]
            + ["--host", "127.0.0.1", "--port", str(port)],
            env=dict(os.environ, **ENV),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

        def listens():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0

        self.assertTrue(until(listens, 20))
        url = "http://127.0.0.1:%d/metadata" % port
        memory = Memory()
        engine = engine_with(memory, "ours", url)
        peer = public_peer(name="theirs", metadata=url)
        self.addCleanup(peer.close)
        data = memory.fill(5)
        here, there, n = memory.address, peer.address, 65536
        write = engine.transfer_sync_write
        self.assertEqual(write("theirs", here, there, n), 0, engine.last_error())
        self.assertEqual(peer.bytes(0, n), data[:n])
        peer.ask("fill", byte=67)
        arguments = ["ours", there, here, n]
        result = peer.ask("call", method="transfer_sync_write", arguments=arguments)
        self.assertEqual(result, 0)
        self.assertEqual(memory.bytes(0, n), b"C" * n)


class Restarts(unittest.TestCase):
    def test_another_public_peer_after_one_was_killed(self):
        memory = Memory()
        engine = engine_with(memory)
        data = memory.fill(4)
        for _ in range(2):
            peer = public_peer()
            result = engine.transfer_sync_write(
                peer.session, memory.address, peer.address, LENGTH
            )
            self.assertEqual(result, 0, engine.last_error())
            self.assertEqual(peer.bytes(LENGTH - 4096, 4096), data[-4096:])
            peer.kill()
            self.assertNotEqual(engine.send_probe(peer.session), 0)
            self.assertEqual(
                until(
                    lambda: engine.transfer_sync_write(
                        peer.session, memory.address, peer.address, 4096
                    )
                ),
                -1,
            )


if __name__ == "__main__":
    unittest.main()
