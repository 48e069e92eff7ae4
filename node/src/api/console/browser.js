// Looks into content: folders, and the files in them. For results of jobs and for any CID.

import { bytes, short } from "./amount.js";
import { at, download, get } from "./api.js";
import { action, copyable, empty, h, put, trouble } from "./element.js";
import { preview } from "./preview.js";
import { Table } from "./table.js";

export class Browser {
  #path = [];
  #looked = new AbortController();
  #where = h("nav", { class: "crumbs", "aria-label": "Folders" });
  #pane = h("div", { class: "pane" });
  #listing = h("div", {});
  #table;
  element = h("div", { class: "browser" });

  /** Shows what lies in `root`, which people know as `name`. `moved` is told where they are. */
  constructor(root, name, signal, { path = [], moved = () => {} } = {}) {
    Object.assign(this, { root, name, signal, moved });
    signal.addEventListener("abort", () => this.#looked.abort());
    this.#table = new Table({
      caption: "What is in the folder",
      key: (entry) => entry.Name,
      empty: empty("An empty folder."),
      columns: [
        {
          head: "Name",
          cell: (entry) =>
            h(
              "button",
              {
                type: "button",
                class: entry.Type === "folder" ? "linkish folder" : "linkish",
                onclick: () => this.#enter(entry),
              },
              entry.Name || this.name,
            ),
        },
        { head: "Size", kind: "number", cell: (entry) => bytes(entry.Size) },
        {
          head: "CID",
          cell: (entry) =>
            h(
              "a",
              { class: "mono", href: `#/content/${encodeURIComponent(entry.Cid)}`, title: entry.Cid },
              short(entry.Cid),
            ),
        },
        {
          head: "",
          kind: "end",
          cell: (entry) =>
            h(
              "button",
              {
                type: "button",
                class: "small",
                "aria-label": `Download ${entry.Name || this.name}`,
                onclick: action(() => this.#save(entry)),
              },
              "Download",
            ),
        },
      ],
    });
    put(this.element, this.#where, h("div", { class: "halves" }, this.#listing, this.#pane));
    this.open(path);
  }

  /** Shows this folder within the root. */
  async open(path) {
    this.#path = path;
    this.#looked.abort();
    this.#looked = new AbortController();
    const { signal } = this.#looked;
    put(this.#where, this.#crumbs());
    put(this.#pane);
    try {
      const entries = await get(at("network", "content", this.root, "ls"), { path: path.join("/") }, signal);
      put(this.#listing, this.#table.element);
      this.#table.update(
        entries.sort((left, right) =>
          left.Type === right.Type ? left.Name.localeCompare(right.Name) : left.Type === "folder" ? -1 : 1,
        ),
      );
      // What is a file by itself, and what a program said, are looked at first.
      const first =
        entries.find((entry) => entry.Name === "") ??
        entries.find((entry) => entry.Name === "stdout" && entry.Size > 0);
      if (first) await this.#look(first);
    } catch (error) {
      if (error.name !== "AbortError") put(this.#listing, trouble(error));
    }
  }

  #crumbs() {
    const step = (name, path, last) =>
      h(
        "button",
        { type: "button", class: "linkish", "aria-current": last ? "location" : null, onclick: () => this.#go(path) },
        name,
      );
    const all = [this.name, ...this.#path];
    return all.flatMap((name, index) => [
      index ? h("span", { "aria-hidden": "true" }, "/") : null,
      step(name, this.#path.slice(0, index), index === all.length - 1),
    ]);
  }

  #go(path) {
    this.moved(path);
    return this.open(path);
  }

  #enter(entry) {
    return entry.Type === "folder" ? this.#go([...this.#path, entry.Name]) : this.#look(entry);
  }

  async #look(entry) {
    this.#looked.abort();
    this.#looked = new AbortController();
    const { signal } = this.#looked;
    const name = entry.Name || this.name;
    const shown = h("div", {});
    put(
      this.#pane,
      h("h3", {}, name),
      h("p", { class: "hint" }, bytes(entry.Size), " · ", copyable(entry.Cid, short(entry.Cid))),
      shown,
    );
    try {
      await preview(shown, entry.Cid, { name, size: entry.Size }, signal);
    } catch (error) {
      if (error.name !== "AbortError") put(shown, trouble(error));
    }
  }

  #save(entry) {
    const name = fileName(entry.Name || this.name);
    return download(entry.Cid, "", entry.Type === "folder" ? `${name}.tar` : name);
  }
}

/** A name under which a file may be saved, whoever gave it. */
export function fileName(name) {
  return name.replace(/[\x00-\x1f/\\:*?"<>|]/g, "_").slice(0, 120) || "content";
}
