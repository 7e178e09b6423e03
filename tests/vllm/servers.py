"""servers.py - what the tests start: vLLM's two servers and the proxy in front of them,
as examples/vllm has them, at ports of their own; and how they are asked.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
EXAMPLE = os.path.join(ROOT, "examples/vllm")
LOGS = os.path.join(ROOT, "build/vllm/logs")
START_S = 600


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def url_of(port):
    return "http://127.0.0.1:%d" % port


def fetch(url, body=None, timeout=120):
    """The status and the text of an answer."""
    body = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


class Program:
    """A program with processes of its own, and a file of what it said."""

    def __init__(self, name, command, env=None):
        os.makedirs(LOGS, exist_ok=True)
        self.path = os.path.join(LOGS, name + ".log")
        # What the caller's environment says would decide what is tested here.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not re.match("MC_|MOONCAKE_|PYTHONPATH$", name)
        }
        with open(self.path, "w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, **(env or {})},
                start_new_session=True,
            )
        # Ctrl-C does not reach a session of its own.
        atexit.register(self.kill)

    def text(self):
        with open(self.path) as log:
            return log.read()

    def until(self, ready, seconds=START_S):
        end = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                tail = "\n".join(self.text().splitlines()[-40:])
                raise RuntimeError("%s is not ready:\n%s" % (self.path, tail))
            time.sleep(0.5)

    def kill(self):
        """All its processes, at once and without their knowing."""
        atexit.unregister(self.kill)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Server(Program):
    """vLLM for "prefill" or "decode"."""

    def __init__(self, role, label, port, env):
        self.url = url_of(port)
        command = [EXAMPLE + "/serve.sh", role, "--port", str(port)]
        super().__init__("%s-%s" % (label, role), command, env)

    def answers(self):
        try:
            return fetch(self.url + "/health", timeout=5)[0] == 200
        except OSError:
            return False

    def wait(self):
        self.until(self.answers)

    def prompt_tokens(self):
        """How many prompt tokens came from where, since it started."""
        text = fetch(self.url + "/metrics")[1]
        name = "vllm:prompt_tokens_by_source_total"
        lines = re.findall(name + r'\{.*source="(\w+)".*\} (\S+)', text)
        return {source: int(float(n)) for source, n in lines}


class Cluster:
    """Prefill, decode, and the proxy in front."""

    def __init__(self, label, env):
        self.label = label
        self.ports = [free_port() for _ in range(4)]
        bootstrap = str(self.ports[2])
        self.env = {**env, "VLLM_MOONCAKE_BOOTSTRAP_PORT": bootstrap}
        self.decode = Server("decode", label, self.ports[1], env)
        self.start_prefill()
        self.proxy = self.start_proxy()
        self.url = url_of(self.ports[3])

    def start_prefill(self, label=None):
        label = label or self.label
        self.prefill = Server("prefill", label, self.ports[0], self.env)

    def start_proxy(self):
        command = [sys.executable, EXAMPLE + "/proxy.py"]
        for name, port in zip(("prefill", "decode", "bootstrap"), self.ports):
            command += ["--" + name, url_of(port)]
        command += ["--port", str(self.ports[3])]
        return Program(self.label + "-proxy", command)

    def wait(self):
        self.prefill.wait()
        self.decode.wait()
        self.proxy.until(lambda: "ready" in self.proxy.text(), 20)

    def close(self):
        for program in (self.proxy, self.prefill, self.decode):
            program.kill()
