"""sitecustomize.py - vLLM's MooncakeConnector asks torch which accelerator it is on.
A CPU is none, and torch raises; with this folder in PYTHONPATH it answers 0, in the
server and in the processes that it starts. On a GPU it is not needed.
"""

import re
import sys

if re.search("vllm|spawn_main", " ".join(sys.orig_argv[1:])):
    import torch

    torch.accelerator.current_device_index = lambda: 0
