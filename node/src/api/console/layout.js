// Where peers stand on the map: this node in the middle, the others around it, the farther the longer a word takes to them
// and back. Whoever is known by hearsay only stands outermost. A node knows its own links and nobody else's, so there is
// nothing else to draw.

/** The rings, each with the latency below which it holds. */
export const RINGS = [
  { below: 2, name: "< 2 ms" },
  { below: 10, name: "< 10 ms" },
  { below: 50, name: "< 50 ms" },
  { below: 200, name: "< 200 ms" },
  { below: Infinity, name: "200 ms and more" },
  { below: null, name: "not connected" },
];

const FIRST_RADIUS = 140;
const ROW_GAP = 46;
const RING_GAP = 74;
/** Between two that stand side by side. */
const SPACING = 58;
/** The angle that comes back to itself last. */
const GOLDEN = Math.PI * (3 - Math.sqrt(5));

/** The ring of a peer. */
export function ringOf(peer) {
  if (!peer.connected) return RINGS.length - 1;
  // Not measured yet: it has only just come.
  const rtt = peer.rtt ?? 0;
  return RINGS.findIndex((ring) => ring.below !== null && rtt < ring.below);
}

/** Where each peer stands, by its id; and the circles, with the outermost radius. */
export function place(peers) {
  const places = new Map();
  const circles = [];
  let radius = FIRST_RADIUS;
  let rows = 0;
  for (let ring = 0; ring < RINGS.length; ring += 1) {
    // By id, so that nobody changes place for another's sake more than needed.
    const here = peers.filter((peer) => !peer.own && ringOf(peer) === ring).sort((a, b) => (a.id < b.id ? -1 : 1));
    if (here.length === 0) continue;
    let next = 0;
    while (next < here.length) {
      const room = Math.floor((2 * Math.PI * radius) / SPACING);
      const row = here.slice(next, next + room);
      // Each row starts elsewhere, so that names do not line up into one.
      const start = rows * GOLDEN - Math.PI / 2;
      rows += 1;
      row.forEach((peer, index) => {
        const angle = start + (2 * Math.PI * index) / row.length;
        places.set(peer.id, { x: radius * Math.cos(angle), y: radius * Math.sin(angle) });
      });
      next += row.length;
      if (next < here.length) radius += ROW_GAP;
    }
    circles.push({ radius: radius + RING_GAP / 2, name: RINGS[ring].name });
    radius += RING_GAP;
  }
  const own = peers.find((peer) => peer.own);
  if (own) places.set(own.id, { x: 0, y: 0 });
  return { places, circles, extent: radius };
}
