"""The metadata server: python -m mooncake.http_metadata_server --port 8080

GET, PUT and DELETE of /metadata?key=..., as the public Mooncake has them. It is
`mooncake serve --registry`, which prints its address.
"""

import argparse

from ._commands import execute


def main() -> None:
    parser = argparse.ArgumentParser(prog="mooncake_http_metadata_server")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--state", help="keep the records in this file")
    options = parser.parse_args()
    host = "[%s]" % options.host if ":" in options.host else options.host
    state = ["--state", options.state] if options.state else []
    execute(["serve", "-q", "--registry", "%s:%d" % (host, options.port)] + state)


if __name__ == "__main__":
    main()
