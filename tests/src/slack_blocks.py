"""What Slack's own library objects to in messages.

Reads bodies of incoming webhooks from stdin, a line of JSON each, and answers each with a list of
errors: of its validators, and of what its models know nothing of and drop.
"""

import json
import os
import sys

# It advises dictionaries for building messages; these are read.
os.environ["SLACKCLIENT_SKIP_DEPRECATION"] = "1"

from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from slack_sdk.models.messages.message import Message


def dropped(given, kept, path):
    """Everything that stands in one and not, or not so, in the other."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from dropped(value, kept.get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept)):
            yield from dropped(one, other, f"{path}[{index}]")
    elif given != kept:
        yield f"{path}: {json.dumps(given)[:80]} is read as {json.dumps(kept)[:80]}"


def errors(body):
    blocks = [Block.parse(block) for block in body.get("blocks", [])]
    for given, block in zip(body.get("blocks", []), blocks):
        try:
            if block is None:
                yield f"{given.get('type')} is no block"
            else:
                block.validate_json()
        except SlackObjectFormationError as error:
            yield str(error)
    try:
        message = Message(text=body["text"], blocks=blocks, markdown=body.get("mrkdwn", True))
        message.validate_json()
        yield from dropped({**body, "unfurl_links": None}, message.to_dict(), "message")
    except SlackObjectFormationError as error:
        yield str(error)
    except KeyError as error:
        yield f"{error} is missing"


for line in sys.stdin:
    print(json.dumps(list(errors(json.loads(line)))), flush=True)
