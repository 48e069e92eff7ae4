// A look at a file: a picture, a table, text, or its first bytes. What it is, its bytes say; its name is anybody's.
//
// Pictures are shown from the few formats that hold nothing but pixels. SVG is text here: it may hold programs.

import { bytes as amount, plural } from "./amount.js";
import { at, head, send } from "./api.js";
import { rows, separatorOf } from "./delimited.js";
import { h, put } from "./element.js";

const TEXT_MAX = 256 << 10;
const IMAGE_MAX = 16 << 20;
const ROWS_MAX = 200;
const COLUMNS_MAX = 40;
const HEX_MAX = 512;

const IMAGES = [
  ["image/png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/gif", [0x47, 0x49, 0x46, 0x38]],
  ["image/webp", [0x52, 0x49, 0x46, 0x46, -1, -1, -1, -1, 0x57, 0x45, 0x42, 0x50]],
];

/** Shows a file of some content in `pane`. */
export async function preview(pane, cid, { name, size }, signal) {
  put(pane, h("p", { class: "hint" }, "reading…"));
  const read = async (max) => head(await send("GET", at("network", "content", cid), { signal }), max);
  let { bytes, more } = await read(TEXT_MAX);
  const kind = imageKind(bytes);
  if (kind && more && size <= IMAGE_MAX) ({ bytes, more } = await read(IMAGE_MAX));
  if (signal.aborted) return;
  const part = more ? h("p", { class: "hint" }, `The first ${amount(bytes.length)} of ${amount(size)}.`) : null;
  if (kind)
    return put(
      pane,
      more
        ? h("p", { class: "hint" }, `A picture of ${amount(size)}: too large to be shown here.`)
        : image(bytes, kind, name, signal),
    );
  const text = textOf(bytes, more);
  if (text === null)
    return put(
      pane,
      h("p", { class: "hint" }, `Not text. The first bytes of ${amount(size)}:`),
      h("pre", { class: "file", tabindex: "0" }, hex(bytes)),
    );
  if (text === "") return put(pane, h("p", { class: "hint" }, "An empty file."));
  const separator = separatorOf(name);
  if (!separator) return put(pane, part, plainText(text));
  const shown = h("div", {}, table(text, separator, name));
  const swap = h(
    "button",
    {
      type: "button",
      class: "small",
      onclick: () => {
        const asText = swap.textContent === "As text";
        put(shown, asText ? plainText(text) : table(text, separator, name));
        swap.textContent = asText ? "As a table" : "As text";
      },
    },
    "As text",
  );
  put(pane, h("div", { class: "row end" }, swap), part, shown);
}

function imageKind(bytes) {
  return IMAGES.find(([, magic]) => magic.every((byte, index) => byte < 0 || bytes[index] === byte))?.[0] ?? null;
}

function image(bytes, kind, name, signal) {
  const url = URL.createObjectURL(new Blob([bytes], { type: kind }));
  signal.addEventListener("abort", () => URL.revokeObjectURL(url));
  const shown = h("img", {
    class: "preview",
    src: url,
    alt: name,
    onerror: () => shown.replaceWith(h("p", { class: "hint" }, "A picture that cannot be read.")),
  });
  return shown;
}

/** The text that these bytes are, if they are. */
function textOf(bytes, cut) {
  // The last character of a part may be cut through.
  for (const end of cut ? [0, 1, 2, 3] : [0]) {
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, bytes.length - end));
      return text.includes("\0") ? null : text;
    } catch {
      continue;
    }
  }
  return null;
}

function plainText(text) {
  return h("pre", { class: "file", tabindex: "0" }, text);
}

function table(text, separator, name) {
  const found = rows(text, separator, ROWS_MAX + 2);
  const [names = [], ...body] = found;
  const shown = body.slice(0, ROWS_MAX);
  const cells = (row) => row.slice(0, COLUMNS_MAX);
  const isNumber = names.map(
    (_, index) => shown.length > 0 && shown.every((row) => !row[index] || Number.isFinite(Number(row[index]))),
  );
  const kind = (index) => (isNumber[index] ? "number" : undefined);
  return h(
    "div",
    { class: "sheet", tabindex: "0", role: "region", "aria-label": `Table ${name}` },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          cells(names).map((cell, index) => h("th", { scope: "col", class: kind(index) }, cell)),
        ),
      ),
      h(
        "tbody",
        {},
        shown.map((row) =>
          h(
            "tr",
            {},
            cells(row).map((cell, index) => h("td", { class: kind(index) }, cell)),
          ),
        ),
      ),
    ),
    h(
      "p",
      { class: "hint" },
      body.length > ROWS_MAX ? `The first ${plural(ROWS_MAX, "row")}.` : plural(shown.length, "row"),
    ),
  );
}

function hex(bytes) {
  const lines = [];
  for (let start = 0; start < Math.min(bytes.length, HEX_MAX); start += 16) {
    const part = [...bytes.subarray(start, start + 16)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${start.toString(16).padStart(6, "0")}  ${digits.padEnd(47)}  ${letters}`);
  }
  return lines.join("\n");
}
