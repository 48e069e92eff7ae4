// Writes a spec as YAML. Reading is the node's work: it has the one parser whose word counts.

/** Below these every word counts, also an empty one. */
const EXACT = ["Env", "Params", "Meta", "Labels"];

/** `value` as a YAML document. */
export function write(value) {
  return `${block(value, "").trimStart()}\n`;
}

function block(value, indent, exact = false) {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []";
    if (value.every(isPlain)) return ` [${value.map(scalar).join(", ")}]`;
    return value.map((item) => `\n${indent}- ${block(item, `${indent}  `, exact).trimStart()}`).join("");
  }
  if (value !== null && typeof value === "object") {
    const fields = Object.entries(value).filter(([, field]) => exact || !isNothing(field));
    if (fields.length === 0) return " {}";
    return fields
      .map(([key, field]) => `\n${indent}${scalar(key)}:${block(field, `${indent}  `, exact || EXACT.includes(key))}`)
      .join("");
  }
  return ` ${scalar(value)}`;
}

/** What a spec need not say. */
function isNothing(value) {
  if (value === undefined || value === null || value === "") return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === "object" && Object.values(value).every(isNothing);
}

function isPlain(value) {
  return value === null || typeof value !== "object";
}

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  // A JSON string is a YAML string; what looks like nothing else needs no quotes.
  const bare =
    /^[A-Za-z_/][\w ./+-]*$/.test(value) &&
    !value.endsWith(" ") &&
    !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value);
  const amount = /^\d+(m|[KMGT]i?b?)$/.test(value);
  return bare || amount ? value : JSON.stringify(value);
}
