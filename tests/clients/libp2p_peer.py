"""A peer of a bacnode network that is no bacnode: py-libp2p, as it is on PyPI. It speaks gossipsub, Kademlia, identify and
ping, and knows of bacnode only what protocol/README.md says.

    python libp2p_peer.py --network NAME --connect MULTIADDR … [--swarm-key FILE] [--own-guard] [--adverts COUNT]
                          [--providers CID] [--find PEER] [--provide CID] [--rubbish]

Prints what it saw as one line of JSON, stays until its stdin ends, and prints it again as it is then.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import struct
import sys

import multiaddr
import trio
from Crypto.Cipher import Salsa20
from libp2p import new_host
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.io.abc import ReadWriteCloser
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb.rpc_pb2 import RPC, Message
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.utils import read_length_prefixed_protobuf

parser = argparse.ArgumentParser()
parser.add_argument("--network", required=True)
parser.add_argument("--connect", action="append", default=[])
parser.add_argument("--swarm-key")
parser.add_argument("--own-guard", action="store_true")
parser.add_argument("--adverts", type=int, default=1)
parser.add_argument("--providers")
parser.add_argument("--find")
parser.add_argument("--provide")
parser.add_argument("--rubbish", action="store_true")
args = parser.parse_args()

# How long anything may take, in seconds: an advert is said again every 15.
PATIENCE = 25

# --- what protocol/README.md says


def name(what):
    return f"/bacnode/{args.network}/{what}/1"


TOPIC = name("capabilities")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def swarm_secret():
    """The 32 bytes of a swarm key file."""
    with open(args.swarm_key) as file:
        return bytes.fromhex(file.read().split()[-1])


def fingerprint(secret):
    """A swarm key's fingerprint, as Kubo has it: SHAKE-128 of what Salsa20 makes of 64 zeros."""
    stream = Salsa20.new(key=secret, nonce=b"finprint").encrypt(bytes(64))
    return hashlib.shake_128(stream).digest(16)


SECRET = swarm_secret() if args.swarm_key else None
# Part of whatever is signed.
NETWORK_ID = sha256(b"bacnode/network/1\0", args.network.encode(), b"\0" + fingerprint(SECRET) if SECRET else b"")


class Reader:
    """Reads bincode: little endian, integers of fixed size, a u64 before whatever has a length."""

    def __init__(self, data):
        self.rest = data

    def take(self, count):
        assert count <= len(self.rest), "it ends too early"
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def ints(self, layout):
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def bytes(self):
        return self.take(self.ints("Q")[0])

    def end(self):
        assert not self.rest, "something is left over"


def open_advert(message):
    """The advert in a gossip message, if it is whole and its author's."""
    envelope = Reader(message)
    magic, version, kind, length = envelope.ints("4sHHI")
    assert (magic, version, kind, length) == (b"bacn", 1, 1, len(envelope.rest)), "no advert"
    signed, signature = envelope.bytes(), envelope.take(64)
    envelope.end()

    read = Reader(signed)
    author = Ed25519PublicKey.from_bytes(read.take(32))
    sequence, issued, ttl, oldest, newest, engines = read.ints("QQIHHB")
    cpu_milli, memory, disk, gpu, load = read.ints("QQQIH")
    label, program = read.bytes().decode(), read.bytes().decode()
    labels = read.take(32).hex()
    addresses = [str(multiaddr.Multiaddr(read.bytes())) for _ in range(read.ints("Q")[0])]
    (leaving,) = read.ints("?")
    read.end()

    said = b"bacnode/v1/advert\0" + NETWORK_ID + struct.pack("<Q", len(signed)) + signed
    assert author.verify(said, signature), "forged"
    return str(ID.from_pubkey(author)), {
        "sequence": str(sequence),
        "issued": issued,
        "ttl": ttl,
        "wire": [oldest, newest],
        "engines": engines,
        "total": {"cpuMilli": cpu_milli, "memory": memory, "disk": disk, "gpu": gpu},
        "load": load,
        "name": label,
        "version": program,
        "labels": labels,
        "addresses": addresses,
        "leaving": leaving,
    }


# --- the swarm key
#
# py-libp2p 0.8.1 has a `psk`, which is not libp2p's (specs/pnet/Private-Networks-PSK-V1): it takes Salsa20 and nonces of 8
# bytes where all others take XSalsa20 and nonces of 24, and sends its own only with its first byte. So --swarm-key alone
# gets nowhere, and --own-guard does the same as libp2p's others, by the transport that one may hand in.


def hsalsa20(key, nonce):
    """The key that XSalsa20 (Bernstein 2011) takes for the first 16 bytes of a nonce."""
    k, n, c = struct.unpack("<8I", key), struct.unpack("<4I", nonce), struct.unpack("<4I", b"expand 32-byte k")
    x = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    columns = (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)
    rows = (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)
    for _ in range(10):
        for a, b, c, d in columns + rows:
            for to, left, right, by in (b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18):
                total = x[left] + x[right] & 0xFFFFFFFF
                x[to] ^= (total << by | total >> 32 - by) & 0xFFFFFFFF
    return struct.pack("<8I", *(x[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def xsalsa20(nonce):
    return Salsa20.new(key=hsalsa20(SECRET, nonce[:16]), nonce=nonce[16:])


class Guarded(ReadWriteCloser):
    """A stream behind the swarm key: each end sends a nonce first."""

    def __init__(self, stream):
        self.stream, self.ours, self.theirs = stream, None, None

    async def shake(self):
        nonce = os.urandom(24)
        await self.stream.write(nonce)
        self.ours = xsalsa20(nonce)
        return self

    async def write(self, data):
        await self.stream.write(self.ours.encrypt(data))

    async def read(self, n=None):
        if self.theirs is None:
            nonce = b""
            while len(nonce) < 24:
                more = await self.stream.read(24 - len(nonce))
                if not more:
                    return b""
                nonce += more
            self.theirs = xsalsa20(nonce)
        return self.theirs.decrypt(await self.stream.read(n))

    async def close(self):
        await self.stream.close()

    def get_remote_address(self):
        return self.stream.get_remote_address()


class GuardedTcp(TCP):
    async def dial(self, maddr):
        connection = await super().dial(maddr)
        connection.stream = await Guarded(connection.stream).shake()
        return connection

    def create_listener(self, handler):
        async def guarded(stream):
            await handler(await Guarded(stream).shake())

        return super().create_listener(guarded)


# --- the peer

# The name of its Kademlia is a constant of each of these modules.
for module in common, kad_dht, peer_routing, provider_store, value_store:
    module.PROTOCOL_ID = name("kad")

seen = {"identified": {}, "adverts": {}, "refused": 0, "providers": {}, "found": []}


def judge(_, message):
    """Whether a gossip message is to be passed on."""
    try:
        node, advert = open_advert(message.data)
    except Exception:
        seen["refused"] += 1
        return False
    seen["adverts"][node] = advert
    return True


async def until(ready):
    """Waits until `ready`, or until it has been long enough: what is missing then is missing in the report."""
    with trio.move_on_after(PATIENCE):
        while not ready():
            await trio.sleep(0.05)


async def identify(host, peer):
    """Asks a peer who it is: the host does so by itself, and keeps only some of the answer."""
    stream = await host.new_stream(peer, [IDENTIFY])
    told = Identify.FromString(await read_length_prefixed_protobuf(stream, use_varint_format=True))
    await stream.close()
    seen["identified"][str(peer)] = {
        "protocolVersion": told.protocol_version,
        "agentVersion": told.agent_version,
        "protocols": sorted(told.protocols),
    }


async def main():
    guard = {"transports": [GuardedTcp()]} if SECRET and args.own_guard else {"psk": SECRET and SECRET.hex()}
    host = new_host(key_pair=create_new_key_pair(), **guard)
    # 0.8.1 takes any two messages without author and number for one that was changed, and passes on only the first. It hears
    # all of them.
    gossip = GossipSub(
        protocols=["/meshsub/1.2.0", "/meshsub/1.1.0"], degree=6, degree_low=4, degree_high=12, heartbeat_interval=1
    )
    pubsub = Pubsub(
        host,
        gossip,
        strict_signing=False,
        msg_id_constructor=lambda message: sha256(message.topicIDs[0].encode(), message.data)[:16],
    )
    dht = kad_dht.KadDHT(host, kad_dht.DHTMode.SERVER)

    def report():
        print(
            json.dumps(
                {
                    "library": f"py-libp2p {importlib.metadata.version('libp2p')}",
                    "id": str(host.get_id()),
                    "addresses": [str(address) for address in host.get_addrs()],
                    "mesh": [str(peer) for peer in gossip.mesh.get(TOPIC, ())],
                    **seen,
                }
            ),
            flush=True,
        )

    async with (
        host.run([multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(pubsub),
        background_trio_service(gossip),
        background_trio_service(dht),
    ):
        await pubsub.wait_until_ready()
        pubsub.set_topic_validator(TOPIC, judge, False)
        await pubsub.subscribe(TOPIC)
        for address in args.connect:
            try:
                with trio.fail_after(PATIENCE / 5):
                    peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
                    await host.connect(peer)
                    await identify(host, peer.peer_id)
            except Exception as error:
                seen["error"] = f"{type(error).__name__}: {error}"
        if host.get_connected_peers():
            await until(lambda: len(seen["adverts"]) >= args.adverts and gossip.mesh[TOPIC])
            if args.providers:
                for provider in await dht.find_providers(args.providers):
                    seen["providers"][str(provider.peer_id)] = [str(address) for address in provider.addrs]
            if args.find:
                found = await dht.peer_routing.find_peer(ID.from_string(args.find))
                seen["found"] = [str(address) for address in found.addrs] if found else []
            if args.provide:
                await dht.provide(args.provide)
            if args.rubbish:
                # Whoever has been in the mesh for a while is trusted more.
                await trio.sleep(5)
                # Not by `publish`, which names author and number of a message even where nothing is signed.
                for peer in gossip.mesh[TOPIC]:
                    rubbish = [Message(data=os.urandom(200), topicIDs=[TOPIC]) for _ in range(3)]
                    gossip.send_rpc(peer, RPC(publish=rubbish))
        report()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        report()
        # Its services would take their time.
        os._exit(0)


trio.run(main)
