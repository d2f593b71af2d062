"""A judge on this machine that answers as told, over a real connection."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def longer(shown):
    """A judge that has an opinion and no eye for order."""
    if len(shown["A"]) == len(shown["B"]):
        return "TIE"
    return "A" if len(shown["A"]) > len(shown["B"]) else "B"


@contextlib.contextmanager
def serve(handle):
    """Serve `handle(handler, body, number)` on this machine; give its address and what it got."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, dict(self.headers), body))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                handle(self, body, len(seen))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler, status, content, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def opinion(decide):
    def handle(handler, body, _):
        send(handler, 200, completion(decide(json.loads(body["messages"][1]["content"]))))

    return handle
