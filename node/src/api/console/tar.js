// Folders as tar archives (ustar), which is how the API takes them. Files stay where they are until they are sent.

const BLOCK = 512;

/** An archive of `{path, file}`; a path without a file is an empty folder. */
export function archive(entries) {
  const parts = [];
  for (const { path, file } of entries) {
    parts.push(header(path, file));
    if (!file) continue;
    parts.push(file);
    const rest = file.size % BLOCK;
    if (rest) parts.push(new Uint8Array(BLOCK - rest));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts);
}

function header(path, file) {
  const block = new Uint8Array(BLOCK);
  const write = (text, at, length) => {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > length) throw new Error(`${path}: the name is too long for an archive`);
    block.set(bytes, at);
  };
  const number = (value, at, length) => write(value.toString(8).padStart(length - 1, "0"), at, length);
  const [prefix, name] = parted(file ? path : `${path}/`);
  write(name, 0, 100);
  number(file ? 0o644 : 0o755, 100, 8);
  number(0, 108, 8);
  number(0, 116, 8);
  number(file ? file.size : 0, 124, 12);
  number(0, 136, 12);
  write("        ", 148, 8);
  write(file ? "0" : "5", 156, 1);
  write("ustar\x0000", 257, 8);
  write(prefix, 345, 155);
  const sum = block.reduce((total, byte) => total + byte, 0);
  write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, 8);
  return block;
}

/** A long path in two: at most 155 bytes, a slash, at most 100. */
function parted(path) {
  const length = (text) => new TextEncoder().encode(text).length;
  if (length(path) <= 100) return ["", path];
  for (let slash = path.indexOf("/"); slash >= 0 && slash < path.length - 1; slash = path.indexOf("/", slash + 1)) {
    if (length(path.slice(slash + 1)) <= 100) return [path.slice(0, slash), path.slice(slash + 1)];
  }
  return ["", path];
}
