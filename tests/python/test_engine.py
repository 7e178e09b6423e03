"""test_engine.py - every method of TransferEngine, between two processes."""

import inspect
import json
import unittest

import mooncake.engine
from common import Memory, Pair, engine_with, until
from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode

ONE = ["target_hostname", "buffer", "peer_buffer_address", "length"]
MANY = ["target_hostname", "buffers", "peer_buffer_addresses", "lengths"]
SIGNATURES = {
    "initialize": [
        "local_hostname", "metadata_server", "protocol", "device_name",
    ],
    "initialize_ext": [
        "local_hostname", "metadata_server", "protocol", "device_name",
        "metadata_type",
    ],
    "get_rpc_port": [],
    "allocate_managed_buffer": ["length"],
    "free_managed_buffer": ["buffer_addr", "length"],
    "transfer_sync_write": ONE + ["transport_hint=''"],
    "transfer_sync_read": ONE + ["transport_hint=''"],
    "batch_transfer_sync_write": MANY + ["transport_hint=''"],
    "batch_transfer_sync_read": MANY + ["transport_hint=''"],
    "batch_transfer_async_write": MANY + ["transport_hint=''"],
    "batch_transfer_async_read": MANY + ["transport_hint=''"],
    "transfer_sync": ONE + ["opcode", "notify=None", "transport_hint=''"],
    "batch_transfer_sync": MANY + ["opcode", "notify=None", "transport_hint=''"],
    "batch_transfer_async": MANY + ["opcode", "transport_hint=''"],
    "transfer_submit_write": ONE + ["transport_hint=''"],
    "transfer_check_status": ["batch_id"],
    "get_batch_transfer_status": ["batch_ids"],
    "register_memory": ["buffer_addr", "capacity", "location='*'"],
    "unregister_memory": ["buffer_addr"],
    "batch_register_memory": ["buffer_addresses", "capacities", "location='*'"],
    "batch_unregister_memory": ["buffer_addresses"],
    "write_bytes_to_buffer": ["dest_address", "src", "length"],
    "read_bytes_from_buffer": ["source_address", "length"],
    "get_local_topology": ["device_name=None"],
    "get_first_buffer_address": ["segment_name"],
    "get_notifies": [],
    "send_probe": ["peer_server_name"],
    "warmup_efa_segment": ["segment_name"],
    "get_engine": [],
    "get_engine_ptr": [],
    "last_error": [],
}


class Interface(unittest.TestCase):
    def test_methods_have_the_documented_arguments(self):
        for name, wanted in SIGNATURES.items():
            parameters = inspect.signature(getattr(TransferEngine, name)).parameters
            got = [
                p.name if p.default is p.empty else "%s=%r" % (p.name, p.default)
                for p in list(parameters.values())[1:]
            ]
            self.assertEqual(got, wanted, name)

    def test_there_are_no_others(self):
        public = [n for n in vars(TransferEngine) if not n.startswith("_")]
        self.assertEqual(sorted(public), sorted([*SIGNATURES, "TransferOpcode"]))
        self.assertFalse(hasattr(TransferEngine(), "transfer_write_on_cuda"))

    def test_an_unknown_keyword_is_named(self):
        with self.assertRaisesRegex(TypeError, "enable_magic"):
            TransferEngine().initialize("a", "b", "c", "d", enable_magic=True)

    def test_the_module_has_what_programs_import(self):
        for name in ("CUDA", "EFA", "HIP", "MNNVL", "MUSA", "INTRA_NVLINK"):
            self.assertIs(getattr(mooncake.engine, "SUPPORT_" + name), False)
        self.assertEqual([int(TransferOpcode.Read), int(TransferOpcode.Write)], [0, 1])
        self.assertIs(mooncake.engine.Write, TransferEngine.TransferOpcode.Write)
        notify = TransferNotify()
        self.assertEqual((notify.name, notify.msg), ("", ""))
        notify.name, notify.msg = "a", "b"
        self.assertEqual((notify.name, notify.msg), ("a", "b"))
        self.assertIsInstance(
            engine_with().get_engine(), mooncake.engine.InnerTransferEngine
        )

    def test_an_engine_that_is_not_initialized_refuses(self):
        engine = TransferEngine()
        self.assertEqual(engine.get_rpc_port(), 0)
        self.assertEqual(engine.get_engine_ptr(), 0)
        self.assertEqual(engine.register_memory(4096, 10), -1)
        self.assertEqual(engine.unregister_memory(4096), -1)
        self.assertEqual(engine.transfer_sync_write("a", 1, 2, 3), -1)
        self.assertEqual(engine.batch_transfer_async_read("a", [1], [2], [3]), 0)
        self.assertEqual(engine.get_batch_transfer_status([7]), -1)
        self.assertEqual(engine.get_notifies(), [])
        self.assertEqual(engine.send_probe("a"), -1)
        self.assertEqual(engine.allocate_managed_buffer(10), 0)
        self.assertIn("not initialized", engine.last_error())


class Transfers(Pair):
    def check(self, offset, data):
        self.assertEqual(self.peer.bytes(offset, len(data)), data)

    def test_one_piece_both_ways(self):
        data = self.memory.fill(1, 100000)
        here, there = self.memory.address, self.peer.address
        write, read = self.engine.transfer_sync_write, self.engine.transfer_sync_read
        self.assertEqual(write(self.there, here, there + 5, len(data)), 0)
        self.check(5, data)
        self.assertEqual(read(self.there, here + 200000, there + 5, len(data)), 0)
        self.assertEqual(self.memory.bytes(200000, len(data)), data)

    def test_by_keywords(self):
        data = self.memory.fill(2, 64)
        result = self.engine.transfer_sync_write(
            target_hostname=self.there,
            buffer=self.memory.address,
            peer_buffer_address=self.peer.address,
            length=64,
            transport_hint="tcp",
        )
        self.assertEqual(result, 0)
        self.check(0, data)

    def lists(self, n, size, stride=2):
        """Pieces that lie apart at both ends, in another order there."""
        here = [self.memory.address + i * size for i in range(n)]
        places = [(i * 7919 % n) * size * stride for i in range(n)]
        return here, [self.peer.address + p for p in places], [size] * n, places

    def test_many_pieces_both_ways(self):
        for n, size in ((1, 1), (128, 4096), (600, 100), (16, 65536)):
            data = self.memory.fill(n, n * size)
            here, there, sizes, places = self.lists(n, size)
            write = self.engine.batch_transfer_sync_write
            self.assertEqual(write(self.there, here, there, sizes), 0)
            for i in (0, n // 2, n - 1):
                self.check(places[i], data[i * size : (i + 1) * size])
            self.memory.fill(99, n * size)
            read = self.engine.batch_transfer_sync_read
            self.assertEqual(read(self.there, here, there, sizes), 0)
            self.assertEqual(self.memory.bytes(0, n * size), data)

    def test_by_opcode(self):
        data = self.memory.fill(3, 8192)
        here, there, sizes, places = self.lists(2, 4096)
        many, one = self.engine.batch_transfer_sync, self.engine.transfer_sync
        self.assertEqual(many(self.there, here, there, sizes, TransferOpcode.Write), 0)
        self.check(places[1], data[4096:])
        self.memory.fill(4, 8192)
        opcode = TransferOpcode.Read
        self.assertEqual(one(self.there, here[0], there[0], 4096, opcode), 0)
        self.assertEqual(self.memory.bytes(0, 4096), data[:4096])

    def test_in_flight(self):
        data = self.memory.fill(5, 128 * 4096)
        here, there, sizes, places = self.lists(128, 4096)
        batches = [
            self.engine.batch_transfer_async_write(
                self.there, here[i::4], there[i::4], sizes[i::4]
            )
            for i in range(4)
        ]
        self.assertEqual(len(set(batches)), 4)
        self.assertTrue(all(0 < b < 1 << 64 for b in batches))
        self.assertEqual(self.engine.get_batch_transfer_status(batches), 0)
        self.check(places[127], data[127 * 4096 :])
        # The ids are no more.
        self.assertEqual(self.engine.get_batch_transfer_status(batches), -1)
        self.assertEqual(self.engine.transfer_check_status(batches[0]), -1)

    def test_in_flight_by_opcode_and_read(self):
        data = self.memory.fill(6, 4096)
        lists = ([self.memory.address], [self.peer.address], [4096])
        a = self.engine.batch_transfer_async(self.there, *lists, TransferOpcode.Write)
        self.assertEqual(self.engine.get_batch_transfer_status([a]), 0)
        self.memory.fill(7, 4096)
        b = self.engine.batch_transfer_async_read(self.there, *lists)
        self.assertEqual(self.engine.get_batch_transfer_status([b]), 0)
        self.assertEqual(self.memory.bytes(0, 4096), data)

    def test_submit_and_ask(self):
        data = self.memory.fill(8, 4096)
        submit, ask = self.engine.transfer_submit_write, self.engine.transfer_check_status
        batch = submit(self.there, self.memory.address, self.peer.address, 4096)
        self.assertEqual(until(lambda: ask(batch)), 1)
        self.check(0, data)
        bad = submit(self.there, self.memory.address, 8, 4096)
        self.assertEqual(until(lambda: ask(bad)), -1)
        self.assertIn("is in no buffer of " + self.there, self.engine.last_error())

    def test_notifications(self):
        here, there = self.memory.address, self.peer.address
        one, write = self.engine.transfer_sync, TransferOpcode.Write
        self.assertEqual(self.peer.ask("notifies"), [])
        first, second = TransferNotify("name", "täxt\n" * 9), TransferNotify("b", "")
        self.assertEqual(one(self.there, here, there, 4096, write, first), 0)
        self.assertEqual(one(self.there, here, there, 0, write, second), 0)
        self.assertEqual(
            self.engine.batch_transfer_sync(
                self.there, [here], [there], [1], write, notify=first
            ),
            0,
        )
        a, b = [first.name, first.msg], [second.name, second.msg]
        self.assertEqual(self.peer.ask("notifies"), [a, b, a])
        # What fails says nothing.
        self.assertEqual(one(self.there, here, 8, 10, write, first), -1)
        self.assertEqual(self.peer.ask("notifies"), [])

    def test_managed_buffers(self):
        address = self.engine.allocate_managed_buffer(100000)
        self.assertGreater(address, 0)
        self.assertEqual(self.engine.write_bytes_to_buffer(address, b"KV" * 8, 16), 0)
        self.assertEqual(self.engine.write_bytes_to_buffer(address + 16, "text", 4), 0)
        self.assertEqual(self.engine.write_bytes_to_buffer(address, b"KV", 3), -1)
        there = self.peer.address
        self.assertEqual(
            self.engine.transfer_sync_write(self.there, address, there, 20), 0
        )
        self.check(0, b"KV" * 8 + b"text")
        self.assertEqual(
            self.engine.read_bytes_from_buffer(address, 20), b"KV" * 8 + b"text"
        )
        self.assertEqual(self.engine.free_managed_buffer(address, 100000), 0)
        self.assertLess(self.engine.free_managed_buffer(address, 100000), 0)

    def test_what_is_asked_of_a_peer(self):
        first = self.engine.get_first_buffer_address
        self.assertEqual(first(self.there), self.peer.address)
        self.assertEqual(first("127.0.0.1:1"), 0)
        self.assertEqual(self.engine.send_probe(self.there), 0)
        self.assertNotEqual(self.engine.send_probe("127.0.0.1:1"), 0)
        self.assertEqual(self.engine.warmup_efa_segment(self.there), 0)

    def test_the_topology_is_json(self):
        topology = json.loads(self.engine.get_local_topology())
        self.assertTrue(topology)
        for name, lists in topology.items():
            self.assertRegex(name, r"^(cpu|gpu|cuda):\d+$")
            self.assertEqual(len(lists), 2)

    def test_to_itself(self):
        memory, port = Memory(8192), self.engine.get_rpc_port()
        data = self.memory.fill(9, 4096)
        self.assertEqual(self.engine.register_memory(memory.address, 8192), 0)
        self.assertEqual(
            self.engine.transfer_sync_write(
                "127.0.0.1:%d" % port, self.memory.address, memory.address, 4096
            ),
            0,
        )
        self.assertEqual(memory.bytes(0, 4096), data)
        self.assertEqual(self.engine.unregister_memory(memory.address), 0)


class TransfersOverTcp(Transfers):
    """The same without shared memory."""

    env = {"MOONCAKE_TRANSPORTS": "tcp"}


if __name__ == "__main__":
    unittest.main()
