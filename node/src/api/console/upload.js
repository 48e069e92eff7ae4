// Files and folders that are dropped or chosen become content.

import { bytes, plural } from "./amount.js";
import { at, send } from "./api.js";
import { h, put, trouble } from "./element.js";
import { archive } from "./tar.js";

/** More than a browser should gather at one time. */
const FILES_MAX = 20_000;

/** Adds one file; gives its CID and size. */
export async function addFile(file, isPrivate = false) {
  return add(file, "application/octet-stream", isPrivate);
}

/** Adds a folder of `{path, file}`. */
async function addFolder(entries, isPrivate) {
  return add(archive(entries), "application/x-tar", isPrivate);
}

async function add(body, type, isPrivate) {
  const query = isPrivate ? { private: "true" } : {};
  return (await send("POST", at("network", "content"), { body, type, query })).json();
}

/** A place for files and folders; `added` is told `{name, Cid, Size}` of each. */
export function dropZone(added) {
  const said = h("p", { class: "hint", role: "status" });
  const isPrivate = h("input", { type: "checkbox" });
  const pick = (folder) => {
    const input = h("input", { type: "file", multiple: !folder, webkitdirectory: folder, hidden: true });
    input.addEventListener("change", () =>
      take(folder ? chosenFolder(input.files) : [...input.files].map((file) => ({ name: file.name, file }))),
    );
    input.click();
  };

  async function take(items) {
    try {
      for (const { name, file, entries } of await items) {
        put(said, `adding ${name}, ${file ? bytes(file.size) : plural(entries.length, "entry", "entries")}…`);
        const content = file ? await addFile(file, isPrivate.checked) : await addFolder(entries, isPrivate.checked);
        put(said, `${name} is added: ${content.Cid}`);
        added({ name, ...content });
      }
    } catch (error) {
      put(said, trouble(error));
    }
  }

  const zone = h(
    "div",
    { class: "drop" },
    h("p", {}, "Drop files or folders here, or"),
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", onclick: () => pick(false) }, "Choose files"),
      h("button", { type: "button", onclick: () => pick(true) }, "Choose a folder"),
      h("label", { class: "check" }, isPrivate, "private: it does not leave this node"),
    ),
    said,
  );
  const over = (is) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", is);
  };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    // What was dropped is gone after this turn: the entries are taken out at once.
    const roots = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    take(Promise.all(roots.map(dropped)));
  });
  return zone;
}

function chosenFolder(files) {
  const name = files[0]?.webkitRelativePath.split("/")[0] ?? "folder";
  return [
    {
      name,
      entries: [...files].map((file) => ({ path: file.webkitRelativePath.split("/").slice(1).join("/"), file })),
    },
  ];
}

/** A file, or a folder with all that is in it. */
async function dropped(root) {
  if (root.isFile) return { name: root.name, file: await fileOf(root) };
  const entries = [];
  const waiting = [[root, ""]];
  while (waiting.length) {
    const [folder, path] = waiting.pop();
    const inside = await listOf(folder);
    if (inside.length === 0 && path) entries.push({ path });
    for (const entry of inside) {
      const place = path ? `${path}/${entry.name}` : entry.name;
      if (entry.isDirectory) waiting.push([entry, place]);
      else entries.push({ path: place, file: await fileOf(entry) });
    }
    if (entries.length > FILES_MAX)
      throw new Error(`${root.name} has more than ${FILES_MAX} files; \`bacnode content add\` takes them`);
  }
  return { name: root.name, entries };
}

function fileOf(entry) {
  return new Promise((done, failed) => entry.file(done, failed));
}

/** All that is in a folder: a reader gives a hundred at a time. */
async function listOf(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (some.length === 0) return all;
    all.push(...some);
  }
}
