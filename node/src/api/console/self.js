// This node: how to join it, its settings, what its operator should know, its figures.

import { bytes, duration, plural, short } from "./amount.js";
import { at, get, send } from "./api.js";
import { line } from "./chart.js";
import { action, copyable, empty, facts, h, link, put, show, trouble } from "./element.js";
import { every } from "./live.js";
import { parse } from "./metrics.js";
import { Table } from "./table.js";

const LOOK_MS = 10_000;
const PAST_MAX = 120;
/** Figures of the library beneath, which are many and seldom wanted. */
const FOREIGN = /^bacnode_(libp2p|gossipsub)_/;

/** What each figure was, while this window is open. */
const past = new Map();

function open(main, { signal }) {
  const part = (id, heading, content) =>
    h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, heading), content);
  const [warnings, waiting, joining, about, settings, usage] = [
    h("div", {}),
    h("div", { hidden: true }),
    h("div", {}),
    h("div", {}),
    h("div", {}),
    h("div", {}),
  ];
  const table = figureTable();
  const filter = h("input", {
    type: "search",
    "aria-label": "Filter figures",
    placeholder: "bacnode_",
    spellcheck: "false",
    oninput: () => list(),
  });
  const all = h("input", { type: "checkbox", onchange: () => list() });
  const users = userTable();
  let figures = [];
  put(
    main,
    h("h1", {}, "This node"),
    warnings,
    waiting,
    h("div", { class: "columns even" }, part("about", "What it is", about), part("join", "Join it", joining)),
    part("settings", "Settings", settings),
    part("used", "Who used what", usage),
    h(
      "section",
      { "aria-labelledby": "figures" },
      h(
        "div",
        { class: "row tools" },
        h("h2", { id: "figures" }, "Figures"),
        h("label", { class: "check" }, all, "also of the network library"),
        filter,
      ),
      table.element,
    ),
  );

  function list() {
    const part = filter.value.trim().toLowerCase();
    const wanted = ({ name, help }) =>
      (all.checked || part || !FOREIGN.test(name)) &&
      (!part || name.includes(part) || help.toLowerCase().includes(part));
    table.update(figures.filter(wanted));
  }

  const refresh = every(
    LOOK_MS,
    async () => {
      const [node, identity, peers, config, debug, books, withheld] = await Promise.all([
        get(at("agent", "node"), {}, signal),
        get(at("network", "identity"), {}, signal),
        get(at("network", "peers"), {}, signal),
        get(at("agent", "config"), {}, signal),
        get(at("agent", "debug"), {}, signal),
        get(at("network", "usage"), {}, signal),
        get(at("network", "withheld"), {}, signal),
      ]);
      const text = await (await send("GET", "/metrics", { signal })).text();
      if (signal.aborted) return;
      show(warnings, peers.Warnings, (all) =>
        all.map((warning) => h("p", { class: "warning", role: "alert" }, warning)),
      );
      show(about, { node: { ...node, LastSeenSeconds: 0 }, debug: { ...debug, Store: "" } }, (value) =>
        summary(value.node, value.debug),
      );
      show(joining, { identity, config: config.config }, (value) => addresses(value.identity, value.config));
      show(settings, config.config, settingsOf);
      show(waiting, withheld, (all) => waits(all, () => refresh()));
      waiting.hidden = withheld.length === 0;
      put(usage, books.length ? users.element : empty("No job has run here yet."));
      users.update(books);
      figures = parse(text).map(kept);
      list();
    },
    signal,
    (error) => {
      if (!figures.length) put(warnings, trouble(error));
    },
  );
}

function summary(node, debug) {
  const { BacalhauVersion: version, ComputeNodeInfo: compute } = node;
  return facts([
    ["Name", node.Name],
    ["Id", copyable(node.NodeID, short(node.NodeID))],
    ["Version", `${version.GitVersion}${version.GOARCH ? `, ${version.GOOS}/${version.GOARCH}` : ""}`],
    ["Engines", compute.ExecutionEngines.join(", ") || "none"],
    [
      "Offers",
      `${compute.MaxCapacity.CPU} CPU, ${bytes(compute.MaxCapacity.Memory)}, ${bytes(compute.MaxCapacity.Disk)} of disk`,
    ],
    [
      "Runs",
      plural(debug.Compute.Running, "execution") + (debug.Compute.Waiting ? `, ${debug.Compute.Waiting} waiting` : ""),
    ],
    ["Knows", `${plural(debug.Network.Known, "node")}, ${debug.Network.Connected} connected`],
    ["More", link(`#/nodes/${encodeURIComponent(node.NodeID)}`, "over time, drain")],
  ]);
}

function addresses(identity, config) {
  if (!identity.Addresses.length) return empty("Nobody can call it.", "It listens nowhere yet.");
  const command = `bacnode serve --network ${identity.Network} --bootstrap ${identity.Addresses[0]}`;
  return [
    h("p", {}, "On another machine", config.Private ? ", with the swarm's key:" : ":"),
    h("p", {}, copyable(command, `bacnode serve --network ${identity.Network} --bootstrap …`)),
    h(
      "ul",
      { class: "bare" },
      identity.Addresses.map((address) => h("li", {}, copyable(address, address))),
    ),
  ];
}

/** Results of others' jobs that wait for the operator's word, since they were made of data that does not leave this node. */
function waits(withheld, decided) {
  const decide = (id, Granted) =>
    action(async () => {
      await send("POST", at("network", "withheld", id), { json: { Granted } });
      decided();
    });
  return h(
    "section",
    { class: "panel", "aria-labelledby": "waits" },
    h("h2", { id: "waits" }, "Waits for your word"),
    withheld.map((result) =>
      h(
        "p",
        { class: "row" },
        `${result.Name || short(result.PeerID)}: ${bytes(result.Size)} of job ${short(result.JobID)}`,
        result.CID ? link(`#/content/${encodeURIComponent(result.CID)}`, "Look at it") : null,
        h("button", { type: "button", class: "small", onclick: decide(result.ExecutionID, true) }, "Let it out"),
        h("button", { type: "button", class: "small danger", onclick: decide(result.ExecutionID, false) }, "Refuse"),
      ),
    ),
  );
}

function settingsOf(config) {
  const shown = (value) => {
    if (value === true || value === false) return value ? "yes" : "no";
    if (value && typeof value === "object")
      return (
        Object.entries(value)
          .map(([key, part]) => `${key}=${key === "Memory" || key === "Disk" ? bytes(part) : part}`)
          .join(", ") || "none"
      );
    return String(value);
  };
  return [
    facts(Object.entries(config).map(([name, value]) => [name.replace(/([a-z])([A-Z])/g, "$1 $2"), shown(value)])),
    h(
      "p",
      { class: "hint" },
      "Where each comes from, and how to change it: ",
      h("code", {}, "bacnode config show"),
      ". What is wrong here, if anything is: ",
      h("code", {}, "bacnode doctor"),
    ),
  ];
}

function userTable() {
  return new Table({
    caption: "What jobs have used here, by submitter",
    key: (user) => user.PeerID,
    columns: [
      {
        head: "Submitter",
        cell: (user) => link(`#/nodes/${encodeURIComponent(user.PeerID)}`, user.Name || short(user.PeerID)),
      },
      { head: "Runs", kind: "number", cell: (user) => user.Runs.toLocaleString(), order: (user) => user.Runs },
      { head: "CPU", kind: "number", cell: (user) => duration(user.CPUMillis), order: (user) => user.CPUMillis },
      { head: "Fetched", kind: "number", cell: (user) => bytes(user.BytesIn), order: (user) => user.BytesIn },
      { head: "Lay here", kind: "number", cell: (user) => bytes(user.BytesHeld), order: (user) => user.BytesHeld },
      { head: "Results", kind: "number", cell: (user) => bytes(user.BytesOut), order: (user) => user.BytesOut },
    ],
  });
}

/** A figure with what it was before. */
function kept({ name, help, samples }) {
  const value = samples.reduce((sum, sample) => sum + sample.value, 0);
  const values = past.get(name) ?? [];
  values.push(value);
  if (values.length > PAST_MAX) values.shift();
  past.set(name, values);
  return { name, help, value, parts: samples.length > 1 ? samples : [], past: [...values] };
}

function figureTable() {
  const shown = (name, value) =>
    /_bytes/.test(name) ? bytes(value) : Number.isInteger(value) ? value.toLocaleString() : value.toPrecision(4);
  return new Table({
    caption: "Figures",
    key: (figure) => figure.name,
    empty: empty("No figure is called that."),
    columns: [
      {
        head: "Name",
        cell: (figure) => [h("span", { class: "mono" }, figure.name), h("span", { class: "why" }, figure.help)],
      },
      {
        head: "Value",
        kind: "number",
        cell: (figure) => [
          h("strong", {}, shown(figure.name, figure.value)),
          figure.parts
            .slice(0, 8)
            .map(({ labels, value }) => h("div", { class: "hint" }, `${labels}: ${shown(figure.name, value)}`)),
        ],
      },
      { head: "Since you look", kind: "load", cell: (figure) => line(figure.past, 0, `${figure.name} over time`) },
    ],
  });
}

export default { title: "This node", open };
