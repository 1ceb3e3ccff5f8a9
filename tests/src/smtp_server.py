"""A real SMTP server for tests: STARTTLS required, then AUTH with a known user.

usage: smtp_server.py CERTIFICATE KEY USER PASSWORD ADDRESS PORT

Writes JSON lines to stdout: {"port": …} once it listens, then one object for every message it
accepted or refused. Reads commands from stdin, a line each: `refuse CODE TEXT` scripts the next
answer to a message's data, in order. Ends when stdin does, so it does not outlive its starter.
"""

import asyncio
import collections
import email
import email.policy
import json
import logging
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

REFUSALS = collections.deque()


def say(**fields):
    print(json.dumps(fields), flush=True)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        if REFUSALS:
            answer = REFUSALS.popleft()
            say(refused=answer, mail_from=envelope.mail_from, rcpt_tos=envelope.rcpt_tos)
            return answer
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text, html = message.get_body(("plain",)), message.get_body(("html",))
        say(
            mail_from=envelope.mail_from,
            rcpt_tos=envelope.rcpt_tos,
            user=session.auth_data.login.decode() if session.auth_data else None,
            tls=session.ssl is not None,
            headers={name.lower(): str(value) for name, value in message.items()},
            text=text.get_content() if text else None,
            html=html.get_content() if html else None,
        )
        return "250 2.0.0 accepted"


def authenticator(user, password):
    def check(server, session, envelope, mechanism, auth_data):
        known = isinstance(auth_data, LoginPassword) and (auth_data.login.decode(), auth_data.password.decode()) == (
            user,
            password,
        )
        if not known:
            say(login_refused=mechanism)
        return AuthResult(success=known, handled=False, auth_data=auth_data)

    return check


# It warns of its own use of what it deprecated.
logging.getLogger("mail.log").setLevel(logging.ERROR)
logging.getLogger("mail.debug").setLevel(logging.ERROR)


async def main(certificate, key, user, password, address, port):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(
            Handler(),
            hostname="mail.test",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticator(user, password),
            enable_SMTPUTF8=True,
            loop=loop,
        ),
        address,
        int(port),
    )
    say(port=server.sockets[0].getsockname()[1])
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        word, _, answer = line.decode().strip().partition(" ")
        if word == "refuse":
            REFUSALS.append(answer)
            say(will_refuse=answer)


asyncio.run(main(*sys.argv[1:]))
