"""split.py - prefill in one process, decode in another: a small transformer of random
weights, whose KV cache moves from the one to the other through mooncake.engine.

    python3 examples/split.py

The decode process registers room for the caches of its requests and tells where it
is. The prefill process computes a prompt layer by layer and writes each layer's keys
and values into that room while the next one is computed; a notification after the
last bytes hands the request over, with its first token. The tokens must be those of
one process that does it all. Needs NumPy.
"""

import json
import subprocess
import sys
import time

import numpy as np

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode

LAYERS, HEADS, WIDTH, VOCABULARY, CONTEXT = 4, 4, 128, 512, 256
REQUESTS, TOKENS = 6, 24


# ---- the model ----------------------------------------------------------


class Model:
    """Pre-norm transformer; equal seeds are equal weights."""

    def __init__(self, seed=1):
        rng = np.random.default_rng(seed)

        def weights(*shape):
            return (rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)

        self.embedding = weights(VOCABULARY, WIDTH)
        self.position = weights(CONTEXT, WIDTH)
        self.head = weights(WIDTH, VOCABULARY)
        self.qkv = [weights(WIDTH, 3 * WIDTH) for _ in range(LAYERS)]
        self.out = [weights(WIDTH, WIDTH) for _ in range(LAYERS)]
        self.up = [weights(WIDTH, 4 * WIDTH) for _ in range(LAYERS)]
        self.down = [weights(4 * WIDTH, WIDTH) for _ in range(LAYERS)]

    @staticmethod
    def norm(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    @staticmethod
    def attend(q, k, v, first):
        """Heads apart; row i of q is at position first + i, and sees up to there."""
        n, m = len(q), len(k)
        q, k, v = (x.reshape(len(x), HEADS, -1).swapaxes(0, 1) for x in (q, k, v))
        scores = q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5
        scores += np.where(np.arange(m) <= first + np.arange(n)[:, None], 0, -1e9)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        return mixed.swapaxes(0, 1).reshape(n, WIDTH)

    def forward(self, tokens, cache, first, layer_done=None):
        """The next token after tokens at first, first + 1, ...; cache[layer] has the
        keys and values of what came before, and gets theirs."""
        x = self.embedding[tokens] + self.position[first : first + len(tokens)]
        end = first + len(tokens)
        for layer in range(LAYERS):
            q, k, v = np.split(self.norm(x) @ self.qkv[layer], 3, axis=1)
            cache[layer, 0, first:end], cache[layer, 1, first:end] = k, v
            if layer_done:
                layer_done(layer)
            keys, values = cache[layer, :, :end]
            x = x + self.attend(q, keys, values, first) @ self.out[layer]
            x = x + np.maximum(self.norm(x) @ self.up[layer], 0) @ self.down[layer]
        return int((self.norm(x[-1]) @ self.head).argmax())


def new_cache(requests=1):
    return np.zeros((requests, LAYERS, 2, CONTEXT, WIDTH), np.float32)


def prompt(request):
    length = 20 + 37 * request % 150
    return np.random.default_rng(100 + request).integers(0, VOCABULARY, length)


def decode(model, cache, first, token):
    tokens = [token]
    for i in range(TOKENS - 1):
        tokens.append(model.forward([tokens[-1]], cache, first + i))
    return tokens


# ---- the two sides ------------------------------------------------------


def open_engine():
    engine = TransferEngine()
    if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""):
        sys.exit(engine.last_error())
    return engine


def serve_decode():
    """The decode process: says where it is, then a line for each request."""
    model, engine, caches = Model(), open_engine(), new_cache(REQUESTS)
    if engine.register_memory(caches.ctypes.data, caches.nbytes):
        sys.exit(engine.last_error())
    session = "127.0.0.1:%d" % engine.get_rpc_port()
    print(json.dumps([session, caches.ctypes.data]), flush=True)
    left = REQUESTS
    while left:
        for notify in engine.get_notifies():
            request, length, token = json.loads(notify.msg)
            tokens = decode(model, caches[request], length, token)
            print(json.dumps([request, tokens]), flush=True)
            left -= 1
        time.sleep(0.001)


class Prefill:
    """Computes prompts, and sends what it has to the decode process."""

    def __init__(self, session, room):
        self.model, self.engine = Model(), open_engine()
        self.session, self.room = session, room
        self.caches = new_cache(REQUESTS)
        if self.engine.register_memory(self.caches.ctypes.data, self.caches.nbytes):
            sys.exit(self.engine.last_error())
        self.moved = 0

    def run(self, request):
        tokens, cache, batches = prompt(request), self.caches[request], []

        def send(layer):
            """Keys, then values: two pieces, in flight while we compute on."""
            here, sizes = [], []
            for part in cache[layer]:
                here.append(part.ctypes.data)
                sizes.append(part[: len(tokens)].nbytes)
            shift = self.room - self.caches.ctypes.data
            there = [address + shift for address in here]
            batch = self.engine.batch_transfer_async_write(
                self.session, here, there, sizes
            )
            batches.append(batch)
            self.moved += sum(sizes)

        token = self.model.forward(tokens, cache, 0, send)
        if not all(batches) or self.engine.get_batch_transfer_status(batches):
            sys.exit(self.engine.last_error())
        notify = TransferNotify("ready", json.dumps([request, len(tokens), token]))
        at = self.caches.ctypes.data
        if self.engine.transfer_sync(
            self.session, at, self.room, 0, TransferOpcode.Write, notify
        ):
            sys.exit(self.engine.last_error())


def undivided(request):
    model, cache, tokens = Model(), new_cache()[0], prompt(request)
    first = model.forward(tokens, cache, 0)
    return decode(model, cache, len(tokens), first)


def main():
    if sys.argv[1:] == ["decode"]:
        return serve_decode()
    command = [sys.executable, __file__, "decode"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    prefill = Prefill(*json.loads(other.stdout.readline()))
    for request in range(REQUESTS):
        prefill.run(request)
    equal = 0
    for line in other.stdout:
        request, tokens = json.loads(line)
        same = tokens == undivided(request)
        equal += same
        print(
            "request %d: %3d tokens of prompt, %d decoded, %s"
            % (request, len(prompt(request)), len(tokens), "equal" if same else "WRONG")
        )
    print("%d of %d equal, %d bytes of KV moved" % (equal, REQUESTS, prefill.moved))
    return other.wait() or equal != REQUESTS


if __name__ == "__main__":
    sys.exit(main())
