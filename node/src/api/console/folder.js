// One CID: what is in it, who has it, to keep it or to fetch it.

import { bytes, plural, short } from "./amount.js";
import { at, download, get, send } from "./api.js";
import { Browser } from "./browser.js";
import { action, copyable, h, link, note, put } from "./element.js";
import { every } from "./live.js";

const LOOK_MS = 30_000;

function open(main, { parts: [cid], query, signal }) {
  const providers = h("p", { class: "hint", role: "status" }, "asking who has it…");
  const path = (query.get("path") ?? "").split("/").filter(Boolean);
  const moved = (to) =>
    history.replaceState(
      null,
      "",
      `#/content/${encodeURIComponent(cid)}${to.length ? `?path=${encodeURIComponent(to.join("/"))}` : ""}`,
    );
  const pin = action(async () => {
    const { Size } = await (await send("PUT", at("network", "content", cid, "pin"))).json();
    note(`Kept here until you let go of it: ${bytes(Size)}.`);
  });
  put(
    main,
    h("p", {}, link("#/content", "Content")),
    h(
      "div",
      { class: "head" },
      h("h1", { class: "named" }, short(cid)),
      h(
        "div",
        { class: "row actions" },
        h("button", { type: "button", onclick: pin }, "Keep it here"),
        h(
          "button",
          { type: "button", onclick: action(() => download(cid, "", short(cid).replace("…", "-"))) },
          "Download",
        ),
      ),
    ),
    copyable(cid, cid),
    providers,
    h(
      "section",
      { class: "panel", "aria-label": "What is in it" },
      new Browser(cid, short(cid), signal, { path, moved }).element,
    ),
  );
  every(
    LOOK_MS,
    async () => {
      const known = await get(at("network", "content", cid, "providers"), {}, signal);
      const names = known.flatMap(({ PeerId, Name }, index) => [
        index ? ", " : "",
        link(`#/nodes/${encodeURIComponent(PeerId)}`, Name || short(PeerId)),
      ]);
      put(
        providers,
        known.length
          ? [
              plural(known.length, "node has it: ", "nodes have it: "),
              names,
              ". ",
              link(`#/network?cid=${encodeURIComponent(cid)}`, "On the map"),
            ]
          : "Nobody says that they have it.",
      );
    },
    signal,
    (error) => put(providers, error.message),
  );
}

export default { title: "Content", open };
