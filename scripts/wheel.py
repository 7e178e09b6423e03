#!/usr/bin/env python3
"""wheel.py - put the Python package and what was built for it into a wheel.

    wheel.py FOLDER VERSION LIBRARY PROGRAM

Writes FOLDER/mooncake_transfer_engine-...whl and prints its path. Needs nothing
but Python and readelf. The platform is the oldest glibc that both binaries run
with, as manylinux_2_N.

The distribution is called as the public one, mooncake-transfer-engine, because
programs ask for that by name, and its version begins with the public one whose
interface it answers; what follows the plus sign is ours.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile

PUBLIC = "0.3.13"
NAME = "mooncake_transfer_engine"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "src/compat/python/mooncake")
METADATA = """\
Metadata-Version: 2.1
Name: mooncake-transfer-engine
Version: %s
Summary: Mooncake's transfer engine: moves KV caches between processes and hosts
License: Apache-2.0
Requires-Python: >=3.8
"""
ENTRY_POINTS = """\
[console_scripts]
mooncake = mooncake._commands:mooncake
mooncake_http_metadata_server = mooncake.http_metadata_server:main
transfer_engine_bench = mooncake._commands:transfer_engine_bench
transfer_engine_topology_dump = mooncake._commands:topology_dump
"""


def platform(paths):
    """What the binaries need of glibc, and of which machine they are."""
    newest = 17
    for path in paths:
        text = subprocess.check_output(["readelf", "--version-info", path]).decode()
        for minor in re.findall(r"GLIBC_2\.(\d+)", text):
            newest = max(newest, int(minor))
    return "manylinux_2_%d_%s" % (newest, os.uname().machine)


def contents(library, program):
    """Path in the wheel: bytes, mode."""
    files = {}
    for name in sorted(os.listdir(PACKAGE)):
        path = os.path.join(PACKAGE, name)
        if os.path.isfile(path):
            files["mooncake/" + name] = path
    files["mooncake/libtransfer_engine.so"] = library
    files["mooncake/mooncake"] = program
    for name, path in files.items():
        with open(path, "rb") as f:
            yield name, f.read(), os.stat(path).st_mode & 0o111 and 0o755 or 0o644


def information(info, version, tag):
    with open(os.path.join(ROOT, "LICENSE"), "rb") as f:
        yield info + "/LICENSE", f.read(), 0o644
    yield info + "/METADATA", (METADATA % version).encode(), 0o644
    wheel = "Wheel-Version: 1.0\nGenerator: wheel.py\nRoot-Is-Purelib: false\nTag: %s\n"
    yield info + "/WHEEL", (wheel % tag).encode(), 0o644
    yield info + "/entry_points.txt", ENTRY_POINTS.encode(), 0o644
    yield info + "/top_level.txt", b"mooncake\n", 0o644


def add(archive, name, data, mode):
    # One time for all, so that equal contents make equal wheels.
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o100000 | mode) << 16
    archive.writestr(entry, data)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return "%s,sha256=%s,%d\n" % (name, digest.decode(), len(data))


def main(folder, ours, library, program):
    version = "%s+c%s" % (PUBLIC, ours)
    tag = "py3-none-" + platform([library, program])
    info = "%s-%s.dist-info" % (NAME, version)
    path = os.path.join(folder, "%s-%s-%s.whl" % (NAME, version, tag))
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data, mode in contents(library, program):
            record += add(archive, name, data, mode)
        for name, data, mode in information(info, version, tag):
            record += add(archive, name, data, mode)
        record += info + "/RECORD,,\n"
        add(archive, info + "/RECORD", record.encode(), 0o644)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
