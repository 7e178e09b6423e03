"""test_integrators.py - the call sequences of programs that use the engine, each
with its shape of arguments: vLLM, SGLang, checkpoint-engine, LMDeploy, FlexKV,
sglang-omni, LightX2V. The other side is another process.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from common import Memory, engine_with, until
from mooncake import engine as engine_module
from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode
from peer import Peer


class Integrator(unittest.TestCase):
    def setUp(self):
        self.peer = Peer()
        self.memory = Memory()
        self.addCleanup(lambda: self.peer.close())


class Vllm(Integrator):
    def test_prefill_pushes_blocks_from_a_pool_of_threads(self):
        engine = TransferEngine()
        if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
            self.fail("initialize")
        self.assertIs(type(engine.get_rpc_port()), int)
        layers, length = 4, 1 << 20
        bases = [self.memory.address + i * length for i in range(layers)]
        self.assertEqual(engine.batch_register_memory(bases, [length] * layers), 0)
        data = self.memory.fill(1)
        block, n = 8192, 16

        def send(request):
            src, dst = [], []
            for layer in range(layers):
                for k in range(n):
                    at = layer * length + (request * n + k) % 128 * block
                    src.append(self.memory.address + at)
                    dst.append(self.peer.address + at)
            return engine.batch_transfer_sync_write(
                self.peer.session, src, dst, [block] * len(src)
            )

        with ThreadPoolExecutor(10) as pool:
            self.assertEqual(set(pool.map(send, range(8))), {0})
        for at in range(0, layers * length, length // 4):
            self.assertEqual(self.peer.bytes(at, 512), data[at : at + 512])
        # One request whose target has gone fails, and alone.
        self.assertNotEqual(
            engine.batch_transfer_sync_write("127.0.0.1:1", bases, bases, [1] * 4), 0
        )
        self.assertEqual(send(0), 0)

    def test_encoder_cache_registers_siblings_and_frees_them(self):
        engine = engine_with()
        for _ in range(50):
            parts = [self.memory.address + i * 1000 for i in range(8)]
            for p in parts:
                self.assertEqual(engine.batch_register_memory([p], [1000]), 0)
            self.assertEqual(
                engine.batch_transfer_sync_write(
                    self.peer.session, parts, [self.peer.address] * 8, [1000] * 8
                ),
                0,
            )
            self.assertEqual(engine.unregister_memory(parts[0]), 0)
            self.assertEqual(engine.batch_unregister_memory(parts[1:]), 0)


class Sglang(Integrator):
    def test_its_wrapper(self):
        self.assertIsNotNone(importlib.util.find_spec("mooncake.engine"))
        os.environ["MC_FORCE_TCP"] = "1"
        try:
            engine = TransferEngine()
            result = engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "")
        finally:
            del os.environ["MC_FORCE_TCP"]
        self.assertEqual(result, 0)
        self.assertTrue(hasattr(engine, "batch_register_memory"))
        self.assertFalse(hasattr(engine, "batch_register_everything"))
        session = "127.0.0.1:%d" % engine.get_rpc_port()
        self.assertTrue(session.rsplit(":", 1)[1].isdigit())
        self.assertIsNotNone(engine.get_engine())
        ptr, n = self.memory.address, self.memory.size
        self.assertEqual(engine.register_memory(ptr, n), 0)
        # It registers again what it has registered, and ignores the answer.
        self.assertLess(engine.batch_register_memory([ptr], [n]), 0)
        there = self.peer.address
        self.assertEqual(
            engine.transfer_sync_write(self.peer.session, ptr, there, 4096), 0
        )
        self.assertEqual(engine.batch_unregister_memory([ptr]), 0)

    def test_a_blacklisted_session_is_probed_until_it_answers(self):
        engine = engine_with(self.memory)
        self.peer.kill()
        result = engine.transfer_sync_write(
            self.peer.session, self.memory.address, self.peer.address, 64
        )
        self.assertEqual(result, -1)
        self.assertNotEqual(engine.send_probe(self.peer.session), 0)
        port = self.peer.session.rsplit(":", 1)[1]
        env = {"MC_LEGACY_RPC_PORT_BINDING": "1", "MC_HANDSHAKE_PORT": port}
        self.peer = Peer(env)
        self.assertTrue(until(lambda: engine.send_probe(self.peer.session) == 0))

    def test_weights_are_read_from_a_seed(self):
        engine = engine_with(self.memory)
        self.peer.ask("fill", byte=77)
        n = 64
        mine = [self.memory.address + i * 4096 for i in range(n)]
        seed = [self.peer.address + i * 8192 for i in range(n)]
        self.assertFalse(
            engine.batch_transfer_sync_read(self.peer.session, mine, seed, [4096] * n)
            < 0
        )
        self.assertEqual(self.memory.bytes(0, n * 4096), b"M" * n * 4096)


class CheckpointEngine(Integrator):
    def test_read_from_eight_processes_at_once(self):
        code = (
            "from common import *\n"
            "memory, engine = Memory(), engine_with()\n"
            "assert engine.batch_register_memory([memory.address], [memory.size]) == 0\n"
            "bufs = [memory.address + i * 65536 for i in range(64)]\n"
            "there = [%d + i * 65536 for i in range(64)]\n"
            "assert engine.batch_transfer_sync_read(%r, bufs, there, [65536] * 64) == 0\n"
            "assert memory.bytes(0, memory.size) == bytes([9]) * memory.size\n"
            "assert engine.batch_unregister_memory([memory.address]) == 0\n"
        ) % (self.peer.address, self.peer.session)
        self.peer.ask("fill", byte=9)
        here = os.path.dirname(os.path.abspath(__file__))
        env = dict(os.environ, PYTHONPATH=here + ":" + os.environ["PYTHONPATH"])
        readers = [
            subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(8)
        ]
        self.assertEqual([r.wait(60) for r in readers], [0] * 8)


class LmDeploy(Integrator):
    def test_reads_one_call_per_block(self):
        engine = engine_with()
        self.assertEqual(
            engine.register_memory(self.memory.address, self.memory.size), 0
        )
        self.peer.ask("fill", byte=3)
        for i in range(500):
            at = i * 4096 % self.memory.size
            self.assertEqual(
                engine.transfer_sync_read(
                    self.peer.session,
                    self.memory.address + at,
                    self.peer.address + at,
                    4096,
                ),
                0,
            )
        self.assertEqual(self.memory.bytes(0, 4096), b"\3" * 4096)


class FlexKv(unittest.TestCase):
    def test_names_in_a_metadata_server(self):
        server = subprocess.Popen(
            [sys.executable, "-m", "mooncake.http_metadata_server"]
            + ["--port", "0", "--host", "127.0.0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        address = server.stdout.readline().decode().split()[-1]
        url = "http://%s/metadata" % address
        peer = Peer(name="flex-peer", metadata=url)
        memory, engine = Memory(), TransferEngine()
        engine.initialize_ext("flex-here", url[len("http://") :], "tcp", "", "http")
        self.assertEqual(engine.register_memory(memory.address, memory.size), 0)
        data = memory.fill(4, 4096)
        here, there, write = memory.address, peer.address, TransferOpcode.Write
        self.assertEqual(engine.transfer_sync_write("flex-peer", here, there, 4096), 0)
        self.assertEqual(peer.bytes(0, 4096), data)
        lists = ([here + 8192], [there], [4096])
        self.assertEqual(engine.batch_transfer_sync_read("flex-peer", *lists), 0)
        self.assertEqual(memory.bytes(8192, 4096), data)
        notify = engine_module.TransferNotify("data", "{'a': 1}")
        opcode = engine_module.TransferOpcode.Write
        self.assertEqual(
            engine.transfer_sync("flex-peer", here, there, 4096, opcode, notify), 0
        )
        bare = TransferNotify("bare", "")
        self.assertEqual(
            engine.transfer_sync("flex-peer", here, there, 0, write, bare), 0
        )
        self.assertEqual(
            peer.ask("notifies"), [["data", "{'a': 1}"], ["bare", ""]]
        )
        self.assertEqual(engine.transfer_sync_write("flex-gone", here, there, 1), -1)
        # Names go with their engines.
        peer.close()
        key = url + "?key=mooncake%2Fram%2Fflex-peer"
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(key, timeout=5)
        self.assertEqual(caught.exception.code, 404)
        del engine
        server.terminate()
        self.assertEqual(server.wait(10), 0)
        server.stdout.close()


class SglangOmni(Integrator):
    def test_in_an_event_loop(self):
        engine = engine_with(self.memory)
        self.peer.ask("fill", byte=5)

        async def relay():
            loop = asyncio.get_event_loop()
            notify = TransferNotify("id-1", "transfer_complete")
            result = await loop.run_in_executor(
                None,
                engine.transfer_sync,
                self.peer.session,
                self.memory.address,
                self.peer.address,
                65536,
                TransferOpcode.Read,
                notify,
            )
            self.assertEqual(result, 0)
            start, polls = time.monotonic(), 0
            while time.monotonic() - start < 0.1:
                self.assertEqual(engine.get_notifies(), [])
                polls += 1
                await asyncio.sleep(0.001)
            self.assertGreater(polls, 20)

        asyncio.run(relay())
        self.assertEqual(self.memory.bytes(0, 65536), b"\5" * 65536)
        self.assertEqual(self.peer.ask("notifies"), [["id-1", "transfer_complete"]])


class LightX2V(Integrator):
    def test_writes_with_retries_in_threads(self):
        engine = engine_with(self.memory)
        data = self.memory.fill(6)
        results = []

        def send(i):
            at = i << 18
            for _ in range(5):
                result = engine.transfer_sync_write(
                    self.peer.session,
                    self.memory.address + at,
                    self.peer.address + at,
                    1 << 18,
                )
                if result >= 0:
                    break
            results.append(result)

        threads = [threading.Thread(target=send, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(results, [0] * 8)
        self.assertEqual(self.peer.bytes(0, 1 << 20), data[: 1 << 20])


if __name__ == "__main__":
    unittest.main()
