// A job by filling in fields. What comes of it is the same text that the editor has.

import { bytes } from "./amount.js";
import { action, h, put } from "./element.js";
import { addFile } from "./upload.js";
import { write } from "./yaml.js";

export class Form {
  #fields = {};
  #inputs = h("div", { class: "list" });
  #results = h("div", { class: "list" });
  element = h("form", { class: "job-form", onsubmit: (event) => event.preventDefault() });

  /** `changed` is told the spec as text. */
  constructor(changed) {
    this.changed = changed;
    const told = () => changed(this.text);
    this.element.addEventListener("input", told);
    this.element.addEventListener("change", told);
    const field = (name, label, attributes = {}, hint = "") => {
      const input = h("input", { name, autocomplete: "off", spellcheck: "false", ...attributes });
      this.#fields[name] = input;
      return h("label", {}, label, input, hint ? h("span", { class: "hint" }, hint) : null);
    };
    const choice = (name, label, options) => {
      this.#fields[name] = h(
        "select",
        { name },
        options.map((option) => h("option", {}, option)),
      );
      return h("label", {}, label, this.#fields[name]);
    };
    const engine = choice("engine", "Engine", ["wasm", "docker"]);
    const wasm = h("div", { class: "fields" }, this.#module(field));
    const docker = h(
      "div",
      { class: "fields", hidden: true },
      field("image", "Image", { placeholder: "debian:12-slim" }),
      field("entrypoint", "Entrypoint", { placeholder: "sh -c" }, "words with spaces in quotes"),
    );
    this.#fields.engine.addEventListener("change", () => {
      wasm.hidden = this.#fields.engine.value !== "wasm";
      docker.hidden = !wasm.hidden;
    });
    put(
      this.element,
      h(
        "fieldset",
        {},
        h("legend", {}, "Job"),
        h(
          "div",
          { class: "fields" },
          field("name", "Name", { placeholder: "my-job" }),
          choice("type", "Type", ["batch", "service", "ops", "daemon"]),
          field("count", "Runs", { type: "number", min: 1, max: 1000, value: 1 }),
        ),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Program"),
        h("div", { class: "fields" }, engine),
        wasm,
        docker,
        h(
          "div",
          { class: "fields" },
          field(
            "parameters",
            "Arguments",
            { placeholder: '/data/weather.csv "two words"' },
            "words with spaces in quotes",
          ),
        ),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Inputs"),
        this.#inputs,
        h("button", { type: "button", class: "small", onclick: () => this.#addInput() }, "Add an input"),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Results"),
        h("p", { class: "hint" }, "Folders that are kept, beside what it prints."),
        this.#results,
        h("button", { type: "button", class: "small", onclick: () => this.#addResult() }, "Add a folder"),
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Limits"),
        h(
          "div",
          { class: "fields" },
          field("cpu", "CPU", { placeholder: "500m", value: "500m" }),
          field("memory", "Memory", { placeholder: "128Mb", value: "128Mb" }),
          field("timeout", "Seconds for a run", { type: "number", min: 1, placeholder: "1800" }),
        ),
      ),
    );
  }

  #module(field) {
    const cid = field("module", "Module", { placeholder: "CID of a .wasm" });
    return [
      cid,
      fileButton("Choose a .wasm", (content) => {
        this.#fields.module.value = content.Cid;
        this.changed(this.text);
      }),
    ];
  }

  #addInput() {
    const kind = h(
      "select",
      { "aria-label": "Kind of input" },
      [
        ["ipfs", "CID"],
        ["urlDownload", "URL"],
        ["local", "Path on the node"],
      ].map(([value, shown]) => h("option", { value }, shown)),
    );
    const from = h("input", { "aria-label": "Where from", placeholder: "bafy… or https://…", spellcheck: "false" });
    const target = h("input", {
      "aria-label": "Path in the task",
      placeholder: "/data/weather.csv",
      spellcheck: "false",
    });
    const choose = fileButton("Choose a file", (content, file) => {
      [kind.value, from.value] = ["ipfs", content.Cid];
      target.value ||= `/data/${file.name}`;
      this.changed(this.text);
    });
    this.#append(this.#inputs, [kind, from, target, choose], () => ({
      kind: kind.value,
      from: from.value.trim(),
      target: target.value.trim(),
    }));
  }

  #addResult() {
    const name = h("input", { "aria-label": "Name of the folder", placeholder: "outputs", spellcheck: "false" });
    const path = h("input", { "aria-label": "Path in the task", placeholder: "/outputs", spellcheck: "false" });
    this.#append(this.#results, [name, path], () => ({ name: name.value.trim(), path: path.value.trim() }));
  }

  #append(list, parts, read) {
    const remove = () => {
      line.remove();
      this.changed(this.text);
    };
    const line = h(
      "div",
      { class: "row" },
      parts,
      h("button", { type: "button", class: "small", onclick: remove }, "Remove"),
    );
    line.read = read;
    list.append(line);
    parts[0].focus();
  }

  /** The spec as its fields say. */
  get text() {
    const value = (name) => this.#fields[name].value.trim();
    const read = (list) => [...list.children].map((line) => line.read());
    const PARAMS = { ipfs: "CID", urlDownload: "URL", local: "SourcePath" };
    const inputs = read(this.#inputs)
      .filter(({ from, target }) => from || target)
      .map(({ kind, from, target }) => ({ Source: { Type: kind, Params: { [PARAMS[kind]]: from } }, Target: target }));
    const isWasm = value("engine") === "wasm";
    const params = isWasm
      ? { EntryModule: "/main.wasm", Parameters: words(value("parameters")) }
      : { Image: value("image"), Entrypoint: words(value("entrypoint")), Parameters: words(value("parameters")) };
    for (const [name, list] of Object.entries(params))
      if (Array.isArray(list) && list.length === 0) delete params[name];
    if (isWasm && value("module"))
      inputs.unshift({ Source: { Type: "ipfs", Params: { CID: value("module") } }, Target: "/main.wasm" });
    const hasCount = ["batch", "service"].includes(value("type"));
    return write({
      Name: value("name"),
      Type: value("type"),
      Count: hasCount ? Number(value("count")) || 1 : undefined,
      Tasks: [
        {
          Name: "main",
          Engine: { Type: value("engine"), Params: params },
          InputSources: inputs,
          ResultPaths: read(this.#results)
            .filter(({ name, path }) => name || path)
            .map(({ name, path }) => ({ Name: name, Path: path })),
          Resources: { CPU: value("cpu"), Memory: value("memory") },
          Timeouts: value("timeout") ? { ExecutionTimeout: Number(value("timeout")) } : undefined,
        },
      ],
    });
  }
}

/** Words as a shell takes them apart: by spaces, unless in quotes. */
export function words(text) {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, bare]) => double?.replace(/\\(.)/g, "$1") ?? single ?? bare,
  );
}

/** A button that adds a file of this machine to the node's content. */
function fileButton(text, added) {
  const input = h("input", { type: "file", hidden: true });
  const button = h("button", { type: "button", class: "small", onclick: () => input.click() }, text);
  input.addEventListener(
    "change",
    action(async () => {
      const [file] = input.files;
      if (!file) return;
      button.textContent = `adding ${bytes(file.size)}…`;
      try {
        added(await addFile(file), file);
      } finally {
        button.textContent = text;
      }
    }),
  );
  return h("span", {}, button, input);
}
