"""A server of rules: which request gets which answer, streamed line by line."""

import contextlib
import http.server
import json
import threading
import time

NOT_FOUND = (404, {"error": {"message": "no such page"}})


def words(count=16, **last):
    chunks = [{"choices": [{"delta": {"content": f"w{i} "}}]} for i in range(count)]
    return [*chunks, {"choices": [{"delta": {}, "finish_reason": "length"}], **last}]


def stream(*events, end="data: [DONE]\n\n"):
    said = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return 200, "".join(f"data: {one}\n\n" for one in said) + end


def refuses(message, status=400):
    return status, {"error": {"message": message}}


@contextlib.contextmanager
def serving(*answers):
    """A server with (path, fields, answer) rules, the first that fits is taken: of a request to that path (any, where
    empty) that has those fields. Gives its URL, and the list of paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fits = (
                a for path, named, a in answers if path in ("", self.path) and (not named or set(named) & {*fields})
            )
            status, body = next(fits, NOT_FOUND)
            if body is None:
                threading.Event().wait(3)
                return
            kind = "text/event-stream" if isinstance(body, str) else "application/json"
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for piece in data.splitlines(keepends=True):
                self.wfile.write(piece)
                time.sleep(0.002)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
