// Amounts and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `1.5 MiB` */
export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}`;
}

/** `1.2 s`, `3 min 20 s` */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const parts = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = parts.findIndex(([length]) => seconds >= length);
  const [long, name] = parts[first];
  const rest = parts[first + 1];
  const whole = Math.floor(seconds / long);
  const remains = Math.floor((seconds - whole * long) / rest[0]);
  return remains ? `${whole} ${name} ${remains} ${rest[1]}` : `${whole} ${name}`;
}

/** `12 s ago`; the date of what is long past. */
export function ago(ms) {
  const past = Date.now() - ms;
  if (past < 0 || past > 30 * 86_400_000) return when(ms);
  if (past < 2000) return "just now";
  return `${duration(Math.floor(past / 1000) * 1000)
    .replace(/\.\d/, "")
    .split(" ")
    .slice(0, 2)
    .join(" ")} ago`;
}

/** The time of day, and the date if it is not today's. */
export function when(ms) {
  const date = new Date(ms);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

/** Milliseconds since 1970 of a time that the API gives in nanoseconds. */
export function fromNanos(nanos) {
  return nanos / 1e6;
}

/** `0.42 ms`; nothing for nothing. */
export function latency(ms) {
  if (ms === null || ms === undefined) return "–";
  return `${ms < 10 ? ms.toFixed(2) : Math.round(ms)} ms`;
}

/** `1 node`, `2 nodes` */
export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}

/** The part of an id by which people know it. */
export function short(id) {
  if (id.startsWith("12D3KooW")) return `…${id.slice(-8)}`;
  // Ids of one node's jobs begin alike: what comes after tells them apart.
  const job = id.match(/^j-[a-z0-9]+-([a-z0-9]{8})/);
  if (job) return `…${job[1]}`;
  return id.length > 22 ? `${id.slice(0, 12)}…${id.slice(-6)}` : id;
}
