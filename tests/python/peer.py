"""peer.py - the other process of a test: an engine with memory, told by lines of
JSON on stdin what to do, and answering on stdout. As a module, it starts one.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys

LENGTH = 4 << 20


class Peer:
    """A process that runs this file, by default with our interpreter."""

    def __init__(
        self, env=None, name="127.0.0.1", metadata="P2PHANDSHAKE", python=None
    ):
        self.process = subprocess.Popen(
            [python or sys.executable, os.path.abspath(__file__), name, metadata],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, **(env or {})),
        )
        ready = self._read()
        self.session, self.address = ready["session"], ready["address"]

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peer has ended")
        # The public engine prints, too.
        return json.loads(line) if line[:1] in b'{["0123456789-' else self._read()

    def ask(self, what, **more):
        self.process.stdin.write(json.dumps(dict(more, what=what)).encode() + b"\n")
        self.process.stdin.flush()
        return self._read()

    def bytes(self, offset, length):
        return bytes.fromhex(self.ask("bytes", offset=offset, length=length))

    def freeze(self):
        """Every thread of it has stopped when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.thaw()
        self.process.communicate(timeout=20)


def serve(name, metadata):
    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    assert engine.initialize(name, metadata, "tcp", "") == 0
    # libc's own memory, as a program has it.
    memory = ctypes.create_string_buffer(LENGTH)
    address = ctypes.addressof(memory)
    assert engine.register_memory(address, LENGTH) == 0
    p2p = metadata == "P2PHANDSHAKE"
    session = "%s:%d" % (name, engine.get_rpc_port()) if p2p else name
    answer = {"session": session, "address": address}
    while True:
        print(json.dumps(answer), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        command = json.loads(line)
        if command["what"] == "notifies":
            answer = [[n.name, n.msg] for n in engine.get_notifies()]
        elif command["what"] == "bytes":
            at, n = command["offset"], command["length"]
            answer = memory.raw[at : at + n].hex()
        elif command["what"] == "fill":
            ctypes.memset(address, command["byte"], LENGTH)
            answer = 0
        elif command["what"] == "call":
            answer = getattr(engine, command["method"])(*command["arguments"])


if __name__ == "__main__":
    serve(*sys.argv[1:])
