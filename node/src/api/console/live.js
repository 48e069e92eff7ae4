// What happens at the node, as it does: its server-sent events, read by fetch, since an EventSource bears no token.
//
// One stream serves all pages. It is closed while nobody looks, and opened again with growing pauses while the node is
// gone. Pages hear `job`, `joined`, `left`; `back` when they should look anew; `state` when the connection changes.

import { access, ApiError, at, send } from "./api.js";

const PAUSE_MS = 500;
const PAUSE_MS_MAX = 15_000;
/** The node says something at least every 15 seconds; whoever is silent for longer is gone. */
const SILENCE_MS = 40_000;

class Live extends EventTarget {
  /** `connecting`, `open`, `gone`, `refused` (no token), `deaf` (a token that may not hear) or `paused`. */
  state = "connecting";
  #attempt = null;
  #wake = () => {};
  #missed = false;

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#wake()));
    access.addEventListener("changed", () => {
      this.#attempt?.abort();
      this.#wake();
    });
    this.#run();
  }

  async #run() {
    let pause = PAUSE_MS;
    for (;;) {
      if (document.hidden) {
        this.#become("paused");
        await this.#rest(Infinity);
        continue;
      }
      try {
        await this.#listen(() => (pause = PAUSE_MS));
        if (this.state === "open") this.#become("gone");
      } catch (error) {
        if (error.status === 401) this.#become("refused");
        else if (error.status === 403) this.#become("deaf");
        else if (error.name !== "AbortError") this.#become("gone");
      }
      if (document.hidden) continue;
      this.#missed = true;
      await this.#rest(["refused", "deaf"].includes(this.state) ? Infinity : pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, PAUSE_MS_MAX);
    }
  }

  async #listen(opened) {
    const attempt = (this.#attempt = new AbortController());
    const silent = () => attempt.abort(new ApiError(0, "Silent", "the node has fallen silent"));
    let silence = setTimeout(silent, SILENCE_MS);
    try {
      const answer = await send("GET", at("network", "events"), { signal: attempt.signal });
      opened();
      this.#become("open");
      if (this.#missed) this.dispatchEvent(new Event("back"));
      this.#missed = false;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(silent, SILENCE_MS);
        const blocks = (text + value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) this.#tell(block);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #tell(block) {
    let [name, data] = ["message", ""];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      if (line.startsWith("data:")) data += line.slice(5).trim();
    }
    if (!data) return;
    if (name === "missed") this.dispatchEvent(new Event("back"));
    else this.dispatchEvent(new CustomEvent(name, { detail: JSON.parse(data) }));
  }

  #pause() {
    this.#missed = true;
    this.#attempt?.abort();
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #rest(ms) {
    return new Promise((rested) => {
      const timer = Number.isFinite(ms) ? setTimeout(rested, ms) : 0;
      this.#wake = () => {
        clearTimeout(timer);
        rested();
      };
    });
  }
}

export const live = new Live();

/**
 * Does `work` now, every `ms` (which may be a function) and when the node is back; not while nobody looks, not twice at a time, until `signal`.
 * `failed` hears what went wrong. Gives a function that does it at once.
 */
export function every(ms, work, signal, failed = () => {}) {
  let timer = 0;
  let [busy, again, first] = [false, false, true];
  const turn = async () => {
    clearTimeout(timer);
    // Of a node that is gone there is no news; that it is back, the stream finds out.
    if (signal.aborted || document.hidden || (live.state === "gone" && !first)) return;
    first = false;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      await work();
    } catch (error) {
      if (!signal.aborted && error.name !== "AbortError") failed(error);
    }
    busy = false;
    if (signal.aborted || document.hidden) return;
    timer = setTimeout(turn, again ? 50 : typeof ms === "function" ? ms() : ms);
    again = false;
  };
  const options = { signal };
  live.addEventListener("back", turn, options);
  document.addEventListener("visibilitychange", turn, options);
  signal.addEventListener("abort", () => clearTimeout(timer));
  turn();
  return turn;
}

/** Calls `work` a moment after the first of several calls: however many come, it is done at most every `ms`. */
export function soon(ms, work, signal) {
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    if (timer || signal.aborted) return;
    timer = setTimeout(() => {
      timer = 0;
      work();
    }, ms);
  };
}

/** Calls `work` a moment after the last of several calls: when whoever writes pauses. */
export function rested(ms, work, signal) {
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    clearTimeout(timer);
    if (!signal.aborted) timer = setTimeout(work, ms);
  };
}
