"""A chat server on loopback that plays what a test asks for, and the question that the tests of judges share."""

import hashlib
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clinical_r1.judges.models import OpenAIServer
from clinical_r1.questions import Question

QUESTION = Question("q1", "medqa", "test", "A man with a red toe.", {"A": "Gout", "B": "Lupus"}, "A", {})
KEY = "sk-secret-0123456789"


def expected(messages) -> int:
    """The count the good server gives to a prompt."""
    return int(hashlib.sha256(messages[-1]["content"].encode()).hexdigest()[:2], 16) % 7


def nonce_of(messages) -> str:
    return messages[-1]["content"].rpartition("</count-")[2].rstrip(">")


def verdict(messages, count=None) -> str:
    nonce = nonce_of(messages)
    return f"1. a point\n<count-{nonce}>{expected(messages) if count is None else count}</count-{nonce}>"


def answer(text, usage=True, finish="stop", **message):
    """What a play returns: (status, body, headers), or a function of the handler. finish None: no finish_reason."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message}
    choice |= {"finish_reason": finish} if finish else {}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]}
    if usage:
        body["usage"] = usage if usage is not True else {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, json.dumps(body).encode(), {}


def refusal(status, words="busy", error=None, **headers):
    return status, json.dumps({"error": {"message": words} | (error or {})}).encode(), headers


def good(messages, number):
    return answer(verdict(messages))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet a response

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.keys.add(self.headers["Authorization"])
            number = len(server.bodies)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            played = server.play(body["messages"], number)
            played(self) if callable(played) else self.send(*played)
        finally:
            with server.lock:
                server.in_flight -= 1

    def send(self, status, body, headers):
        headers = {"content_type": "application/json", "content_length": str(len(body)), **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = headers["content_length"] != str(len(body))

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, play):
        super().__init__(("127.0.0.1", 0), Handler)
        self.play, self.lock, self.released = play, threading.Lock(), threading.Event()
        self.bodies, self.keys, self.in_flight, self.most_in_flight = [], set(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that gave up is part of the play; anything else is a fault of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(play):
    server = Server(play)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def asker(server, **options) -> OpenAIServer:
    return OpenAIServer(server.url, "tiny", **{"timeout": 5.0, "retries": 2, **options})
