// A peer of a bacnode network that is no bacnode: js-libp2p, as it is on npm. It speaks gossipsub, Kademlia, identify and
// ping, and knows of bacnode only what protocol/README.md says.
//
//   node peer.mjs --network NAME --connect MULTIADDR … [--swarm-key FILE] [--adverts COUNT] [--providers CID] [--find PEER]
//                 [--provide CID] [--rubbish]
//
// Prints what it saw as one line of JSON, stays until its stdin ends, and prints it again as it is then.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { parseArgs } from 'node:util'

import { generateKeyPair, publicKeyFromRaw } from '@libp2p/crypto/keys'
import { gossipsub, StrictNoSign, TopicValidatorResult } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { salsa20 } from '@noble/ciphers/salsa.js'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

const text = { type: 'string' }
const { values: args } = parseArgs({
  options: {
    network: text,
    connect: { ...text, multiple: true, default: [] },
    'swarm-key': text,
    adverts: { ...text, default: '1' },
    providers: text,
    find: text,
    provide: text,
    rubbish: { type: 'boolean', default: false }
  }
})

/** How long anything may take: an advert is said again every 15 seconds. */
const PATIENCE = 25_000

// --- what protocol/README.md says

const name = (what) => `/bacnode/${args.network}/${what}/1`
const TOPIC = name('capabilities')
const key = args['swarm-key'] && readFileSync(args['swarm-key'])
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest()
const little = (value) => { const bytes = Buffer.alloc(8); bytes.writeBigUInt64LE(BigInt(value)); return bytes }

/** The network's id, which is part of whatever is signed. */
const networkId = sha256('bacnode/network/1\0', args.network, ...(key ? [Buffer.of(0), fingerprint(key)] : []))

/** A swarm key's fingerprint, as Kubo has it: SHAKE-128 of what Salsa20 makes of 64 zeros. */
function fingerprint (file) {
  const secret = Buffer.from(file.toString().trim().split('\n').at(-1), 'hex')
  const stream = salsa20(secret, Buffer.from('finprint'), new Uint8Array(64))
  return createHash('shake128', { outputLength: 16 }).update(stream).digest()
}

/** Reads bincode: little endian, integers of fixed size, a u64 before whatever has a length. */
class Reader {
  constructor (bytes) { this.rest = Buffer.from(bytes) }
  take (count) {
    if (count > this.rest.length) throw new Error('it ends too early')
    const taken = this.rest.subarray(0, count)
    this.rest = this.rest.subarray(count)
    return taken
  }

  u8 () { return this.take(1).readUInt8() }
  u16 () { return this.take(2).readUInt16LE() }
  u32 () { return this.take(4).readUInt32LE() }
  u64 () { return this.take(8).readBigUInt64LE() }
  count () { return Number(this.u64()) }
  bytes () { return this.take(this.count()) }
  text () { return this.bytes().toString() }
  end () { if (this.rest.length > 0) throw new Error('something is left over') }
}

/** The advert in a gossip message, if it is whole and its author's. */
async function open (message) {
  const envelope = new Reader(message)
  if (envelope.take(4).toString() !== 'bacn') throw new Error('no envelope')
  if (envelope.u16() !== 1) throw new Error('another version')
  if (envelope.u16() !== 1) throw new Error('no advert')
  if (envelope.u32() !== envelope.rest.length) throw new Error('another length')
  const [signed, signature] = [envelope.bytes(), envelope.take(64)]
  envelope.end()

  const read = new Reader(signed)
  const author = publicKeyFromRaw(read.take(32))
  const advert = {
    // Too large for a number.
    sequence: read.u64().toString(),
    issued: read.count(),
    ttl: read.u32(),
    wire: [read.u16(), read.u16()],
    engines: read.u8(),
    total: { cpuMilli: read.count(), memory: read.count(), disk: read.count(), gpu: read.u32() },
    load: read.u16(),
    name: read.text(),
    version: read.text(),
    labels: read.take(32).toString('hex'),
    addresses: Array.from({ length: read.count() }, () => multiaddr(read.bytes()).toString()),
    leaving: read.u8() === 1
  }
  read.end()

  const said = Buffer.concat([Buffer.from('bacnode/v1/advert\0'), networkId, little(signed.length), signed])
  if (!await author.verify(said, signature)) throw new Error('forged')
  return [peerIdFromPublicKey(author), advert]
}

// --- the peer

// QUIC is a native module, which not every machine can load, and no way around a swarm key.
const quic = key ? undefined : await import('@chainsafe/libp2p-quic').then((module) => module.quic, () => undefined)
const peer = await createLibp2p({
  privateKey: await generateKeyPair('Ed25519'),
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: quic ? [tcp(), quic()] : [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionProtector: key && preSharedKey({ psk: key }),
  services: {
    identify: identify(),
    ping: ping(),
    gossip: gossipsub({
      globalSignaturePolicy: StrictNoSign,
      msgIdFn: ({ topic, data }) => sha256(topic, data).subarray(0, 16),
      allowedTopics: [TOPIC]
    }),
    dht: kadDHT({
      protocol: name('kad'),
      // By default whoever has no public address is never asked, and addresses that are not public are left out.
      clientMode: false,
      peerInfoMapper: passthroughMapper
    })
  }
})
const { gossip, dht } = peer.services

const seen = { identified: {}, adverts: {}, refused: 0, providers: {}, found: [] }
peer.addEventListener('peer:identify', ({ detail }) => {
  const { protocolVersion, agentVersion, connection } = detail
  seen.identified[detail.peerId] = { protocolVersion, agentVersion, address: connection.remoteAddr.toString() }
})
gossip.topicValidators.set(TOPIC, async (_, message) => {
  try {
    const [node, advert] = await open(message.data)
    seen.adverts[node] = advert
    return TopicValidatorResult.Accept
  } catch (error) {
    seen.refused += 1
    return TopicValidatorResult.Reject
  }
})
gossip.subscribe(TOPIC)

const { version } = createRequire(import.meta.resolve('libp2p'))('../../package.json')
function report () {
  const mesh = gossip.getMeshPeers(TOPIC)
  const addresses = peer.getMultiaddrs().map(String)
  console.log(JSON.stringify({ library: `js-libp2p ${version}`, id: peer.peerId, addresses, mesh, ...seen }))
}

/** Waits until `ready`, or until it has been long enough: what is missing then is missing in the report. */
async function until (ready) {
  for (const end = Date.now() + PATIENCE; !ready() && Date.now() < end;) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

for (const address of args.connect) {
  try {
    await peer.dial(multiaddr(address), { signal: AbortSignal.timeout(PATIENCE / 5) })
  } catch (error) {
    seen.error = error.message
  }
}
if (peer.getPeers().length > 0) {
  await until(() => Object.keys(seen.adverts).length >= Number(args.adverts) && gossip.getMeshPeers(TOPIC).length > 0)
  const signal = AbortSignal.timeout(PATIENCE)
  if (args.providers) {
    for await (const event of dht.findProviders(CID.parse(args.providers), { signal })) {
      if (event.name !== 'PROVIDER') continue
      for (const { id, multiaddrs } of event.providers) seen.providers[id] = multiaddrs.map(String)
    }
  }
  if (args.find) {
    for await (const event of dht.findPeer(peerIdFromString(args.find), { signal })) {
      if (event.name === 'FINAL_PEER') seen.found = event.peer.multiaddrs.map(String)
    }
  }
  if (args.provide) {
    for await (const _ of dht.provide(CID.parse(args.provide), { signal })) { /* each answer is an event */ }
  }
  if (args.rubbish) {
    // Whoever has been in the mesh for a while is trusted more.
    await new Promise((resolve) => setTimeout(resolve, 5000))
    for (let count = 0; count < 3; count += 1) await gossip.publish(TOPIC, crypto.getRandomValues(new Uint8Array(200)))
  }
}
report()
process.stdin.resume().on('end', async () => {
  report()
  await peer.stop()
  process.exit()
})
