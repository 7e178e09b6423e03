"""The metadata server: python -m mooncake.http_metadata_server --port 8080

GET, PUT and DELETE of /metadata?key=..., as the public Mooncake has them.
"""

import argparse
import ctypes
import signal
import sys

from . import _native


def main() -> int:
    parser = argparse.ArgumentParser(prog="mooncake_http_metadata_server")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--state", help="keep the records in this file")
    options = parser.parse_args()
    host = "[%s]" % options.host if ":" in options.host else options.host
    server = ctypes.c_void_p()
    stopping = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    failed = _native.lib.mc_registryd_open(
        ctypes.byref(server),
        b"%s:%d" % (host.encode(), options.port),
        options.state.encode() if options.state else None,
    )
    if failed:
        why = _native.lib.mc_errmsg().decode("utf-8", "replace")
        print("mooncake_http_metadata_server: %s" % why, file=sys.stderr)
        return 1
    address = _native.lib.mc_registryd_addr(server).decode()
    print("metadata server at http://%s/metadata" % address, flush=True)
    signal.sigwait(stopping)
    _native.lib.mc_registryd_close(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
