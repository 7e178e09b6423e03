"""test_split.py - examples/split.py: what is decoded from a KV cache that came from
another process is what one process decodes by itself, over shared memory and over
tcp; and without the cache it would not be.
"""

import os
import subprocess
import sys
import unittest

EXAMPLES = os.path.join(os.environ["MOONCAKE_ROOT"], "examples")
sys.path.insert(0, EXAMPLES)

import split  # noqa: E402


class Split(unittest.TestCase):
    def run_it(self, **env):
        text = subprocess.check_output(
            [sys.executable, EXAMPLES + "/split.py"],
            # Threads of two processes would be in each other's way.
            env=dict(os.environ, OPENBLAS_NUM_THREADS="1", **env),
            timeout=60,
        ).decode()
        self.assertRegex(text, r"\n6 of 6 equal, 2150400 bytes of KV moved\n$")

    def test_tokens_are_equal(self):
        self.run_it()

    def test_tokens_are_equal_over_tcp(self):
        self.run_it(MOONCAKE_TRANSPORTS="tcp")

    def test_tokens_are_equal_over_the_public_protocol(self):
        self.run_it(MOONCAKE_TRANSPORTS="v1", MOONCAKE_PROFILE="v1")

    def test_tokens_depend_on_the_cache(self):
        model = split.Model()
        for request in range(split.REQUESTS):
            length = len(split.prompt(request))
            tokens = split.undivided(request)
            empty = split.decode(model, split.new_cache()[0], length, tokens[0])
            self.assertNotEqual(empty, tokens)


if __name__ == "__main__":
    unittest.main()
