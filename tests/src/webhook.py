"""Verifies webhooks as a receiver in Python does, with the library of Standard Webhooks.

Reads {"secret", "headers", "body"} from stdin, a line of JSON each, and answers each with null or with
the reason why it does not verify. A secret without `whsec_` is used as its bytes.
"""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def verify(secret, headers, body):
    try:
        Webhook(secret if secret.startswith("whsec_") else secret.encode()).verify(body, headers)
    except WebhookVerificationError as error:
        return str(error)


for line in sys.stdin:
    print(json.dumps(verify(**json.loads(line))), flush=True)
