// What is around every page: whose node this is, whether it is there, light or dark, the token.

import { access, at, get, setToken, token } from "./api.js";
import { h, refreshMoments } from "./element.js";
import { live } from "./live.js";
import { again } from "./router.js";

const SAID = {
  connecting: "connecting",
  open: "live",
  gone: "the node is gone; trying again",
  refused: "waiting for a token",
  deaf: "the token hears no events",
  paused: "paused",
};

/** How often "12 s ago" is put right. */
const MOMENT_MS = 5_000;

/** The node that this page is of, once it is known. */
export const self = { id: "", name: "", network: "" };

export function start() {
  const dot = document.getElementById("link");
  const tell = () => {
    dot.className = `link ${live.state}`;
    dot.querySelector(".said").textContent = SAID[live.state];
    document.documentElement.classList.toggle("gone", live.state === "gone");
  };
  live.addEventListener("state", tell);
  live.addEventListener("back", know);
  access.addEventListener("asked", (event) => ask(event.detail));
  tell();
  document.querySelector(".skip").addEventListener("click", (event) => {
    // The address names the page, so the browser's own way of going there will not do.
    event.preventDefault();
    document.getElementById("main").focus();
  });
  startTheme();
  const forget = document.getElementById("forget");
  forget.addEventListener("click", () => {
    setToken("");
    again();
  });
  access.addEventListener("changed", () => (forget.hidden = !token()));
  forget.hidden = !token();
  setInterval(() => {
    if (!document.hidden) refreshMoments();
  }, MOMENT_MS);
  return know();
}

/** Finds out whose node this is. */
async function know() {
  try {
    const [node, identity] = await Promise.all([get(at("agent", "node")), get(at("network", "identity"))]);
    Object.assign(self, { id: node.NodeID, name: node.Name, network: identity.Network });
    const whose = document.getElementById("whose");
    whose.replaceChildren(h("strong", {}, self.name || "unnamed"), h("span", {}, self.network));
    whose.title = self.id;
  } catch {
    // It says so itself, or may not be asked with this token.
  }
}

function startTheme() {
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  const chosen = () => document.documentElement.dataset.theme ?? "system";
  const show = () => (button.textContent = `Theme: ${chosen()}`);
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(chosen()) + 1) % themes.length];
    if (next === "system") {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("bacnode.theme");
    } else {
      document.documentElement.dataset.theme = next;
      localStorage.setItem("bacnode.theme", next);
    }
    show();
    dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
  show();
}

/** Asks for a token, in one dialog however many requests wanted it. */
function ask(reason) {
  const known = document.getElementById("token");
  if (known?.open) return;
  known?.remove();
  const input = h("input", {
    id: "token-text",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-why",
    placeholder: "bnt_…",
  });
  const use = async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    dialog.close();
    setToken(text);
    await know();
    again();
  };
  const dialog = h(
    "dialog",
    { id: "token", "aria-labelledby": "token-title" },
    h(
      "form",
      { onsubmit: use },
      h("h2", { id: "token-title" }, "This node asks for a token"),
      h(
        "p",
        { id: "token-why" },
        token() ? reason : "It is kept in this window only, and forgotten when you close it.",
      ),
      h("label", { for: "token-text" }, "Token"),
      input,
      h(
        "p",
        { class: "hint" },
        "At the node, ",
        h("code", {}, "bacnode token create NAME --scope read:job"),
        " makes one.",
      ),
      h("div", { class: "row end" }, h("button", { class: "primary", type: "submit" }, "Use it")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
