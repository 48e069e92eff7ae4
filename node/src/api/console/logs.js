// What a job's program prints, as it does.

import { short } from "./amount.js";
import { at, get, logs } from "./api.js";
import { h, put } from "./element.js";
import { live } from "./live.js";

/** Lines that are kept; the oldest go first. The whole is among the result. */
const LINES_MAX = 5_000;
const LINE_CHARS_MAX = 10_000;
const AGAIN_MS = 1_000;
const AGAIN_MS_MAX = 30_000;

export class Logs {
  #socket = null;
  #of = { job: "", execution: "" };
  #partial = { 1: null, 2: null };
  #timer = 0;
  #follows = true;
  #ended = false;
  #pause = AGAIN_MS;
  #lines = h("div", {
    class: "log",
    tabindex: "0",
    role: "log",
    "aria-label": "What the program prints",
    "aria-live": "off",
  });
  #said = h("span", { class: "muted", role: "status" });
  #choice = h("select", { "aria-label": "Attempt", onchange: () => this.open(this.#of.job, this.#choice.value) });
  element = h("div", {});

  constructor(signal) {
    const follow = h("input", {
      type: "checkbox",
      checked: true,
      onchange: () => {
        this.#follows = follow.checked;
        this.#scroll();
      },
    });
    const wrap = h("input", {
      type: "checkbox",
      checked: true,
      onchange: () => this.#lines.classList.toggle("nowrap", !wrap.checked),
    });
    put(
      this.element,
      h(
        "div",
        { class: "row tools" },
        this.#choice,
        h("label", { class: "check" }, follow, "Follow"),
        h("label", { class: "check" }, wrap, "Wrap"),
        this.#said,
      ),
      this.#lines,
    );
    // Whoever scrolls up reads; at the end they follow again.
    this.#lines.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#lines;
      this.#follows = follow.checked = scrollHeight - scrollTop - clientHeight < 30;
    });
    signal.addEventListener("abort", () => this.close());
    const options = { signal };
    live.addEventListener(
      "back",
      () => {
        if (!this.#ended) this.open(this.#of.job, this.#of.execution);
      },
      options,
    );
    document.addEventListener(
      "visibilitychange",
      () => {
        if (document.hidden) this.close();
        else if (!this.#ended) this.#connect();
      },
      options,
    );
  }

  /** Offers these attempts beside the one that tells most. */
  offer(executions, nameOf) {
    const options = [
      ["", "The accepted, else the latest attempt"],
      ...executions.map(({ ID, NodeID, PartitionIndex }) => [
        ID,
        `run ${PartitionIndex} on ${nameOf(NodeID)} (${short(ID)})`,
      ]),
    ];
    const known = [...this.#choice.options].map(({ value }) => value).join();
    if (known === options.map(([value]) => value).join()) return;
    put(
      this.#choice,
      options.map(([value, text]) => h("option", { value, selected: value === this.#of.execution }, text)),
    );
    this.#choice.hidden = executions.length < 2;
  }

  /** Follows this job from its start. */
  open(job, execution = "") {
    this.#of = { job, execution };
    this.#ended = false;
    this.#connect();
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #connect() {
    this.close();
    if (document.hidden || !this.#of.job) return;
    put(this.#lines);
    this.#partial = { 1: null, 2: null };
    put(this.#said, "connecting…");
    const socket = (this.#socket = logs(this.#of.job, { follow: "true", execution_id: this.#of.execution }));
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      this.#pause = AGAIN_MS;
      put(this.#said, "following");
    });
    socket.addEventListener("message", ({ data }) => this.#take(data));
    socket.addEventListener("close", ({ wasClean }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#ended = opened && wasClean;
      if (this.#ended) {
        put(this.#said, this.#lines.firstChild ? "that is all" : "it printed nothing");
      } else {
        this.#again(opened ? "it broke off" : "it cannot be followed just now");
      }
    });
  }

  /** Tries once more after a while, unless the node says that it has no such job: a WebSocket does not say why it failed. */
  async #again(reason) {
    const { job } = this.#of;
    const refusal = await get(at("orchestrator", "jobs", job, "versions")).then(
      () => null,
      (error) => error,
    );
    if (job !== this.#of.job || this.#socket) return;
    this.#ended = [403, 404].includes(refusal?.status);
    if (this.#ended)
      return put(
        this.#said,
        refusal.status === 404 ? "What another node's job prints, that node shows." : refusal.message,
      );
    put(this.#said, `${reason}; trying again`);
    // While the node is gone there is nothing to try; it says when it is back.
    if (live.state !== "gone") this.#timer = setTimeout(() => this.#connect(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, AGAIN_MS_MAX);
  }

  #take(data) {
    const { value, error } = JSON.parse(data);
    if (error) this.#add(error, 3);
    if (!value) return;
    const parts = plain(value.Line).split("\n");
    const stream = value.Type === 2 ? 2 : 1;
    parts.forEach((text, index) => {
      const last = index === parts.length - 1;
      const line = this.#partial[stream];
      if (line) line.textContent = (line.textContent + text).slice(0, LINE_CHARS_MAX);
      else if (text || !last) this.#partial[stream] = this.#add(text, stream);
      if (!last) this.#partial[stream] = null;
    });
    this.#scroll();
  }

  #add(text, stream) {
    const line = h("div", { class: ["", "out", "err", "trouble"][stream] }, text.slice(0, LINE_CHARS_MAX));
    this.#lines.append(line);
    while (this.#lines.childElementCount > LINES_MAX) this.#lines.firstChild.remove();
    return line;
  }

  #scroll() {
    if (this.#follows) this.#lines.scrollTop = this.#lines.scrollHeight;
  }
}

/** Without what colours terminals, and other characters that mean nothing here. */
function plain(text) {
  return text
    .replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "")
    .replace(/\r(?!\n)/g, "\n")
    .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
}
