"""test_rules.py - what programs take for granted beyond the methods themselves:
failures, threads, ends, memory that is gone, the environment.
"""

import ctypes
import gc
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
import unittest

from common import Memory, Pair, engine_with, until
from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode
from peer import Peer

HERE = os.path.dirname(os.path.abspath(__file__))
VERBS = "/sys/class/infiniband"
# A protocol that this machine cannot do.
MISSING = "warp" if os.path.isdir(VERBS) and os.listdir(VERBS) else "rdma"


def python(code, **env):
    """Status and output of another interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=HERE + ":" + os.environ["PYTHONPATH"], **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
    )
    return done.returncode, done.stdout.decode()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def threads():
    return len(os.listdir("/proc/self/task"))


class Import(unittest.TestCase):
    code = "try: import mooncake.engine\nexcept ImportError as e: print('caught', e)"

    def test_a_library_that_is_not_there_is_an_import_error(self):
        status, text = python(self.code, MOONCAKE_LIBRARY="/nowhere/lib.so")
        self.assertEqual(status, 0, text)
        self.assertIn("caught mooncake: cannot use /nowhere/lib.so", text)

    def test_a_library_of_others_is_an_import_error(self):
        status, text = python(self.code, MOONCAKE_LIBRARY="libc.so.6")
        self.assertEqual(status, 0, text)
        self.assertIn("caught mooncake: cannot use libc.so.6", text)

    def test_the_package_itself_loads_nothing(self):
        status, text = python(
            "import mooncake, importlib.util as u\n"
            "print(u.find_spec('mooncake.engine') is not None)",
            MOONCAKE_LIBRARY="/nowhere/lib.so",
        )
        self.assertEqual((status, text), (0, "True\n"))

    def test_the_store_says_that_it_is_not_here(self):
        with self.assertRaisesRegex(ImportError, "store"):
            import mooncake.store  # noqa: F401
        with self.assertRaises(ImportError):
            from mooncake import MooncakeDistributedStore  # noqa: F401


class Opening(unittest.TestCase):
    def test_failing_leaves_nothing_behind(self):
        busy = socket.socket()
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        engine_with()
        gc.collect()
        os.environ["MC_LEGACY_RPC_PORT_BINDING"] = "1"
        try:
            before = descriptors(), threads()
            for _ in range(8):
                engine = TransferEngine()
                name = "127.0.0.1:%d" % port
                self.assertEqual(
                    engine.initialize(name, "P2PHANDSHAKE", "tcp", ""), -1
                )
                self.assertIn(str(port), engine.last_error())
            self.assertEqual((descriptors(), threads()), before)
            busy.close()
            self.assertEqual(engine.initialize(name, "P2PHANDSHAKE", "tcp", ""), 0)
            self.assertEqual(engine.get_rpc_port(), port)
        finally:
            del os.environ["MC_LEGACY_RPC_PORT_BINDING"]

    def test_a_dropped_engine_frees_its_port(self):
        engine = engine_with()
        port = engine.get_rpc_port()
        self.assertTrue(15000 <= port <= 17000)
        del engine
        gc.collect()
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.close()

    def test_ports_are_of_the_range(self):
        # An engine has two: the other one is of the public protocol's data.
        os.environ.update(MC_MIN_RPC_PORT="15980", MC_MAX_RPC_PORT="15989")
        try:
            engines = [engine_with() for _ in range(3)]
            ports = {e.get_rpc_port() for e in engines}
            self.assertEqual(len(ports), 3)
            self.assertTrue(ports <= set(range(15980, 15990)))
        finally:
            del os.environ["MC_MIN_RPC_PORT"], os.environ["MC_MAX_RPC_PORT"]

    def test_what_cannot_be_is_an_error_with_a_cause(self):
        for arguments, why in (
            (("127.0.0.1", "P2PHANDSHAKE", MISSING, ""), "MC_FORCE_TCP"),
            (("127.0.0.1", "P2PHANDSHAKE", "warp", ""), "'warp'"),
            (("127.0.0.1", "ftp://host", "tcp", ""), "ftp://"),
            (("127.0.0.1", "", "tcp", ""), "metadata"),
            (("127.0.0.1", "http://127.0.0.1:1/metadata", "tcp", ""), "127.0.0.1:1"),
        ):
            engine = TransferEngine()
            with self.assertLogs("mooncake.engine", "ERROR") as logs:
                self.assertEqual(engine.initialize(*arguments), -1)
            self.assertEqual(len(logs.output), 1)
            self.assertIn(why, logs.output[0])
            self.assertIn(why, engine.last_error())

    def test_it_falls_back_where_that_is_asked_for(self):
        for name in ("MC_FORCE_TCP", "MOONCAKE_FALLBACK"):
            os.environ[name] = "1"
            try:
                engine = TransferEngine()
                arguments = ("127.0.0.1", "P2PHANDSHAKE", MISSING, "mlx5_0")
                with self.assertLogs("mooncake.engine", "WARNING") as logs:
                    self.assertEqual(engine.initialize(*arguments), 0)
                    self.assertEqual(TransferEngine().initialize(*arguments), 0)
                self.assertEqual(len(logs.output), 1)
                self.assertIn(name, logs.output[0])
            finally:
                del os.environ[name]

    def test_hosts_as_they_are_written(self):
        memory, here = Memory(4096), Memory(4096)
        data = memory.fill(2)
        for host, said in (
            ("::1", "[::1]"),
            ("[::1]:77", "[::1]"),
            ("localhost", "localhost"),
            ("127.0.0.1:99", "127.0.0.1"),
        ):
            engine, other = engine_with(memory, host), engine_with(here)
            session = "%s:%d" % (said, engine.get_rpc_port())
            ctypes.memset(here.address, 0, 4096)
            read = (session, here.address, memory.address, 4096)
            self.assertEqual(other.transfer_sync_read(*read), 0, other.last_error())
            self.assertEqual(here.bytes(0, 4096), data)
            # It knows itself by that name.
            self.assertEqual(engine.get_first_buffer_address(session), memory.address)

    def test_the_address_to_bind(self):
        os.environ["MC_TCP_BIND_ADDRESS"] = "127.0.0.2"
        try:
            engine = engine_with(host="localhost")
        finally:
            del os.environ["MC_TCP_BIND_ADDRESS"]
        port = engine.get_rpc_port()
        for host, error in (("127.0.0.2", 0), ("127.0.0.1", 111)):
            with socket.socket() as s:
                self.assertEqual(s.connect_ex((host, port)), error)

    def test_only_once(self):
        engine = engine_with()
        self.assertEqual(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""), -1)
        self.assertGreater(engine.get_rpc_port(), 0)

    def test_the_kind_of_metadata_apart(self):
        engine = TransferEngine()
        result = engine.initialize_ext("127.0.0.1:9", "", "tcp", "", "P2PHANDSHAKE")
        self.assertEqual(result, 0)
        engine = TransferEngine()
        result = engine.initialize_ext("a", "127.0.0.1:1/metadata", "tcp", "", "http")
        self.assertEqual(result, -1)
        self.assertIn("127.0.0.1:1", engine.last_error())


class Failures(Pair):
    def write(self, target=None, length=4096, engine=None):
        return (engine or self.engine).transfer_sync_write(
            target or self.there, self.memory.address, self.peer.address, length
        )

    def test_an_unknown_peer_fails_fast_and_says_who(self):
        start = time.monotonic()
        with self.assertLogs("mooncake.engine", "ERROR") as logs:
            self.assertEqual(self.write("127.0.0.1:1"), -1)
        self.assertLess(time.monotonic() - start, 1.5)
        self.assertIn("127.0.0.1:1", logs.output[0])
        self.assertIn("refused", self.engine.last_error())
        lists = ([self.memory.address], [self.peer.address], [10])
        self.assertEqual(
            self.engine.batch_transfer_async_write("127.0.0.1:1", *lists), 0
        )
        self.assertEqual(self.write("no.such.host.invalid:5"), -1)

    def test_one_that_does_not_answer_does_not_stall_others(self):
        deaf = socket.socket()
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        name = "127.0.0.1:%d" % deaf.getsockname()[1]
        stalled = threading.Thread(target=lambda: self.write(name))
        stalled.start()
        start = time.monotonic()
        for _ in range(100):
            self.assertEqual(self.write(), 0)
        self.assertLess(time.monotonic() - start, 1)
        stalled.join(5)
        self.assertFalse(stalled.is_alive())
        deaf.close()

    def test_lists_of_different_lengths(self):
        here, there = self.memory.address, self.peer.address
        for lists in (([here], [there], []), ([here], [], [1]), ([], [there], [1])):
            self.assertEqual(
                self.engine.batch_transfer_sync_write(self.there, *lists), -1
            )
        self.assertEqual(
            self.engine.batch_transfer_sync_write(self.there, [], [], []), 0
        )

    def test_what_is_no_number_is_logged_and_raised(self):
        with self.assertLogs("mooncake.engine", "ERROR"):
            with self.assertRaises(TypeError):
                self.engine.batch_transfer_sync_write(self.there, ["x"], [1], [1])
        with self.assertLogs("mooncake.engine", "ERROR"):
            with self.assertRaises(TypeError):
                self.engine.register_memory(1.5, 10)
        with self.assertLogs("mooncake.engine", "ERROR"):
            with self.assertRaises(TypeError):
                self.engine.transfer_sync_write(self.there, "x", 1, 1)

    def test_what_has_an_index_is_a_number(self):
        class Pointer:
            def __init__(self, value):
                self.value = value

            def __index__(self):
                return self.value

        here, there = Pointer(self.memory.address), Pointer(self.peer.address)
        data = self.memory.fill(11, 64)
        write = self.engine.transfer_sync_write
        self.assertEqual(write(self.there, here, there, Pointer(64)), 0)
        self.assertEqual(self.peer.bytes(0, 64), data)

    def test_a_failure_is_logged_once_for_a_loop_of_them(self):
        time.sleep(1.1)
        with self.assertLogs("mooncake.engine", "ERROR") as logs:
            for _ in range(20):
                self.write("127.0.0.1:2")
        self.assertLessEqual(len(logs.output), 2)

    def test_results_are_plain_ints(self):
        for result in (self.write(), self.write(length=1 << 40)):
            self.assertIs(type(result), int)
            self.assertLessEqual(result, 0)


class Memories(Pair):
    def test_overlapping_and_adjacent(self):
        m, register = Memory(3 * 4096), self.engine.register_memory
        a = m.address
        self.assertEqual(register(a, 4096), 0)
        self.assertEqual(register(a + 4096, 4096), 0)
        self.assertEqual(register(a, 4096), -7)
        self.assertEqual(register(a + 100, 8192), -7)
        self.assertEqual(self.engine.batch_register_memory([a + 8192, a], [10, 10]), -7)
        self.assertEqual(register(a + 8192, 4096, "cpu:0"), 0)
        unregister = self.engine.batch_unregister_memory
        self.assertEqual(unregister([a, a + 1, a + 4096, a + 8192]), -3)
        self.assertEqual(self.engine.unregister_memory(a), -3)
        self.assertEqual(register(a, 3 * 4096), 0)
        self.assertEqual(self.engine.unregister_memory(a), 0)
        self.assertEqual(register(a, 0), -1)
        self.assertEqual(self.engine.batch_register_memory([a], []), -1)

    def test_what_is_no_memory_is_refused_when_it_is_registered(self):
        for address, length in ((4096, 10), (self.memory.address, 1 << 50)):
            self.assertEqual(self.engine.register_memory(address, length), -1)
            self.assertIn("no memory of this process", self.engine.last_error())

    def test_registering_per_request(self):
        m, there = Memory(4096), self.peer.address
        for _ in range(500):
            self.assertEqual(self.engine.register_memory(m.address, 4096), 0)
            self.assertEqual(
                self.engine.transfer_sync(
                    self.there, m.address, there, 4096, TransferOpcode.Write
                ),
                0,
            )
            self.assertEqual(self.engine.unregister_memory(m.address), 0)

    def test_freed_memory_fails_the_request_only(self):
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int]
        libc.mmap.argtypes += [ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        rw, anonymous = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_ANONYMOUS
        address = libc.mmap(0, 1 << 20, rw, mmap.MAP_PRIVATE | anonymous, -1, 0)
        self.assertEqual(self.engine.register_memory(address, 1 << 20), 0)
        there = self.peer.address
        write = self.engine.transfer_sync_write
        self.assertEqual(write(self.there, address, there, 1 << 20), 0)
        libc.munmap(address, 1 << 20)
        self.assertEqual(write(self.there, address, there, 1 << 20), -1)
        # Over tcp the engine copies the first bytes of what comes: only memory
        # that is there may be read into.
        if not self.env:
            read = self.engine.transfer_sync_read
            self.assertEqual(read(self.there, address, there, 4096), -1)
        self.assertEqual(write(self.there, self.memory.address, there, 4096), 0)
        self.assertEqual(self.engine.unregister_memory(address), 0)


class MemoriesOverTcp(Memories):
    env = {"MOONCAKE_TRANSPORTS": "tcp"}


class Frozen(Pair):
    """The peer stops, as one does in a debugger or under a page-out storm."""

    env = {"MOONCAKE_TRANSPORTS": "tcp"}

    def setUp(self):
        self.addCleanup(self.peer.thaw)

    def write(self, length=1 << 20):
        return self.engine.transfer_sync_write(
            self.there, self.memory.address, self.peer.address, length
        )

    def test_other_threads_run_meanwhile(self):
        self.assertEqual(self.write(), 0)
        self.peer.freeze()
        start, done = time.monotonic(), []
        thread = threading.Thread(target=lambda: done.append(self.write()))
        thread.start()
        ticks = 0
        while not done and time.monotonic() - start < 10:
            time.sleep(0.001)
            ticks += 1
        thread.join()
        self.assertGreater(ticks, 20)
        self.assertEqual(done, [-1])

    def test_after_a_failure_nothing_moves_any_more(self):
        first = self.memory.fill(20)
        self.assertEqual(self.write(), 0)
        self.peer.freeze()
        second = self.memory.fill(21)
        self.assertNotEqual(first, second)
        self.assertEqual(self.write(), -1)
        third = self.memory.fill(22)
        self.peer.thaw()
        time.sleep(0.3)
        for at in range(0, 1 << 20, 1 << 16):
            self.assertNotEqual(self.peer.bytes(at, 4096), third[at : at + 4096])
        # And the peer is there again without anything being opened.
        self.assertEqual(until(lambda: self.write() == 0), True)
        self.assertEqual(self.peer.bytes(0, 4096), third[:4096])


class Restart(unittest.TestCase):
    def test_a_peer_that_comes_back_at_its_address_is_found(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        env = {"MC_LEGACY_RPC_PORT_BINDING": "1", "MC_HANDSHAKE_PORT": str(port)}
        memory = Memory()
        engine = engine_with(memory)
        data = memory.fill(30, 4096)
        for _ in range(3):
            peer = Peer(env)
            self.assertEqual(peer.session, "127.0.0.1:%d" % port)

            def write(peer=peer):
                return engine.transfer_sync_write(
                    peer.session, memory.address, peer.address, 4096
                )

            self.assertTrue(until(lambda: engine.send_probe(peer.session) == 0))
            self.assertTrue(until(lambda: write() == 0), engine.last_error())
            self.assertEqual(peer.bytes(0, 4096), data)
            peer.kill()
            start = time.monotonic()
            self.assertEqual(write(), -1)
            self.assertNotEqual(engine.send_probe(peer.session), 0)
            self.assertLess(time.monotonic() - start, 4)


class Threads(Pair):
    COUNT, ROUNDS = 10, 60

    def test_ten_threads_on_one_engine(self):
        failures = []

        def work(k):
            size = 65536
            here, there = k * 4 * size, k * 4 * size
            m, p = self.memory.address + here, self.peer.address + there
            scratch = Memory(size)
            for i in range(self.ROUNDS):
                ok = self.engine.register_memory(scratch.address, size) == 0
                data = scratch.fill(k * 100 + i)
                ok &= 0 == self.engine.batch_transfer_sync_write(
                    self.there, [scratch.address], [p], [size]
                )
                ok &= 0 == self.engine.transfer_sync_read(self.there, m, p, size)
                ok &= self.memory.bytes(here, size) == data
                notify = TransferNotify(str(k), str(i))
                ok &= 0 == self.engine.transfer_sync(
                    self.there, m, p, 0, TransferOpcode.Write, notify
                )
                ok &= self.engine.unregister_memory(scratch.address) == 0
                if not ok:
                    failures.append((k, i, self.engine.last_error()))

        all_threads = [
            threading.Thread(target=work, args=(k,)) for k in range(self.COUNT)
        ]
        for t in all_threads:
            t.start()
        for t in all_threads:
            t.join(60)
        self.assertEqual(failures, [])
        got = self.peer.ask("notifies")
        self.assertEqual(len(got), self.COUNT * self.ROUNDS)
        for k in range(self.COUNT):
            mine = [int(m) for n, m in got if n == str(k)]
            self.assertEqual(mine, list(range(self.ROUNDS)))


class Ends(unittest.TestCase):
    def test_the_interpreter_ends_with_daemon_threads_in_calls(self):
        peer = Peer({"MOONCAKE_TRANSPORTS": "tcp"})
        peer.freeze()
        status, text = python(
            "import threading, time\n"
            "from common import *\n"
            "memory = Memory()\n"
            "engine = engine_with(memory)\n"
            "def work():\n"
            "    while True:\n"
            "        engine.transfer_sync_write(%r, memory.address, %d, 1 << 20)\n"
            "for _ in range(4):\n"
            "    threading.Thread(target=work, daemon=True).start()\n"
            "time.sleep(0.3)\n" % (peer.session, peer.address)
        )
        peer.kill()
        self.assertEqual((status, text), (0, ""))

    def test_a_forked_child_leaves_the_engine_alone(self):
        peer, memory = Peer(), Memory()
        engine = engine_with(memory)

        def write():
            return engine.transfer_sync_write(
                peer.session, memory.address, peer.address, 4096
            )

        self.assertEqual(write(), 0)
        pid = os.fork()
        if not pid:
            os._exit(0 if write() == -1 else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(write(), 0)
        peer.close()


if __name__ == "__main__":
    unittest.main()
