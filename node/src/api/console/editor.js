// Writes a spec as text, and says what is wrong with it as it is written. The node judges, with the parser that it submits by.

import { plural } from "./amount.js";
import { at, send } from "./api.js";
import { h, put } from "./element.js";
import { rested } from "./live.js";

const JUDGE_MS = 350;
/** What the node says of a spec that is right but has no name to compare by. */
const NAMELESS = "Name: is required: it says with which job to compare";

export class Editor {
  #gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  #verdict = h("div", { class: "verdict", role: "status" });
  #changes = h("div", {});
  #judged = new AbortController();
  #wrong = new Set();
  text = h("textarea", {
    id: "spec",
    class: "code",
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    wrap: "off",
    rows: 22,
    "aria-describedby": "spec-keys",
    oninput: () => this.#changed(),
    onscroll: () => this.#follow(),
    onkeydown: (event) => this.#key(event),
  });
  element = h("div", { class: "editor" });
  isRight = false;

  /** `judged` is told whether the spec is right, whenever that is known. */
  constructor(signal, judged = () => {}) {
    this.signal = signal;
    this.told = judged;
    this.#judge = rested(JUDGE_MS, () => this.judge(), signal);
    signal.addEventListener("abort", () => this.#judged.abort());
    put(
      this.element,
      h("label", { for: "spec" }, "Spec, as YAML or JSON"),
      h("div", { class: "paper" }, this.#gutter, this.text),
      h("p", { id: "spec-keys", class: "hint" }, "Tab indents; Escape, then Tab, leaves the field."),
      this.#verdict,
      this.#changes,
    );
    this.#number();
  }

  #judge;

  get value() {
    return this.text.value;
  }

  set value(text) {
    this.text.value = text;
    this.#changed();
  }

  #changed() {
    this.isRight = false;
    this.told(false);
    this.#number();
    this.#judge();
  }

  /** Asks the node what it thinks of the spec. */
  async judge() {
    this.#judged.abort();
    this.#judged = new AbortController();
    const { signal } = this.#judged;
    if (!this.value.trim()) return this.#say("", []);
    try {
      const answer = await send("PUT", at("orchestrator", "jobs", "diff"), { json: { Job: this.value }, signal });
      this.#right(await answer.json());
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.message === NAMELESS) this.#right({ Diff: "", Warnings: [] });
      else if (error.status === 400) this.#say("", error.message.split("\n"));
      else this.#say(error.message, []);
    }
  }

  #right({ Diff, Warnings }) {
    this.isRight = true;
    this.told(true);
    this.#mark([]);
    put(
      this.#verdict,
      h("p", { class: "right" }, "The spec is right."),
      Warnings.map((warning) => h("p", { class: "warning" }, warning)),
    );
    const isNew = !/^-[^-]/m.test(Diff) && !/^ /m.test(Diff);
    put(
      this.#changes,
      Diff && !isNew
        ? h(
            "details",
            { open: true },
            h("summary", {}, "What is different from the job that has this name"),
            diff(Diff),
          )
        : null,
    );
  }

  #say(text, problems) {
    this.isRight = false;
    this.told(false);
    put(this.#changes);
    const found = problems.map((problem) => ({ problem, line: lineOf(problem, this.value) }));
    this.#mark(found.map(({ line }) => line));
    put(
      this.#verdict,
      text ? h("p", { class: "warning" }, text) : null,
      problems.length
        ? h("p", { class: "wrong" }, `${plural(problems.length, "thing is", "things are")} wrong:`)
        : null,
      h(
        "ul",
        {},
        found.map(({ problem, line }) =>
          h(
            "li",
            {},
            line
              ? h("button", { type: "button", class: "linkish", onclick: () => this.#show(line) }, problem)
              : problem,
          ),
        ),
      ),
    );
  }

  #mark(lines) {
    this.#wrong = new Set(lines);
    this.#number();
  }

  #number() {
    const count = this.value.split("\n").length;
    put(
      this.#gutter,
      Array.from({ length: count }, (_, index) =>
        h("div", { class: this.#wrong.has(index + 1) ? "wrong" : null }, index + 1),
      ),
    );
    this.#follow();
  }

  #follow() {
    this.#gutter.scrollTop = this.text.scrollTop;
  }

  #show(line) {
    const lines = this.value.split("\n");
    const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.text.focus();
    this.text.setSelectionRange(start, start + lines[line - 1].length);
  }

  #key(event) {
    // Tab is for indenting, unless whoever uses keys alone wants to go on.
    if (event.key === "Escape") this.leaving = true;
    else if (event.key === "Tab" && !this.leaving && !event.shiftKey) {
      event.preventDefault();
      this.text.setRangeText("  ", this.text.selectionStart, this.text.selectionEnd, "end");
      this.#changed();
    } else if (event.key !== "Tab") this.leaving = false;
  }
}

/** The line that a problem is about: the one it names, or that of the field it names. */
export function lineOf(problem, text) {
  const named = problem.match(/line (\d+)/);
  if (named) return Number(named[1]);
  const path = problem.match(/^([A-Za-z][\w.[\]]*):/)?.[1];
  if (!path) return 0;
  const lines = text.split("\n");
  let from = 0;
  let found = 0;
  for (const key of path.split(/[.[\]]+/).filter((part) => part && !/^\d+$/.test(part))) {
    const index = lines.findIndex((line, at) => at >= from && new RegExp(`(^|[\\s{,"-])${key}"?\\s*:`, "i").test(line));
    if (index < 0) break;
    [from, found] = [index, index + 1];
  }
  return found;
}

function diff(text) {
  const kind = (line) =>
    line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : line.startsWith("@") ? "muted" : null;
  return h(
    "pre",
    { class: "file diff", tabindex: "0" },
    text
      .trimEnd()
      .split("\n")
      .map((line) => h("span", { class: kind(line) }, `${line}\n`)),
  );
}
