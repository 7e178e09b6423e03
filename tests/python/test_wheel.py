"""test_wheel.py - the wheel, installed by pip into a fresh environment that sees no
network and nothing of this tree: import, transfer, commands.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.environ["MOONCAKE_ROOT"]
OURS = ("PYTHONPATH", "MOONCAKE_LIBRARY", "MOONCAKE_PROGRAM", "PYTHONHOME")


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.env = {k: v for k, v in os.environ.items() if k not in OURS}
        subprocess.check_call(["make", "-s", "-C", ROOT, "wheel"])
        with open(ROOT + "/build/wheel/files") as f:
            cls.wheel = os.path.join(ROOT, f.read().strip())
        subprocess.check_call([sys.executable, "-m", "venv", cls.folder + "/venv"])
        cls.bin = cls.folder + "/venv/bin/"
        cls.output = cls.run_in(
            "pip", "install", "--no-index", "--disable-pip-version-check",
            "--find-links", os.path.dirname(cls.wheel), "mooncake-transfer-engine>=0.3.9",
        )

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def run_in(cls, program, *arguments):
        return subprocess.check_output(
            [cls.bin + program, *arguments], env=cls.env, cwd=cls.folder, timeout=60,
            stderr=subprocess.STDOUT,
        ).decode()

    def start(self, *command):
        process = subprocess.Popen(
            command, env=self.env, cwd=self.folder, stdout=subprocess.PIPE
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.send_signal, signal.SIGTERM)
        return process, process.stdout.readline().decode()

    def test_its_version_is_the_public_ones_and_ours(self):
        self.assertRegex(self.output, r"Successfully installed mooncake-transfer-engine")
        text = self.run_in(
            "python", "-c", "import importlib.metadata as m\n"
            "print(m.version('mooncake-transfer-engine'))",
        )
        self.assertRegex(text, r"^0\.3\.13\+c\d+\.\d+\.\d+\n$")

    def test_it_moves_bytes_between_processes(self):
        text = self.run_in(
            "python", "-c", "import sys; sys.path.append(%r)\n" % HERE + "\n".join((
                "from common import *",
                "import mooncake",
                "assert mooncake.__file__.startswith(%r), mooncake" % self.folder,
                "peer, memory = Peer(), Memory()",
                "engine, data = engine_with(memory), memory.fill(1)",
                "a, b = memory.address, peer.address",
                "r = engine.transfer_sync_write(peer.session, a, b, len(data))",
                "print(r, peer.bytes(0, 4096) == data[:4096])",
                "peer.close()",
            )),
        )
        self.assertEqual(text, "0 True\n")

    def test_it_is_typed(self):
        text = self.run_in(
            "python", "-c", "import typing, mooncake.engine as e\n"
            "print(typing.get_type_hints(e.TransferEngine.register_memory))\n"
            "import os, mooncake; print(os.listdir(mooncake.__path__[0]))",
        )
        self.assertIn("'capacity': <class 'int'>", text)
        self.assertIn("'py.typed'", text)

    def test_it_needs_nothing_but_libc(self):
        for name in ("libtransfer_engine.so", "mooncake"):
            path = ROOT + "/build/wheel/" + name
            text = subprocess.check_output(["readelf", "-d", path])
            needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", text.decode()))
            self.assertLessEqual(
                needed, {"libc", "libm", "libgcc_s", "ld-linux-x86-64",
                         "ld-linux-aarch64", "libpthread", "libdl"}, name
            )

    def test_the_commands(self):
        self.assertRegex(self.run_in("mooncake", "version"), r"^mooncake \d")
        self.assertRegex(self.run_in("transfer_engine_topology_dump"), r'^\{"')
        server, line = self.start(
            self.bin + "mooncake_http_metadata_server", "--host", "127.0.0.1",
            "--port", "0",
        )
        self.assertRegex(line, r"^registry 127\.0\.0\.1:\d+\n$")

    def test_the_benchmark(self):
        code = "import mooncake; print(mooncake.__path__[0])"
        program = self.run_in("python", "-c", code).strip() + "/transfer_engine_bench"
        common = ["--metadata_server=P2PHANDSHAKE", "-protocol", "tcp",
                  "--buffer-size=16777216", "--local_server_name=127.0.0.1"]
        _, line = self.start(program, "--mode=target", *common)
        name = re.match(r"target: (--segment_id=127\.0\.0\.1:\d+)\n", line).group(1)
        for operation in ("read", "write"):
            text = self.run_in(
                "transfer_engine_bench", name, "--operation=" + operation,
                "--duration=1", "--threads=2", "--batch_size=16", *common,
            )
            self.assertRegex(
                text, r"^Test completed: duration 1\.\d\d, batch count [1-9]\d*, "
                r"throughput \d+\.\d\d GB/s\n$"
            )
        with self.assertRaises(subprocess.CalledProcessError) as caught:
            self.run_in("transfer_engine_bench", "--bloc_size=3")
        self.assertEqual(caught.exception.returncode, 2)


if __name__ == "__main__":
    unittest.main()
