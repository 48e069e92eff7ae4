// Elements made of values. What is text goes in as text: there is no way in here for markup, whoever wrote it.

import { ago } from "./amount.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`) and children: strings, nodes, lists of them; nothing for null and false. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  const isShown = (child) => child !== null && child !== undefined && child !== false;
  return children
    .flat(Infinity)
    .filter(isShown)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** Puts these in the place of all that `element` holds. What is said again is not said twice to those who hear it. */
export function put(element, ...children) {
  const parts = flat(children);
  const isSame = parts.length === 1 && parts[0] === element.textContent && element.childElementCount === 0;
  if (!isSame) element.replaceChildren(...parts);
  return element;
}

const shown = new WeakMap();

/** Puts what `build` makes of `value` into `element`, if that is another value than before: focus and selection stay. */
export function show(element, value, build) {
  const now = JSON.stringify(value);
  if (shown.get(element) === now) return;
  shown.set(element, now);
  put(element, build(value));
}

/** A link within the console. */
export function link(to, text, attributes = {}) {
  return h("a", { href: to, ...attributes }, text);
}

/** The name of a state, with its colour. */
export function pill(state) {
  return h("span", { class: `pill ${state.toLowerCase().replace(/[^a-z]/g, "")}` }, h("span", { class: "dot" }), state);
}

/** A time as people say it; it is kept right while it stands there. */
export function moment(ms) {
  const date = new Date(ms);
  if (!ms || Number.isNaN(date.getTime())) return "–";
  return h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, ago(ms));
}

/** Says anew how long ago all of it was. */
export function refreshMoments() {
  for (const time of document.querySelectorAll("time")) {
    const text = ago(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

/** A list of names and values. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** Something to copy: an id, an address, a command. */
export function copyable(text, name = text) {
  const said = h("span", { class: "mono" }, name);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Not allowed here: what is selected can be copied by hand.
      getSelection()?.selectAllChildren(said);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  const button = h("button", { class: "small", type: "button", "aria-label": `Copy ${name}`, onclick: copy }, "Copy");
  return h("span", { class: "copyable", title: text }, said, button);
}

/** What a page says where it has nothing to show. */
export function empty(title, ...more) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "title" }, title),
    more.map((part) => (part instanceof Node ? part : h("p", {}, part))),
  );
}

/** What went wrong, and what helps. */
export function trouble(error) {
  return h(
    "div",
    { class: "trouble", role: "alert" },
    h("p", {}, error.message),
    error.hint ? h("p", { class: "hint" }, error.hint) : null,
  );
}

/** Says something in passing, at the foot of the window. */
export function note(text, kind = "") {
  const said = h("p", { class: `note ${kind}` }, text);
  document.getElementById("notes").append(said);
  setTimeout(() => said.remove(), kind === "bad" ? 9000 : 5000);
}

/** Runs what a button does: once at a time, and says what went wrong. */
export function action(work) {
  return async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      await work(event);
    } catch (error) {
      if (error.name !== "AbortError") note([error.message, error.hint].filter(Boolean).join(" · "), "bad");
    } finally {
      button.disabled = false;
    }
  };
}

/** Asks before something that cannot be taken back. */
export function confirmed(question, verb) {
  return new Promise((answer) => {
    const close = (value) => () => {
      dialog.close();
      dialog.remove();
      answer(value);
    };
    const dialog = h(
      "dialog",
      { "aria-label": question, oncancel: close(false) },
      h("p", {}, question),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", onclick: close(false) }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: close(true) }, verb),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
