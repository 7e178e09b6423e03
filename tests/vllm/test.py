"""test.py - an unmodified vLLM, prefill and decode in two servers, on our package:
`make check-vllm`. What is decoded from a KV cache that came over is what one server
decodes that computes it all, and the decode server's own counters say that it computed
no prompt.
"""

import json
import os
import re
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from servers import Cluster, Server, fetch, free_port

TOKENS = 24
# Of one block of the KV cache and of several, and all with the same end: what
# follows depends on what was before.
PROMPTS = [
    "%s the end" % (" ".join("%s %d" % (word, i) for i in range(n)))
    for word, n in [("a", 1), ("moon", 7), ("cake", 30), ("moon", 60), ("sun", 130)]
]


def ask(url, prompt, **more):
    body = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    return fetch(url + "/v1/completions", {**body, **more})


def complete(url, prompt):
    """The tokens that follow, and how many the prompt had."""
    status, text = ask(url, prompt)
    if status != 200:
        raise RuntimeError("%d: %s" % (status, text))
    answer = json.loads(text)
    return answer["choices"][0]["token_ids"], answer["usage"]["prompt_tokens"]


class Split:
    """The tests, for whichever environment the servers run in."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.__name__, cls.env)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.wait()
        # A request without kv_transfer_params is computed where it is.
        cls.undivided = [complete(cls.cluster.decode.url, p)[0] for p in PROMPTS]

    def compare(self, workers=1, rounds=1):
        """Prompts through the proxy: equal tokens, all prompts received."""
        before = self.cluster.decode.prompt_tokens()
        prompts = PROMPTS * rounds
        with ThreadPoolExecutor(workers) as pool:
            answers = list(
                pool.map(lambda prompt: complete(self.cluster.url, prompt), prompts)
            )
        after = self.cluster.decode.prompt_tokens()
        self.assertEqual([tokens for tokens, _ in answers], self.undivided * rounds)
        received = {name: n - before.get(name, 0) for name, n in after.items()}
        self.assertEqual(
            received["external_kv_transfer"], sum(length for _, length in answers)
        )
        self.assertEqual(received["local_compute"], 0)

    def test_a_tokens_depend_on_the_cache(self):
        self.assertEqual({len(tokens) for tokens in self.undivided}, {TOKENS})
        self.assertEqual(len({tuple(tokens) for tokens in self.undivided}), len(PROMPTS))

    def test_b_tokens_are_equal(self):
        self.compare()

    def test_c_several_at_once(self):
        self.compare(workers=8, rounds=8)

    def test_d_a_stream(self):
        status, text = ask(self.cluster.url, PROMPTS[1], stream=True)
        pieces = [json.loads(piece) for piece in re.findall(r"data: (\{.*)", text)]
        tokens = [piece["choices"][0]["token_ids"] for piece in pieces]
        self.assertGreater(len(tokens), 1)
        self.assertEqual(sum(tokens, []), self.undivided[1])

    def test_e_errors_come_through(self):
        status, text = ask(self.cluster.url, PROMPTS[0], model="other")
        self.assertEqual(status, 404, text)
        self.assertIn("other", text)


class OverTcp(Split, unittest.TestCase):
    """The KV cache goes through sockets alone."""

    env = {"MOONCAKE_TRANSPORTS": "tcp"}

    def test_f_prefill_is_killed_and_restarted(self):
        ended, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                try:
                    ended.append(complete(self.cluster.url, PROMPTS[-1])[0])
                except (RuntimeError, OSError):
                    ended.append(None)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        while len(ended) < 4:
            time.sleep(0.05)
        self.cluster.prefill.kill()
        stop.set()
        for thread in clients:
            thread.join()
        # Whatever ended well is right, and what follows says who is away.
        self.assertIn(self.undivided[-1], ended)
        self.assertLessEqual(
            {tuple(tokens) for tokens in ended if tokens}, {tuple(self.undivided[-1])}
        )
        with self.assertRaisesRegex(RuntimeError, "503.*refused"):
            complete(self.cluster.url, PROMPTS[0])
        self.assertEqual(
            complete(self.cluster.decode.url, PROMPTS[0])[0], self.undivided[0]
        )
        self.cluster.start_prefill("OverTcp-again")
        self.cluster.prefill.wait()
        self.compare(workers=4, rounds=2)


@unittest.skipIf(
    os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"),
    "this machine has RDMA",
)
class WithoutRdma(Split, unittest.TestCase):
    """mooncake_protocol is left at its default, and there is no RDMA."""

    env = {"MOONCAKE_PROTOCOL": "", "MOONCAKE_FALLBACK": "1"}

    def test_f_it_is_said_once(self):
        for server in (self.cluster.prefill, self.cluster.decode):
            self.assertEqual(server.text().count("as MOONCAKE_FALLBACK says"), 1)

    def test_g_it_is_an_error(self):
        server = Server("decode", "Error", free_port(), {"MOONCAKE_PROTOCOL": ""})
        self.addCleanup(server.kill)
        with self.assertRaisesRegex(RuntimeError, "is not ready"):
            server.wait()
        self.assertRegex(server.text(), "initialize: .*rdma.*MOONCAKE_FALLBACK=1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
