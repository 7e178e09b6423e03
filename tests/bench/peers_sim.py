"""peers_sim.py - the other side of peers_sim.lua: Dynamo's replay and its RadixTree.

  python peers_sim.py replay TRACE BLOCK_TOKENS PREFILL DECODE
  python peers_sim.py index BLOCKS CHAIN WORKERS

Prints one line of JSON. Needs ai-dynamo-runtime; inputs are made before the clock runs.
"""

import json
import random
import sys
from time import perf_counter

from dynamo import _core


def replay(trace, block_tokens, prefill, decode):
    """The whole trace with a KV router, as run_trace_replay() of dynamo.replay does."""

    def engine(role):
        return _core._normalize_mocker_config(
            {"engine": {"worker_type": role, "block_size": block_tokens}})

    start = perf_counter()
    result = _core.run_mocker_trace_replay(
        [trace], prefill_engine_args=engine("prefill"),
        decode_engine_args=engine("decode"), num_prefill_workers=prefill,
        num_decode_workers=decode, router_mode="kv_router",
        trace_block_size=block_tokens)
    wall_s = perf_counter() - start
    summary = dict(result.summary)
    return {"wall_s": wall_s, "own_wall_s": summary["wall_time_ms"] / 1e3,
            "requests": summary["num_requests"],
            "completed": summary["completed_requests"]}


def index(blocks, length, workers):
    """Blocks a second: stored events applied, then prefixes found in random order."""
    random.seed(1)
    chains = [[random.getrandbits(63) for _ in range(length)]
              for _ in range(blocks // length)]
    events = [json.dumps({"event_id": i, "data": {"stored": {
        "parent_hash": None,
        "blocks": [{"block_hash": h, "tokens_hash": h} for h in chain],
    }}}).encode() for i, chain in enumerate(chains)]
    tree = _core.RadixTree()
    start = perf_counter()
    for i, event in enumerate(events):
        tree.apply_event(i % workers, event)
    tree.find_matches(chains[-1])           # events are applied in another thread
    add_s = perf_counter() - start
    found = 0
    start = perf_counter()
    for i in range(len(chains)):
        scores = tree.find_matches(chains[i * 7919 % len(chains)]).scores
        found += max(scores.values())
    match_s = perf_counter() - start
    if found != len(chains) * length:
        sys.exit(f"{found} blocks were found, not {len(chains) * length}")
    return {"add": blocks / add_s, "match": found / match_s}


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    if what == "replay":
        out = replay(args[0], *map(int, args[1:]))
    else:
        out = index(*map(int, args))
    print(json.dumps(out))
