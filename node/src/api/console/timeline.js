// A job's story drawn against time: what was asked and offered, then a line for each attempt.
//
// The market takes milliseconds and the run minutes: time up to the first award has a scale of its own, left of the line.

import { duration, plural, short } from "./amount.js";
import { h, put, svg } from "./element.js";

const LANES_MAX = 24;
const LANE = 30;
const TOP = 46;
/** The share of the width that the market has at least. */
const MARKET_SHARE = 0.26;

/** What an attempt does from this event on. */
const PHASES = {
  Awarded: "waiting",
  Waiting: "waiting",
  Preparing: "preparing",
  Running: "running",
  Open: "running",
  Publishing: "publishing",
  Withheld: "withheld",
  Suspected: "suspected",
  Heard: "running",
};
const LEGEND = [
  ["waiting", "waiting"],
  ["preparing", "fetching inputs"],
  ["running", "running"],
  ["publishing", "storing the result"],
  ["suspected", "silent"],
];
const ENDS = { Accepted: "ok", Refused: "bad", Lost: "bad", GivenUp: "bad", Cancelled: "off" };
const MARKS = {
  Submitted: "asked",
  Asked: "asked",
  Bid: "bid",
  Declined: "declined",
  Queued: "declined",
  Version: "asked",
  Again: "asked",
};

export class Timeline {
  #job = null;
  element = h("div", { class: "timeline" });
  #steps = h("ol", { class: "steps" });
  #drawing = h("div", { class: "drawing" });

  constructor(signal) {
    put(
      this.element,
      this.#steps,
      this.#drawing,
      h(
        "ul",
        { class: "legend", "aria-hidden": "true" },
        LEGEND.map(([phase, text]) => h("li", {}, h("span", { class: `key phase-${phase}` }), text)),
      ),
    );
    const resized = new ResizeObserver(() => this.#draw());
    resized.observe(this.#drawing);
    signal.addEventListener("abort", () => resized.disconnect());
  }

  /** Shows the story of `history`, until now if it goes on. */
  update(history, ended) {
    const events = history.map(({ ExecutionID, Event, Time }) => ({
      at: Date.parse(Time),
      topic: Event.Topic,
      text: Event.Message,
      execution: ExecutionID,
      node: Event.Details?.NodeName ?? "",
      details: Event.Details ?? {},
    }));
    this.#job = events.length ? { events, ended } : null;
    put(this.#steps, steps(events, ended));
    this.#draw();
  }

  #draw() {
    const width = this.#drawing.clientWidth;
    if (!this.#job || width < 50) return put(this.#drawing);
    put(this.#drawing, draw(this.#job, width));
  }
}

/** The story in six words, each with when it was first so. */
function steps(events, ended) {
  const start = events[0]?.at ?? 0;
  const of = (...topics) => events.filter(({ topic }) => topics.includes(topic));
  const last = events.at(-1);
  const asked = Math.max(0, ...of("Asked").map(({ details }) => Number(details.Nodes)));
  const winners = [...new Set(of("Awarded").map(({ node }) => node))];
  const results = of("Accepted");
  const parts = [
    ["Asked", of("Asked")[0], asked ? plural(asked, "node") : ""],
    [
      "Bids",
      of("Bid")[0],
      of("Bid").length
        ? `${plural(of("Bid").length, "bid")}${of("Declined").length ? `, ${of("Declined").length} declined` : ""}`
        : "",
    ],
    ["Awarded", of("Awarded")[0], winners.length > 2 ? plural(winners.length, "node") : winners.join(", ")],
    ["Running", of("Running")[0], leases(of("Running"), of("Suspected", "Lost", "GivenUp"))],
    ["Result", of("Result")[0], results.length ? plural(results.length, "accepted", "accepted") : ""],
    ["Verdict", ended ? last : null, ended ? last.topic : ""],
  ];
  return parts.map(([name, event, text]) =>
    h(
      "li",
      { class: event ? `done ${name === "Verdict" ? last.topic.toLowerCase() : ""}` : "" },
      h("span", { class: "name" }, name),
      h("strong", {}, text || "–"),
      h("span", { class: "muted" }, event ? `+${duration(event.at - start)}` : ""),
    ),
  );
}

function leases(runs, broken) {
  if (!runs.length) return "";
  return `${plural(runs.length, "run")}${broken.length ? `, ${broken.length} lost` : ""}`;
}

function draw({ events, ended }, width) {
  const start = events[0].at;
  const end = Math.max(start + 1, ended ? events.at(-1).at : Date.now());
  const award = events.find(({ topic }) => topic === "Awarded")?.at ?? end;
  const label = width > 620 ? 130 : 76;
  const x = scale(start, Math.min(award, end), end, label, width - 16);
  const lanes = [
    ...Map.groupBy(
      events.filter(({ execution }) => execution),
      ({ execution }) => execution,
    ),
  ];
  const shown = lanes.slice(0, LANES_MAX);
  const height = TOP + LANE * (shown.length + 1) + 8;
  const text = (at, y, said, attributes = {}) => svg("text", { x: at, y, ...attributes }, said);

  const ticks = [start];
  for (const at of [award, end]) if (x(at) - x(ticks.at(-1)) > 90) ticks.push(at);
  const axis = ticks.flatMap((at) => [
    svg("line", { x1: x(at), x2: x(at), y1: 22, y2: height - 4, class: at === award && at !== end ? "break" : "tick" }),
    text(x(at), 14, `+${duration(at - start)}`, {
      "text-anchor": at === end ? "end" : at === start ? "start" : "middle",
      class: "tick",
    }),
  ]);
  const marks = events
    .filter(({ topic }) => MARKS[topic])
    .map(({ at, topic, text: said }) =>
      svg("circle", { cx: x(at), cy: TOP - 4, r: 4.5, class: `mark ${MARKS[topic]}` }, svg("title", {}, said)),
    );
  const rows = shown.flatMap(([id, own], index) => {
    const y = TOP + LANE * (index + 1) - 8;
    const name = own.find(({ node }) => node)?.node ?? short(id);
    const most = label > 100 ? 17 : 9;
    return [
      text(0, y + 5, name.length > most ? `${name.slice(0, most - 1)}…` : name, { class: "lane" }),
      ...bars(own, end, x, y),
    ];
  });
  const rest = lanes.length - shown.length;
  const heard = `Timeline of ${plural(events.length, "event")} and ${plural(lanes.length, "attempt")} over ${duration(end - start)}; the story below says the same.`;
  return [
    svg(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": heard },
      axis,
      text(0, TOP, "market", { class: "lane muted" }),
      marks,
      rows,
    ),
    rest > 0 ? h("p", { class: "hint" }, `${plural(rest, "more attempt")} below.`) : null,
  ];
}

/** From a time to a place, in two pieces where the first would be too small to see. */
function scale(start, middle, end, left, right) {
  const share = (middle - start) / (end - start);
  const cut = left + (right - left) * (share < MARKET_SHARE && middle > start ? MARKET_SHARE : share);
  return (at) =>
    at <= middle && middle > start
      ? left + ((at - start) / (middle - start)) * (cut - left)
      : cut + ((at - middle) / Math.max(1, end - middle)) * (right - cut);
}

/** What one attempt did, one after the other. */
function bars(events, end, x, y) {
  const drawn = [];
  let open = null;
  const close = (at) => {
    if (!open) return;
    const width = Math.max(2, x(at) - x(open.at));
    drawn.push(
      svg(
        "rect",
        { x: x(open.at), y: y - 6, width, height: 13, rx: 3, class: `phase-${open.phase}` },
        svg("title", {}, `${open.text} (${duration(at - open.at)})`),
      ),
    );
    open = null;
  };
  for (const { at, topic, text, details } of events) {
    if (PHASES[topic]) {
      close(at);
      open = { at, phase: PHASES[topic], text };
    }
    const verdict = ENDS[topic] ?? (topic === "Result" && details.ExitCode === undefined ? "bad" : null);
    if (verdict) {
      close(at);
      drawn.push(svg("circle", { cx: x(at), cy: y + 0.5, r: 6, class: `end ${verdict}` }, svg("title", {}, text)));
    }
  }
  close(end);
  return drawn;
}
