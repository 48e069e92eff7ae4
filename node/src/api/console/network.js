// The network as this node sees it: who is there, how far, how busy; and who holds what.

import { bytes, latency, plural, short } from "./amount.js";
import { at, get } from "./api.js";
import { empty, facts, h, link, moment, put, show, trouble } from "./element.js";
import { Graph } from "./graph.js";
import { every, live, soon } from "./live.js";
import { self } from "./shell.js";
import { Table } from "./table.js";

/** Latency and load change without a word; comings and goings are told. */
const LOOK_MS = 5_000;
/** The list of all that are known is long where they are many. */
const LOOK_MS_MANY = 20_000;
const MANY = 2_000;
const ROWS_MAX = 200;
const STORY_MAX = 40;

/** Which way a word of a job's story goes. */
const TO_NODE = ["Awarded", "Cancelled"];
const FROM_NODE = ["Bid", "Declined", "Refused", "Running", "Result", "Heard"];

/** All that are known or connected, this node first. */
async function look(signal) {
  const [adverts, connected] = await Promise.all([
    get(at("network", "view"), {}, signal),
    get(at("network", "peers"), {}, signal),
  ]);
  const peers = new Map();
  for (const advert of adverts) {
    const { PeerId: id, Name, Load, Engines, Total } = advert;
    peers.set(id, {
      id,
      name: Name || short(id),
      load: Load,
      engines: Engines,
      cpu: Total.CPU,
      memory: Total.Memory,
      gpu: Total.GPU,
      own: id === self.id,
      connected: id === self.id,
      rtt: null,
      address: "",
      direction: "",
      agent: "",
      issued: advert.Issued,
    });
  }
  for (const peer of connected.Peers) {
    const { PeerId: id } = peer;
    const known = peers.get(id) ?? {
      id,
      name: peer.Name || short(id),
      load: 0,
      engines: [],
      cpu: 0,
      memory: 0,
      gpu: 0,
      own: false,
      issued: "",
    };
    Object.assign(known, {
      connected: true,
      rtt: peer.RttMs,
      address: peer.Address,
      direction: peer.Direction,
      agent: peer.Agent,
    });
    peers.set(id, known);
  }
  return [...peers.values()].sort((left, right) => right.own - left.own || left.name.localeCompare(right.name));
}

function open(main, { query, signal }) {
  let peers = [];
  const canvas = h("canvas", {
    class: "map",
    tabindex: "0",
    role: "img",
    "aria-label": "Map of the network",
    "aria-describedby": "map-keys",
  });
  const side = h("div", { class: "panel detail" });
  const story = h("ol", { class: "feed" });
  const count = h("span", { class: "muted" });
  const held = h("p", { class: "hint", role: "status" });
  const table = peerTable((id) => pick(id));
  const more = h("p", { class: "hint" });
  const holders = holdersForm();
  const button = (label, text, does) =>
    h("button", { type: "button", class: "small", "aria-label": label, title: label, onclick: does }, text);

  put(
    main,
    h("h1", {}, "Network"),
    h(
      "div",
      { class: "mapped" },
      h(
        "section",
        { class: "panel stage", "aria-label": "Map" },
        canvas,
        h(
          "div",
          { class: "tools" },
          button("Zoom in", "+", () => graph.zoom(1.25)),
          button("Zoom out", "−", () => graph.zoom(0.8)),
          button("Fit all into view", "Fit", () => graph.fit()),
        ),
        legend(),
        h(
          "p",
          { id: "map-keys", class: "heard" },
          "Arrow keys move the map, plus and minus zoom, 0 shows all. The table below says the same.",
        ),
      ),
      h("div", { class: "beside" }, side, holders),
    ),
    h(
      "div",
      { class: "columns" },
      h("section", { "aria-labelledby": "peers" }, h("h2", { id: "peers" }, "Peers ", count), table.element, more),
      h("section", { "aria-labelledby": "story" }, h("h2", { id: "story" }, "As it happens"), story),
    ),
  );

  const graph = new Graph(canvas, { picked: pick, signal });
  tellNothing();
  if (query.has("cid")) holders.requestSubmit();

  function pick(id) {
    graph.selected = id === graph.selected ? "" : id;
    graph.draw();
    describe();
  }

  function describe() {
    const peer = peers.find(({ id }) => id === graph.selected);
    show(side, peer ?? peers, () => (peer ? peerPanel(peer, () => pick(peer.id)) : summary(peers)));
  }

  function tellNothing() {
    if (!story.firstChild) put(story, h("li", { class: "muted" }, "Quiet. What jobs and peers do appears here."));
  }

  function tell(name, text, to = null) {
    story.querySelector(".muted")?.remove();
    story.prepend(
      h("li", {}, h("span", { class: "tag" }, name), to ? link(to, text) : h("span", {}, text), moment(Date.now())),
    );
    while (story.children.length > STORY_MAX) story.lastChild.remove();
  }

  function holdersForm() {
    const input = h("input", {
      id: "cid",
      name: "cid",
      placeholder: "bafy…",
      autocomplete: "off",
      spellcheck: "false",
      value: query.get("cid") ?? "",
    });
    const find = async (event) => {
      event.preventDefault();
      const cid = input.value.trim();
      graph.holders = new Set();
      put(held);
      if (cid) {
        try {
          put(held, "looking…");
          const providers = await get(at("network", "content", cid, "providers"), {}, signal);
          graph.holders = new Set(providers.map(({ PeerId }) => PeerId));
          const names = providers.map(({ PeerId, Name }) => Name || short(PeerId));
          put(
            held,
            names.length ? `Held by ${names.join(", ")}. ` : "Nobody says that they hold it. ",
            link(`#/content/${encodeURIComponent(cid)}`, "Look into it"),
          );
        } catch (error) {
          if (!signal.aborted) put(held, error.message);
        }
      }
      graph.draw();
    };
    return h(
      "form",
      { class: "panel", onsubmit: find },
      h("label", { for: "cid" }, "Who holds a CID?"),
      h("div", { class: "row" }, input, h("button", { type: "submit" }, "Find")),
      held,
    );
  }

  const refresh = every(
    () => (peers.length > MANY ? LOOK_MS_MANY : LOOK_MS),
    async () => {
      peers = await look(signal);
      if (signal.aborted) return;
      graph.update(peers);
      const connected = peers.filter((peer) => peer.connected && !peer.own).length;
      count.textContent = `${peers.length.toLocaleString()} known, ${connected.toLocaleString()} connected`;
      canvas.setAttribute("aria-label", `Map of ${plural(peers.length, "node")}, ${connected} connected to this one`);
      table.update(peers, ROWS_MAX);
      more.textContent = peers.length > ROWS_MAX ? `${peers.length - ROWS_MAX} more are on the Nodes page.` : "";
      describe();
    },
    signal,
    (error) => {
      if (peers.length === 0) put(side, trouble(error));
    },
  );

  const refreshSoon = soon(300, refresh, signal);
  const on = (name, heard) => live.addEventListener(name, (event) => heard(event.detail), { signal });
  on("joined", ({ PeerId, Name }) => {
    tell("joined", Name || short(PeerId));
    refreshSoon();
  });
  on("left", ({ PeerId, Name }) => {
    tell("left", Name || short(PeerId));
    refreshSoon();
  });
  on("job", ({ JobID, Event }) => {
    const { Topic, Message, Details = {} } = Event;
    if (Topic === "Asked")
      peers
        .filter((peer) => peer.connected)
        .slice(0, 60)
        .forEach((peer) => graph.pulse(self.id, peer.id));
    if (TO_NODE.includes(Topic)) graph.pulse(self.id, Details.NodeID);
    if (FROM_NODE.includes(Topic)) graph.pulse(Details.NodeID, self.id);
    tell(short(JobID), Message, `#/jobs/${JobID}`);
  });
}

function peerTable(pick) {
  const name = (peer) => [
    h("button", { type: "button", class: "linkish", onclick: () => pick(peer.id), title: peer.id }, peer.name),
    peer.own ? h("span", { class: "tag" }, "this node") : null,
  ];
  return new Table({
    caption: "Peers known to this node",
    key: (peer) => peer.id,
    empty: empty(
      "Nobody here yet.",
      "A second node joins with",
      h("p", {}, h("code", {}, "bacnode serve --bootstrap ADDRESS")),
    ),
    columns: [
      { head: "Name", cell: name, order: (peer) => peer.name },
      {
        head: "Latency",
        kind: "number",
        cell: (peer) => (peer.own ? "–" : peer.connected ? latency(peer.rtt) : "not connected"),
        order: (peer) => (peer.own ? -1 : peer.connected ? (peer.rtt ?? 0) : 1e9),
      },
      { head: "Load", kind: "number", cell: (peer) => `${peer.load} %`, order: (peer) => peer.load },
      { head: "Engines", cell: (peer) => peer.engines.join(", ") || "none" },
      { head: "CPU", kind: "number", cell: (peer) => peer.cpu.toLocaleString(), order: (peer) => peer.cpu },
      { head: "Memory", kind: "number", cell: (peer) => bytes(peer.memory), order: (peer) => peer.memory },
    ],
  });
}

function summary(peers) {
  const others = peers.filter((peer) => !peer.own);
  const times = others
    .filter((peer) => peer.rtt !== null)
    .map((peer) => peer.rtt)
    .sort((left, right) => left - right);
  const sum = (of) => peers.reduce((total, peer) => total + of(peer), 0);
  const runs = (engine) => peers.filter((peer) => peer.engines.includes(engine)).length;
  const figure = (value, name) => h("div", { class: "figure" }, h("strong", {}, value), h("span", {}, name));
  return h(
    "div",
    { class: "figures" },
    figure(peers.length.toLocaleString(), "nodes known"),
    figure(others.filter((peer) => peer.connected).length.toLocaleString(), "connected"),
    figure((Math.round(sum((peer) => peer.cpu) * 10) / 10).toLocaleString(), "CPUs in all"),
    figure(bytes(sum((peer) => peer.memory)), "memory in all"),
    figure(times.length ? latency(times[times.length >> 1]) : "–", "median latency"),
    figure(`${runs("wasm")} / ${runs("docker")}`, "run wasm / docker"),
  );
}

function peerPanel(peer, close) {
  return [
    h(
      "div",
      { class: "row" },
      h("h2", {}, peer.name),
      h("button", { class: "small", type: "button", onclick: close }, "Close"),
    ),
    facts([
      ["Latency", peer.own ? "this node" : peer.connected ? latency(peer.rtt) : "not connected"],
      ["Load", `${peer.load} %`],
      ["Engines", peer.engines.join(", ") || "none"],
      ["Offers", `${peer.cpu} CPU, ${bytes(peer.memory)}${peer.gpu ? `, ${peer.gpu} GPU` : ""}`],
      ["Address", peer.address && h("span", { class: "mono" }, peer.address)],
      ["Called by", peer.direction && (peer.direction === "out" ? "this node" : "it")],
      ["Program", peer.agent],
      ["Last word", peer.issued && moment(Date.parse(peer.issued))],
    ]),
    h("p", {}, link(`#/nodes/${encodeURIComponent(peer.id)}`, "All about this node")),
  ];
}

function legend() {
  const key = (kind, text) => h("li", {}, h("span", { class: `key ${kind}` }), text);
  return h(
    "ul",
    { class: "legend", "aria-label": "What the map shows" },
    key("own", "this node"),
    key("load", "load"),
    key("wasm", "wasm"),
    key("docker", "docker"),
    key("far", "known by hearsay"),
  );
}

export default { title: "Network", open };
