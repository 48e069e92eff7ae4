// One node: what it offers, what it does over time, what its jobs used here.

import { bytes, duration, latency, short } from "./amount.js";
import { at, get, put as change } from "./api.js";
import { bar, line, span } from "./chart.js";
import { action, confirmed, copyable, facts, h, moment, note, pill, put, show, trouble } from "./element.js";
import { every } from "./live.js";
import { remember, shown } from "./nodes.js";
import { of } from "./samples.js";
import { self } from "./shell.js";

const LOOK_MS = 5_000;

function open(main, { parts: [asked], signal }) {
  const name = h("h1", { class: "named" }, "Node");
  const beside = h("div", { class: "along" });
  const [about, charts, usage, labels, blocking] = [
    h("div", {}),
    h("div", { class: "charts" }),
    h("div", {}),
    h("div", {}),
    h("div", {}),
  ];
  const over = h("span", { class: "muted" });
  const part = (id, heading, content) =>
    h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, heading), content);
  put(
    main,
    h("div", { class: "head" }, name, beside),
    part("about", "What it is", about),
    part("over", ["Over time ", over], charts),
    part("labels", "Labels", labels),
    part("used", "What its jobs used here", usage),
    blocking,
  );
  let first = true;

  every(
    LOOK_MS,
    async () => {
      const answer = await get(at("orchestrator", "nodes", asked), {}, signal);
      const node = shown(answer.Node);
      const [peers, books] = await Promise.all([
        get(at("network", "peers"), {}, signal).catch(() => ({ Peers: [] })),
        get(at("network", "usage"), {}, signal).catch(() => []),
      ]);
      if (signal.aborted) return;
      remember(node);
      document.title = `${node.name} · bacnode`;
      put(name, node.name);
      show(beside, node.connected, () => actions(node));
      const peer = peers.Peers.find(({ PeerId }) => PeerId === node.id);
      show(about, { ...node, heard: Math.round(node.heard / 10_000) * 10_000, rtt: latency(peer?.RttMs) }, (value) =>
        summary(value, peer),
      );
      put(charts, drawings(node));
      put(over, span(of(node.id)));
      show(labels, Object.entries(node.labels).sort(), (pairs) =>
        pairs.length ? facts(pairs) : h("p", { class: "hint" }, "It has said nothing of itself yet."),
      );
      show(usage, books.find(({ PeerID }) => PeerID === node.id) ?? null, used);
      if (first) put(blocking, node.id === self.id ? null : refusing(node));
      first = false;
    },
    signal,
    (error) => {
      if (first) put(about, trouble(error));
    },
  );
}

function actions(node) {
  const act = (verb, said) =>
    action(async () => {
      if (
        verb === "drain" &&
        !(await confirmed(
          "Drain this node? It takes nothing new, ends what has an end and gives services and daemons back.",
          "Drain it",
        ))
      )
        return;
      await change(at("orchestrator", "nodes", node.id), { Action: verb, Message: "from the console" });
      note(said);
    });
  return [
    pill(node.connected ? "connected" : "by hearsay"),
    node.id === self.id
      ? h(
          "div",
          { class: "row actions" },
          h(
            "button",
            { type: "button", class: "danger", onclick: act("drain", "It takes no new jobs, and empties.") },
            "Drain",
          ),
          h("button", { type: "button", onclick: act("resume", "It takes jobs.") }, "Take jobs again"),
        )
      : null,
  ];
}

function summary(node, peer) {
  return facts([
    ["Id", copyable(node.id, short(node.id))],
    ["Engines", node.engines.join(", ") || "none: it submits, and runs nothing"],
    [
      "Offers",
      `${node.total.CPU} CPU, ${bytes(node.total.Memory)} of memory, ${bytes(node.total.Disk)} of disk${node.total.GPU ? `, ${node.total.GPU} GPU` : ""}`,
    ],
    ["Runs", `${node.running}${node.waiting ? `, ${node.waiting} waiting` : ""}`],
    ["Latency", node.id === self.id ? "this node" : peer ? latency(peer.RttMs) : "not connected"],
    ["Program", node.version],
    ["Heard", moment(node.heard)],
    [
      "Addresses",
      node.addresses.length
        ? h(
            "ul",
            { class: "bare" },
            node.addresses.map((address) => h("li", { class: "mono" }, address)),
          )
        : "",
    ],
  ]);
}

function drawings(node) {
  const samples = of(node.id);
  const drawing = (name, now, key, max) =>
    h(
      "figure",
      {},
      h("figcaption", {}, h("span", {}, name), h("strong", {}, now)),
      line(
        samples.map((sample) => sample[key]),
        max,
        `${name}: ${now}`,
        { width: 300, height: 60 },
      ),
    );
  const inUse = (name) => node.total[name] - node.free[name];
  if (!node.told) return h("p", { class: "hint" }, "It does not answer; its advert says what it offers.");
  return [
    drawing("Load", `${node.load} %`, "load", 100),
    drawing("CPU in use", `${Math.round(inUse("CPU") * 100) / 100} of ${node.total.CPU}`, "cpu", node.total.CPU),
    drawing("Memory in use", `${bytes(inUse("Memory"))} of ${bytes(node.total.Memory)}`, "memory", node.total.Memory),
    drawing("Runs", String(node.running), "running", 4),
    h(
      "figure",
      {},
      h(
        "figcaption",
        {},
        h("span", {}, "Disk in use"),
        h("strong", {}, `${bytes(inUse("Disk"))} of ${bytes(node.total.Disk)}`),
      ),
      bar(inUse("Disk") / node.total.Disk, "disk in use"),
    ),
  ];
}

function used(totals) {
  if (!totals) return h("p", { class: "hint" }, "Nothing.");
  return facts([
    ["Runs", totals.Runs.toLocaleString()],
    ["CPU", duration(totals.CPUMillis)],
    ["Time", duration(totals.WallMillis)],
    ["Inputs fetched", bytes(totals.BytesIn)],
    ["Inputs that lay here", bytes(totals.BytesHeld)],
    ["Results", bytes(totals.BytesOut)],
  ]);
}

/** How to have nothing to do with it: a setting, since it must hold before the first word of the API. */
function refusing(node) {
  return h(
    "section",
    { class: "panel", "aria-labelledby": "block" },
    h("h2", { id: "block" }, "Block"),
    h("p", {}, "To take no jobs of this peer, start your node with"),
    h("p", {}, copyable(`bacnode serve --refuse-peer ${node.id}`, `serve --refuse-peer ${short(node.id)}`)),
  );
}

export default { title: "Node", open };
