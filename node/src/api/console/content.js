// Content of this node: what is kept and why, what is added, who has a CID.

import { bytes, plural, short } from "./amount.js";
import { at, get, send } from "./api.js";
import { action, confirmed, copyable, empty, h, link, note, put, trouble } from "./element.js";
import { every, soon } from "./live.js";
import { go } from "./router.js";
import { Table } from "./table.js";
import { dropZone } from "./upload.js";

const LOOK_MS = 15_000;
const ROWS_MAX = 200;

function open(main, { signal }) {
  const table = pinTable(() => refresh());
  const [usage, said] = [h("div", {}), h("p", { class: "hint", role: "status" })];
  const wanted = h("input", { id: "cid", placeholder: "bafy…", autocomplete: "off", spellcheck: "false" });
  const look = (event) => {
    event.preventDefault();
    if (wanted.value.trim()) go(`#/content/${encodeURIComponent(wanted.value.trim())}`);
  };
  const filter = h(
    "select",
    { "aria-label": "Which pins", onchange: () => show() },
    ["all", "mine", "results", "inputs"].map((value) => h("option", { value }, value)),
  );
  let pins = [];

  put(
    main,
    h("h1", {}, "Content"),
    h(
      "div",
      { class: "columns even" },
      h(
        "section",
        { class: "panel", "aria-labelledby": "add" },
        h("h2", { id: "add" }, "Add"),
        dropZone(() => refresh()),
      ),
      h(
        "section",
        { class: "panel", "aria-labelledby": "find" },
        h("h2", { id: "find" }, "Find"),
        h(
          "form",
          { onsubmit: look },
          h("label", { for: "cid" }, "A CID, wherever it is"),
          h("div", { class: "row" }, wanted, h("button", { type: "submit" }, "Look into it")),
        ),
        usage,
      ),
    ),
    h(
      "section",
      { "aria-labelledby": "kept" },
      h(
        "div",
        { class: "row" },
        h("h2", { id: "kept" }, "Kept here"),
        filter,
        h("button", { type: "button", class: "small", onclick: action(sweep) }, "Free what nothing needs"),
      ),
      said,
      table.element,
    ),
  );

  async function sweep() {
    if (!(await confirmed("Free what nothing needs? Copies of inputs go, and all that no pin keeps.", "Free it")))
      return;
    const { Freed } = await (await send("POST", at("network", "content", "gc"))).json();
    note(`${bytes(Freed)} are free again.`);
    refresh();
  }

  function show() {
    const kinds = {
      all: () => true,
      mine: (pin) => pin.Reasons.includes("user"),
      results: (pin) => pin.Reasons.some((reason) => /^[je]-/.test(reason)),
      inputs: (pin) => !pin.Reasons.some((reason) => reason === "user" || /^[je]-/.test(reason)),
    };
    const shown = pins.filter(kinds[filter.value]);
    table.update(shown, ROWS_MAX);
    put(said, shown.length > ROWS_MAX ? `The first ${ROWS_MAX} of ${plural(shown.length, "root")}.` : "");
  }

  const refreshNow = every(
    LOOK_MS,
    async () => {
      const [kept, amounts] = await Promise.all([
        get(at("network", "content"), {}, signal),
        get(at("network", "content", "usage"), {}, signal),
      ]);
      if (signal.aborted) return;
      pins = kept;
      show();
      put(usage, usageBar(amounts));
    },
    signal,
    (error) => put(said, trouble(error)),
  );
  const refresh = soon(50, refreshNow, signal);
}

function usageBar({ Used, Max, User, Results, Inputs, Private }) {
  const part = (name, size) => h("div", {}, h("dt", {}, name), h("dd", {}, bytes(size)));
  const meter = h("progress", { max: Max, value: Used, "aria-label": "Disk in use for content" });
  return h(
    "div",
    { class: "usage" },
    h("p", {}, `${bytes(Used)} of ${bytes(Max)} in use`),
    meter,
    h(
      "dl",
      { class: "facts" },
      part("pinned by you", User),
      part("results", Results),
      part("inputs, which go first", Inputs),
      Private ? part("private", Private) : null,
    ),
  );
}

function pinTable(changed) {
  const unpin = (pin) =>
    action(async () => {
      await send("DELETE", at("network", "content", pin.Cid, "pin"));
      note("Let go of; it stays while something else needs it.");
      changed();
    });
  const reason = (text) => {
    if (text === "user") return h("span", { class: "tag" }, "you");
    if (text.startsWith("j-")) return link(`#/jobs/${text}`, `job ${short(text)}`);
    return h("span", { class: "tag", title: text }, short(text));
  };
  return new Table({
    caption: "Content that is kept here",
    key: (pin) => pin.Cid,
    empty: empty(
      "Nothing is kept here.",
      "Drop a file above, or",
      h("p", {}, h("code", {}, "bacnode content add FOLDER")),
    ),
    columns: [
      {
        head: "CID",
        cell: (pin) => [
          h("a", { class: "mono", href: `#/content/${encodeURIComponent(pin.Cid)}`, title: pin.Cid }, short(pin.Cid)),
          pin.Private ? h("span", { class: "tag warm" }, "private") : null,
        ],
      },
      { head: "Size", kind: "number", cell: (pin) => bytes(pin.Size), order: (pin) => pin.Size },
      {
        head: "Kept for",
        cell: (pin) =>
          h(
            "div",
            { class: "tags" },
            pin.Reasons.slice(0, 4).map(reason),
            pin.Reasons.length > 4 ? `and ${pin.Reasons.length - 4} more` : null,
          ),
      },
      {
        head: "",
        kind: "end",
        cell: (pin) => [
          copyable(pin.Cid, short(pin.Cid)).lastChild,
          pin.Reasons.includes("user")
            ? h(
                "button",
                { type: "button", class: "small", "aria-label": `Unpin ${short(pin.Cid)}`, onclick: unpin(pin) },
                "Unpin",
              )
            : null,
        ],
      },
    ],
  });
}

export default { title: "Content", open };
