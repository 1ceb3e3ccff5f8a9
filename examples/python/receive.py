"""Receives webhooks, and believes those that are signed (Standard Webhooks, https://www.standardwebhooks.com), with
nothing but Python's own library.

WEBHOOK_SECRET=whsec_… python receive.py 8080
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["WEBHOOK_SECRET"]
KEY = base64.b64decode(SECRET.removeprefix("whsec_")) if SECRET.startswith("whsec_") else SECRET.encode()
TOLERANCE = 300  # seconds: an old message is somebody's who kept it
seen = set()  # of a database, where it is to outlive the process


def is_genuine(headers, body):
    name, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdigit() or abs(time.time() - int(sent)) > TOLERANCE:
        return False
    signed = f"{name}.{sent}.".encode() + body
    wanted = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    # While a secret is renewed there is more than one.
    given = [part[3:] for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    return any(hmac.compare_digest(one.encode(), wanted.encode()) for one in given)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        genuine = is_genuine(self.headers, body)
        if genuine and self.headers["webhook-id"] not in seen:  # the same id: the same message, sent again
            seen.add(self.headers["webhook-id"])
            print("received", json.loads(body)["type"], flush=True)
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
