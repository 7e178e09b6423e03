"""proxy.py - one address in front of a vLLM server for prefill and one for decode.

    proxy.py [--port 8100] [--prefill URL] [--bootstrap URL] [--decode URL]

A completion goes to the prefill server first, which computes the prompt and the first
token and keeps the KV cache; then to the decode server, told from where to have that,
whose answer is the client's. All else, such as /v1/models and /metrics, is the decode
server's. The standard library is all it needs.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMPLETIONS = ("/v1/completions", "/v1/chat/completions")
SECONDS = 600


class Unavailable(Exception):
    """A server behind this one does not answer; the text says which."""


def ask(url, body=None, headers=None):
    """The open answer, of whatever status."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, body, headers)
    try:
        return urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as answer:
        return answer
    except OSError as error:
        raise Unavailable("%s: %s" % (url, getattr(error, "reason", error))) from error


class Proxy(BaseHTTPRequestHandler):
    options = None

    def engine_id(self):
        """A restarted server has a new one, so it is asked for each time."""
        with ask(self.options.bootstrap + "/query") as answer:
            engines = json.load(answer)
        if "0" not in engines:
            raise Unavailable("no prefill engine has come to %s" % answer.url)
        return engines["0"]["engine_id"]

    def prefill(self, body, transfer, headers):
        """None, or the answer if it is an error."""
        body = dict(body, stream=False, max_tokens=1)
        body.pop("stream_options", None)
        if "max_completion_tokens" in body:
            body["max_completion_tokens"] = 1
        body["kv_transfer_params"] = {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "transfer_id": transfer,
        }
        url = self.options.prefill + self.path
        answer = ask(url, json.dumps(body).encode(), headers)
        if answer.status != 200:
            return answer
        answer.read()
        return answer.close()

    def decode(self, body, transfer, engine, headers):
        params = {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "transfer_id": transfer,
            "remote_engine_id": engine,
            "remote_bootstrap_addr": self.options.bootstrap,
        }
        body = json.dumps(dict(body, kv_transfer_params=params)).encode()
        return ask(self.options.decode + self.path, body, headers)

    def completion(self, body):
        name = uuid.uuid4().hex
        transfer, headers = "xfer-" + name, {"X-Request-Id": name}
        engine = self.engine_id()
        return self.prefill(body, transfer, headers) or self.decode(
            body, transfer, engine, headers
        )

    def relay(self, answer):
        """Pass it on as it comes, so that a stream is one. The connection ends it."""
        with answer:
            self.send_response(answer.status)
            kind = answer.headers.get("Content-Type", "application/json")
            self.send_header("Content-Type", kind)
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(piece)

    def refuse(self, status, why):
        text = json.dumps({"error": {"message": why, "code": status}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text)

    def handle_request(self, body):
        try:
            if body is not None and self.path in COMPLETIONS:
                body = json.loads(body)
                if not isinstance(body, dict):
                    raise ValueError("an object is expected")
                answer = self.completion(body)
            else:
                answer = ask(self.options.decode + self.path, body)
        except ValueError as error:
            return self.refuse(400, str(error))
        except Unavailable as error:
            return self.refuse(503, str(error))
        self.relay(answer)

    def do_GET(self):
        self.handle_request(None)

    def do_POST(self):
        self.handle_request(self.rfile.read(int(self.headers["Content-Length"] or 0)))

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--prefill", default="http://127.0.0.1:8101")
    parser.add_argument("--bootstrap", default="http://127.0.0.1:8998")
    parser.add_argument("--decode", default="http://127.0.0.1:8102")
    Proxy.options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", Proxy.options.port), Proxy)
    print("ready http://127.0.0.1:%d" % server.server_port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
