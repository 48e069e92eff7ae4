// This node's jobs: the newest first, filtered, page by page, as they go on.

import { duration, fromNanos, short } from "./amount.js";
import { at, get } from "./api.js";
import { empty, h, link, moment, pill, put, trouble } from "./element.js";
import { every, live, rested, soon } from "./live.js";
import { Pager } from "./pager.js";
import { Table } from "./table.js";

const PAGE = 50;
/** The list is renewed by events; this finds what they left out. */
const LOOK_MS = 60_000;
const STATES = ["Pending", "Queued", "Running", "Completed", "Failed", "Stopped"];
const TYPES = ["batch", "service", "ops", "daemon"];
const ENDED = ["Completed", "Failed", "Stopped"];

/** Whether a job never changes again. */
export function hasEnded(job) {
  return ENDED.includes(job.State.StateType);
}

/** How long a job took, or has taken until now. */
export function taken(job) {
  const end = hasEnded(job) ? fromNanos(job.ModifyTime) : Date.now();
  return Math.max(0, end - fromNanos(job.CreateTime));
}

function open(main, { query, signal }) {
  const asked = {
    text: query.get("text") ?? "",
    state: query.get("state") ?? "",
    type: query.get("type") ?? "",
    labels: query.get("labels") ?? "",
  };
  let number = Number(query.get("page") ?? 0) || 0;
  let pager = null;
  const shown = new Set();
  const table = jobTable();
  const said = h("p", { class: "hint", role: "status" });
  const [newer, older] = [
    ["← Newer", -1],
    ["Older →", 1],
  ].map(([text, step]) => h("button", { type: "button", onclick: () => turn(step) }, text));
  const place = h("span", { class: "muted" });

  put(
    main,
    h("div", { class: "head" }, h("h1", {}, "Jobs"), link("#/jobs/new", "Submit a job", { class: "button primary" })),
    filters(
      asked,
      () => {
        number = 0;
        remember();
        reload();
      },
      signal,
    ),
    said,
    table.element,
    h("div", { class: "row pages" }, newer, place, older),
  );

  function remember() {
    const kept = new URLSearchParams(
      Object.entries({ ...asked, page: number || "" }).filter(([, value]) => value !== ""),
    );
    history.replaceState(null, "", kept.size ? `#/jobs?${kept}` : "#/jobs");
  }

  async function turn(step) {
    number += step;
    remember();
    await show().catch((error) => put(said, error.message));
    table.element.scrollIntoView({ block: "nearest" });
  }

  async function show() {
    place.textContent = "…";
    const { items, more } = await pager.page(number);
    if (signal.aborted) return;
    shown.clear();
    for (const job of items) shown.add(job.ID);
    table.empty = Object.values(asked).some(Boolean) || number > 0 ? empty("No job is like that.") : noJobs();
    table.update(items);
    [newer.disabled, older.disabled] = [number === 0, !more];
    place.textContent = number === 0 && !more ? "" : `${number * PAGE + 1}–${number * PAGE + items.length}`;
  }

  const reload = every(
    LOOK_MS,
    async () => {
      pager = new Pager(
        async (token, limit) => {
          const page = await get(
            at("orchestrator", "jobs"),
            { limit, next_token: token, reverse: true, labels: asked.labels },
            signal,
          );
          return { items: page.Items ?? [], next: page.NextToken };
        },
        PAGE,
        sieve(asked),
      );
      await show();
      put(said);
    },
    signal,
    (error) => {
      put(said, trouble(error));
      if (!shown.size) put(place);
    },
  );

  const changed = new Set();
  const renew = soon(
    1_000,
    async () => {
      const ids = [...changed].filter((id) => shown.has(id)).slice(0, PAGE);
      changed.clear();
      const answers = await Promise.allSettled(ids.map((id) => get(at("orchestrator", "jobs", id), {}, signal)));
      for (const { value } of answers) if (value) pager?.renew(value.Job, (job) => job.ID);
      if (!signal.aborted) await show();
    },
    signal,
  );
  const reloadSoon = soon(500, reload, signal);
  live.addEventListener(
    "job",
    ({ detail }) => {
      const isNew = detail.Event.Topic === "Submitted" && number === 0;
      if (!shown.has(detail.JobID) && !isNew) return;
      // The first page is one request; deeper or sifted, the rows that changed are fewer.
      if (number === 0 && (isNew || !sieve(asked))) return reloadSoon();
      changed.add(detail.JobID);
      renew();
    },
    { signal },
  );
}

/** What the API does not filter by. */
function sieve({ text, state, type }) {
  if (!text && !state && !type) return null;
  const part = text.toLowerCase();
  const named = (job) => !part || job.Name.toLowerCase().includes(part) || job.ID.startsWith(part);
  const inState = ({ State: { StateType } }) =>
    !state || (state === "active" ? !ENDED.includes(StateType) : StateType === state);
  return (job) => named(job) && inState(job) && (!type || job.Type === type);
}

function filters(asked, changed, signal) {
  const later = rested(300, changed, signal);
  const text = (name, label, placeholder) =>
    h(
      "label",
      {},
      label,
      h("input", {
        type: "search",
        value: asked[name],
        placeholder,
        spellcheck: "false",
        oninput: (event) => {
          asked[name] = event.target.value.trim();
          later();
        },
      }),
    );
  const choice = (name, label, options) =>
    h(
      "label",
      {},
      label,
      h(
        "select",
        {
          onchange: (event) => {
            asked[name] = event.target.value;
            changed();
          },
        },
        options.map(([value, shown]) => h("option", { value, selected: asked[name] === value }, shown)),
      ),
    );
  return h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter jobs", onsubmit: (event) => event.preventDefault() },
    text("text", "Name or id", "weather"),
    choice("state", "State", [["", "all"], ["active", "not ended"], ...STATES.map((state) => [state, state])]),
    choice("type", "Type", [["", "all"], ...TYPES.map((type) => [type, type])]),
    text("labels", "Labels", "team=data,tier!=test"),
  );
}

function jobTable() {
  const labels = (job) =>
    Object.entries(job.Labels ?? {}).map(([key, value]) => h("span", { class: "tag" }, `${key}=${value}`));
  return new Table({
    caption: "Jobs of this node",
    key: (job) => job.ID,
    columns: [
      { head: "Name", cell: (job) => link(`#/jobs/${job.ID}`, job.Name === job.ID ? short(job.ID) : job.Name) },
      {
        head: "State",
        cell: (job) => [
          pill(job.State.StateType),
          job.State.Message ? h("span", { class: "why", title: job.State.Message }, job.State.Message) : null,
        ],
      },
      { head: "Type", cell: (job) => (job.Count > 1 ? `${job.Type} × ${job.Count}` : job.Type) },
      { head: "Submitted", cell: (job) => moment(fromNanos(job.CreateTime)) },
      { head: "Took", kind: "number", cell: (job) => (hasEnded(job) ? duration(taken(job)) : "–") },
      { head: "Labels", cell: labels },
      { head: "Id", cell: (job) => h("span", { class: "mono", title: job.ID }, short(job.ID)) },
    ],
  });
}

function noJobs() {
  return empty(
    "No jobs yet.",
    h("p", {}, link("#/jobs/new?template=hello", "Run the smallest one"), ", or from a terminal:"),
    h("p", {}, h("code", {}, "bacnode submit examples/hello/job.yaml")),
  );
}

export default { title: "Jobs", open };
