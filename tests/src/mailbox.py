"""Prints the mails of a maildir as a JSON list, in the order they arrived.

usage: mailbox.py MAILDIR
"""

import email
import email.policy
import json
import pathlib
import sys


def arrived(path):
    seconds, rest = path.name.split(".")[:2]
    return int(seconds), int(rest[1 : rest.index("P")])


def read(path):
    raw = path.read_bytes()
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    return {
        "headers": [(name.lower(), str(value)) for name, value in mail.items()],
        "text": text.get_content() if text else None,
        "html": html.get_content() if html else None,
        "longest_line": max(map(len, raw.splitlines())),
        "defects": [repr(defect) for part in mail.walk() for defect in part.defects],
    }


json.dump([read(path) for path in sorted(pathlib.Path(sys.argv[1], "new").glob("*"), key=arrived)], sys.stdout)
