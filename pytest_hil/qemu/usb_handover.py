"""Run by QEMU for each connection of the guest's: gives that connection to us, and ends.

A program of its own, with nothing but the standard library: it starts in 10 ms. Its standard
input is the connection; its argument is the name of our gateway.
"""

import os
import socket
import struct
import sys

# Seconds until it gives up on a gateway that does not answer: the guest's connection then ends.
PATIENCE = 10.0


def peer_uid(sock: socket.socket) -> int:
    """Whose the other end of a unix socket is (Linux: unix(7), SO_PEERCRED)."""
    credentials = struct.Struct("3i")
    _pid, uid, _gid = credentials.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    )
    return int(uid)


def hand_over(name: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gateway:
        gateway.settimeout(PATIENCE)
        try:
            gateway.connect("\0" + name)
            # Names of this kind have no owner: anybody may have taken ours.
            if peer_uid(gateway) != os.getuid():
                return 1
            socket.send_fds(gateway, [b"+"], [0])
            gateway.recv(1)  # it has it, or is gone
        except OSError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(hand_over(*sys.argv[1:]))
