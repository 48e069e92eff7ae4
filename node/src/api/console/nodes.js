// All nodes that this one knows: what they offer, what is free.

import { bytes, plural, short } from "./amount.js";
import { at, get } from "./api.js";
import { bar, line } from "./chart.js";
import { empty, h, link, moment, pill, put, trouble } from "./element.js";
import { every, live, soon } from "./live.js";
import { note, of } from "./samples.js";
import { self } from "./shell.js";
import { Table } from "./table.js";

/** The node asks all others for this; the more there are, the less often. */
const LOOK_MS = 5_000;
const LOOK_MS_MANY = 20_000;
const MANY = 100;
const PAGE = 100;
const PAGES_MAX = 100;

/** What a page shows of a node. */
export function shown({ Info: info, Connection: connection, ConnectionState: state }) {
  const compute = info.ComputeNodeInfo;
  return {
    id: info.NodeID,
    name: info.Name || short(info.NodeID),
    kind: info.NodeType,
    engines: compute.ExecutionEngines,
    labels: info.Labels,
    load: info.Load,
    total: compute.MaxCapacity,
    free: compute.AvailableCapacity,
    running: compute.RunningExecutions,
    waiting: compute.EnqueuedExecutions,
    connected: connection === "CONNECTED",
    heard: Date.parse(state.LastHeartbeat),
    version: info.BacalhauVersion.GitVersion,
    addresses: info.Addresses,
    // Of whom nothing but the advert is known, nothing is free for all one knows.
    told: Object.keys(info.Labels ?? {}).length > 0,
  };
}

/** Keeps what a node says now, for its line over time. */
export function remember(node) {
  if (node.told)
    note(node.id, {
      load: node.load,
      cpu: node.total.CPU - node.free.CPU,
      memory: node.total.Memory - node.free.Memory,
      running: node.running,
    });
}

function open(main, { signal }) {
  let nodes = [];
  let text = "";
  let count = PAGE;
  const said = h("p", { class: "hint", role: "status" });
  const table = nodeTable();
  const more = h(
    "button",
    {
      type: "button",
      onclick: () => {
        count += PAGE;
        show();
      },
    },
    "More",
  );
  const filter = h("input", {
    type: "search",
    placeholder: "name, engine or label=value",
    spellcheck: "false",
    oninput: () => {
      text = filter.value.trim().toLowerCase();
      count = PAGE;
      show();
    },
  });

  put(
    main,
    h("h1", {}, "Nodes"),
    h(
      "form",
      { class: "filters", role: "search", "aria-label": "Filter nodes", onsubmit: (event) => event.preventDefault() },
      h("label", {}, "Filter", filter),
    ),
    said,
    table.element,
    h("div", { class: "row pages" }, more),
  );

  function show() {
    const words = (node) =>
      [node.name, node.id, ...node.engines, ...Object.entries(node.labels).map(([key, value]) => `${key}=${value}`)]
        .join(" ")
        .toLowerCase();
    const wanted = nodes.filter((node) => !text || words(node).includes(text));
    table.update(wanted, count);
    more.hidden = wanted.length <= count;
    put(said, `${plural(nodes.length, "node")}${wanted.length < nodes.length ? `, ${wanted.length} like that` : ""}`);
  }

  const refresh = every(
    () => (nodes.length > MANY ? LOOK_MS_MANY : LOOK_MS),
    async () => {
      const all = [];
      let token = "";
      for (let page = 0; page < PAGES_MAX; page += 1) {
        const answer = await get(at("orchestrator", "nodes"), { limit: 1000, next_token: token }, signal);
        all.push(...answer.Nodes.map(shown));
        token = answer.NextToken;
        if (!token) break;
      }
      if (signal.aborted) return;
      nodes = all;
      nodes.forEach(remember);
      for (const node of nodes) node.past = of(node.id).map(({ load }) => load);
      show();
    },
    signal,
    (error) => put(said, trouble(error)),
  );
  const changed = soon(1_000, refresh, signal);
  for (const name of ["joined", "left"]) live.addEventListener(name, changed, { signal });
}

function nodeTable() {
  const free = (node, name, shownAs) =>
    node.told
      ? [
          h("span", {}, `${shownAs(node.free[name])} of ${shownAs(node.total[name])}`),
          bar(1 - node.free[name] / node.total[name], "in use"),
        ]
      : shownAs(node.total[name]);
  const cpus = (count) => (Math.round(count * 100) / 100).toLocaleString();
  return new Table({
    caption: "Nodes",
    key: (node) => node.id,
    empty: empty("No node is like that."),
    order: 0,
    columns: [
      {
        head: "Name",
        cell: (node) => [
          link(`#/nodes/${encodeURIComponent(node.id)}`, node.name, { title: node.id }),
          node.id === self.id ? h("span", { class: "tag" }, "this node") : null,
        ],
        order: (node) => node.name,
      },
      {
        head: "Connection",
        cell: (node) => pill(node.connected ? "connected" : "by hearsay"),
        order: (node) => (node.connected ? 0 : 1),
      },
      { head: "Engines", cell: (node) => node.engines.join(", ") || "none", order: (node) => node.engines.join() },
      { head: "CPU free", kind: "number", cell: (node) => free(node, "CPU", cpus), order: (node) => node.free.CPU },
      {
        head: "Memory free",
        kind: "number",
        cell: (node) => free(node, "Memory", bytes),
        order: (node) => node.free.Memory,
      },
      {
        head: "Disk free",
        kind: "number",
        cell: (node) => (node.told ? bytes(node.free.Disk) : bytes(node.total.Disk)),
        order: (node) => node.free.Disk,
      },
      {
        head: "Runs",
        kind: "number",
        cell: (node) => `${node.running}${node.waiting ? ` + ${node.waiting} waiting` : ""}`,
        order: (node) => node.running,
      },
      {
        head: "Load",
        kind: "load",
        cell: (node) => [h("span", {}, `${node.load} %`), line(node.past ?? [], 100, `load ${node.load} percent`)],
        order: (node) => node.load,
      },
      { head: "Heard", cell: (node) => moment(node.heard), order: (node) => -node.heard },
    ],
  });
}

export default { title: "Nodes", open };
