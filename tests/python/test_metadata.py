"""test_metadata.py - names in a metadata server of each kind, as its public string
says it: found by name, found again after a restart, gone with their engine.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from common import Memory, engine_with, until
from mooncake.engine import TransferEngine
from peer import Peer

PASSWORD = "p@ss/word:1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process that answers at a port of this host, and its folder."""

    def __init__(self, *command, env=None):
        self.folder = tempfile.mkdtemp()
        self.port = free_port()
        names = {"port": self.port, "other": free_port(), "folder": self.folder}
        self.process = subprocess.Popen(
            [word.format(**names) for word in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        if not until(self.answers, 20):
            raise RuntimeError("%s does not start" % command[0])

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


def etcd():
    client, peers = "http://127.0.0.1:{port}", "http://127.0.0.1:{other}"
    return Server(
        "etcd", "--data-dir", "{folder}/data", "--listen-client-urls", client,
        "--advertise-client-urls", client, "--listen-peer-urls", peers,
        "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers,
    )


def redis():
    return Server(
        "redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "",
        "--requirepass", PASSWORD,
    )


class Metadata(unittest.TestCase):
    def names_lead_to_engines(self, url):
        peer = Peer(name="there", metadata=url)
        self.addCleanup(lambda: peer.close())
        memory = Memory()
        engine = engine_with(memory, "here", url)
        data = memory.fill(1, 4096)

        def write():
            return engine.transfer_sync_write(
                "there", memory.address, peer.address, 4096
            )

        self.assertEqual(write(), 0, engine.last_error())
        self.assertEqual(peer.bytes(0, 4096), data)
        self.assertEqual(engine.send_probe("there"), 0)
        start = time.monotonic()
        self.assertEqual(engine.transfer_sync_write("nobody", 1, 2, 3), -1)
        self.assertIn("nobody", engine.last_error())
        self.assertLess(time.monotonic() - start, 2)
        # Another one under the name, at another address.
        peer.kill()
        self.assertEqual(write(), -1)
        peer = Peer(name="there", metadata=url)
        self.assertTrue(until(lambda: write() == 0, 15), engine.last_error())
        self.assertEqual(peer.bytes(0, 4096), data)
        # Gone with its engine.
        peer.close()
        other = engine_with(None, "other", url)
        self.assertNotEqual(other.send_probe("there"), 0)
        self.assertIn("there", other.last_error())

    def test_etcd(self):
        server = etcd()
        self.addCleanup(server.close)
        self.names_lead_to_engines("etcd://127.0.0.1:%d" % server.port)

    def test_etcd_is_what_has_no_scheme(self):
        server = etcd()
        self.addCleanup(server.close)
        address = "127.0.0.1:%d" % server.port
        engine = engine_with(Memory(), "bare", address)
        other = engine_with(None, "other", "etcd://" + address)
        self.assertEqual(other.send_probe("bare"), 0)
        del engine

    def test_redis_with_what_the_environment_says(self):
        server = redis()
        self.addCleanup(server.close)
        url = "redis://127.0.0.1:%d" % server.port
        self.assertEqual(TransferEngine().initialize("a", url, "tcp", ""), -1)
        more = {"MC_REDIS_PASSWORD": PASSWORD, "MC_REDIS_DB_INDEX": "3"}
        os.environ.update(more)
        try:
            self.names_lead_to_engines(url)
            engine = engine_with(None, "here", url)
            listed = subprocess.check_output(
                ["redis-cli", "-p", str(server.port), "-n", "3", "keys", "*"],
                env=dict(os.environ, REDISCLI_AUTH=PASSWORD),
            )
            self.assertIn(b"mooncake/ram/here", listed)
            del engine
        finally:
            for name in more:
                del os.environ[name]

    def test_a_server_that_is_not_there(self):
        for url in ("etcd://127.0.0.1:1", "redis://127.0.0.1:1"):
            start = time.monotonic()
            engine = TransferEngine()
            self.assertEqual(engine.initialize("a", url, "tcp", ""), -1)
            self.assertIn("127.0.0.1:1", engine.last_error())
            self.assertLess(time.monotonic() - start, 5)


if __name__ == "__main__":
    unittest.main()
