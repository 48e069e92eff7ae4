// What nodes said over time, kept while this window is open and nowhere else.

const SAMPLES_MAX = 180;

const kept = new Map();

/** Notes figures of a node: `{load, cpu, memory, running}`. */
export function note(id, figures) {
  const of = kept.get(id) ?? [];
  const at = Date.now();
  // Two pages may look at one moment.
  if (of.length && at - of.at(-1).at < 1_000) return;
  of.push({ at, ...figures });
  if (of.length > SAMPLES_MAX) of.shift();
  kept.set(id, of);
}

/** What was noted of a node, the oldest first. */
export function of(id) {
  return kept.get(id) ?? [];
}
