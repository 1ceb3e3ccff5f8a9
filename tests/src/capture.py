"""Says of each TCP and UDP packet that leaves, over whatever interface, where it goes.

Writes JSON lines to stdout: {"to": null, "port": 0} once it listens, then {"to": ADDRESS, "port": PORT}
for each packet. Packets to oneself leave over the loopback interface, and are seen as all others.
"""

import json
import socket

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD


def say(to, port):
    print(json.dumps({"to": to, "port": port}), flush=True)


def destination(kind, packet):
    if kind == ETH_P_IP:
        protocol, family, address, rest = packet[9], socket.AF_INET, packet[16:20], (packet[0] & 15) * 4
    elif kind == ETH_P_IPV6:
        protocol, family, address, rest = packet[6], socket.AF_INET6, packet[24:40], 40
    else:
        return None
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    return socket.inet_ntop(family, address), int.from_bytes(packet[rest + 2 : rest + 4], "big")


with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as packets:
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
    say(None, 0)
    while True:
        packet, (_, kind, direction, *_) = packets.recvfrom(65535)
        found = destination(kind, packet) if direction == socket.PACKET_OUTGOING else None
        if found:
            say(*found)
