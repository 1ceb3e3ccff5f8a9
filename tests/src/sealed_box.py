# Opens what is sealed, with libsodium's own binding. A question is {"key", "sealed"}, both as pg_klaxon
# writes them; the answer is the plaintext, as a string.
import base64
import json
import sys

from nacl.public import PrivateKey, SealedBox

for line in sys.stdin:
    question = json.loads(line)
    prefix, sealed = question["sealed"].rsplit(":", 1)
    assert prefix == "sealed:v1", prefix
    box = SealedBox(PrivateKey(base64.b64decode(question["key"], validate=True)))
    print(json.dumps(box.decrypt(base64.b64decode(sealed, validate=True)).decode()), flush=True)
