"""How many verdicts a second does a judge server give, alone and eight at a time, and how fast is the cache?

    python benchmarks/judge.py [--completions 20] [--delay 0.05] [--json]

The server is a stand-in on loopback that answers every rubric after `delay` seconds, in a process of its own; so the figures
are what this package costs, not what a model costs. Completions are the clinic's, eight verdicts each.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.traces import BASE, write_trace
from clinical_r1.judges.models import OpenAIServer
from clinical_r1.judges.rubric import rubric_judge
from clinical_r1.score import judge_many


class StandIn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    delay = 0.0

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        nonce = re.findall(r"<count-(\w+)>", asked["messages"][-1]["content"])[-1]
        time.sleep(self.delay)
        content = {"role": "assistant", "content": f"one\n<count-{nonce}>1</count-{nonce}>"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"]}
        answer |= {"choices": [{"index": 0, "message": content, "finish_reason": "stop"}]}
        answer |= {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(delay: float) -> None:
    StandIn.delay = delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def rate(pairs, url: str, workers: int) -> tuple[float, float]:
    """(verdicts a second asked, verdicts a second read back from the cache)."""
    with tempfile.TemporaryDirectory() as folder:
        rates = []
        for _ in range(2):
            judge = rubric_judge(OpenAIServer(url, "stand-in"), folder)
            start = time.perf_counter()
            judge_many(pairs, judge, workers)
            rates.append(8 * len(pairs) / (time.perf_counter() - start))
        assert judge.totals.requests == 0  # the second pass asked nothing
        return tuple(rates)


def measure(completions: int, delay: float) -> dict:
    rng = np.random.default_rng(0)
    questions = load_set("clinic", "validation", completions)
    pairs = [(q, write_trace(Case.from_json(q.meta["case"]), "crpo", BASE, rng)) for q in questions]
    command = [sys.executable, __file__, "--serve", "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            alone, cached = rate(pairs, url, 1)
            eight, _ = rate(pairs, url, 8)
        finally:
            server.kill()
    return {
        "verdicts": 8 * completions,
        "server delay, s": delay,
        "verdicts per second, one at a time": round(alone, 1),
        "verdicts per second, eight completions at a time": round(eight, 1),
        "eight over one": round(eight / alone, 2),
        "verdicts per second from the cache": round(cached),
        "cache over one": round(cached / alone),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds the server takes for a reply")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.delay)
    result = measure(arguments.completions, arguments.delay)
    print(
        json.dumps(result, indent=2)
        if arguments.json
        else "\n".join(f"| {k} | {v} |" for k, v in result.items())
    )
