// One job: its story against time, what it left, what it prints, its attempts.

import { bytes, duration, fromNanos, short } from "./amount.js";
import { at, download, get, put as change, send } from "./api.js";
import { Browser, fileName } from "./browser.js";
import {
  action,
  confirmed,
  copyable,
  empty,
  facts,
  h,
  link,
  moment,
  note,
  pill,
  put,
  show,
  trouble,
} from "./element.js";
import { hasEnded, taken } from "./jobs.js";
import { every, live, soon } from "./live.js";
import { Logs } from "./logs.js";
import { go } from "./router.js";
import { specOf } from "./spec.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";
import { write } from "./yaml.js";

/** Its own jobs tell; of another node's one asks. */
const LOOK_MS = 5_000;
const STORY_MAX = 300;
const ATTEMPTS_MAX = 200;
const EXECUTION_STATES = {
  3: "Awarded",
  5: "Accepted",
  6: "Running",
  7: "Publishing",
  8: "Refused",
  9: "Completed",
  10: "Failed",
  11: "Cancelled",
};

const stateOf = (execution) => EXECUTION_STATES[execution.ComputeState.StateType] ?? "Unknown";

function open(main, { parts: [id], signal }) {
  const timeline = new Timeline(signal);
  const logs = new Logs(signal);
  const name = h("h1", { class: "named" }, "Job");
  const beside = h("div", { class: "along" });
  const about = h("div", {});
  const attempts = attemptTable(() => names);
  const more = h("p", { class: "hint" });
  const story = h("ol", { class: "story" });
  const results = h("div", {});
  const spec = h("pre", { class: "file", tabindex: "0" });
  let names = new Map();
  let shownResult = "";
  let seen = "";
  let followed = "";

  const part = (id, heading, content) =>
    h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, heading), content);
  put(
    main,
    h("div", { class: "head" }, name, beside),
    about,
    part("timeline", "Timeline", timeline.element),
    part("results", "Result", results),
    part("logs", "Logs", logs.element),
    part("attempts", "Executions", [attempts.element, more]),
    part("told", "Story", story),
    h("details", { class: "panel" }, h("summary", {}, "Spec"), spec),
  );

  async function look() {
    const answer = await get(at("orchestrator", "jobs", id), { include: "executions,history" }, signal);
    const { Job: job } = answer;
    const executions = answer.Executions?.Items ?? [];
    const history = answer.History?.Items ?? [];
    if (signal.aborted) return;
    timeline.update(history, hasEnded(job));
    const now = JSON.stringify(answer);
    if (now === seen) return;
    seen = now;
    names = new Map(history.map(({ Event: { Details } }) => [Details?.NodeID, Details?.NodeName]));
    document.title = `${job.Name} · bacnode`;
    // The buttons stay where they are while nothing is different about them.
    put(name, job.Name);
    show(beside, [job.ID, job.State.StateType], () => actions(job));
    put(about, summary(job, executions));
    attempts.update(executions, ATTEMPTS_MAX);
    put(more, executions.length > ATTEMPTS_MAX ? `The first ${ATTEMPTS_MAX} of ${executions.length}.` : "");
    logs.offer(executions, (node) => names.get(node) || short(node));
    put(
      story,
      history.slice(-STORY_MAX).map((item) => line(item, history[0])),
    );
    put(spec, write(specOf(job)));
    showResults(job, executions);
    if (followed !== job.ID) {
      followed = job.ID;
      logs.open(job.ID);
    }
  }

  function showResults(job, executions) {
    const done = executions
      .filter((execution) => stateOf(execution) === "Completed" && execution.PublishedResult?.Params?.CID)
      .sort((left, right) => left.PartitionIndex - right.PartitionIndex);
    const failed = executions.filter(
      (execution) => execution.PublishedResult?.Params?.CID && !done.includes(execution),
    );
    const all = [...done, ...failed];
    const key = all.map(({ ID }) => ID).join();
    if (key === shownResult && results.firstChild) return;
    shownResult = key;
    if (!all.length)
      return put(
        results,
        empty(
          hasEnded(job) ? "It left nothing." : "No result yet.",
          hasEnded(job) ? "The story below says why." : "It appears here when a run has ended.",
        ),
      );
    const shown = h("div", {});
    const choose = (execution) => {
      const { CID } = execution.PublishedResult.Params;
      const name = all.length > 1 ? `run ${execution.PartitionIndex}` : "result";
      const save = action(() => download(CID, "", `${fileName(`${job.Name}-${execution.PartitionIndex}`)}.tar`));
      put(
        shown,
        h(
          "div",
          { class: "row tools" },
          copyable(CID, short(CID)),
          link(`#/content/${encodeURIComponent(CID)}`, "Open by its CID"),
          h("button", { type: "button", class: "small", onclick: save }, "Download all"),
        ),
        new Browser(CID, name, signal).element,
      );
    };
    const choice =
      all.length > 1
        ? h(
            "label",
            { class: "inline" },
            "Of ",
            h(
              "select",
              { onchange: (event) => choose(all[event.target.selectedIndex]) },
              all.map((execution) =>
                h(
                  "option",
                  {},
                  `run ${execution.PartitionIndex}, ${stateOf(execution).toLowerCase()} on ${names.get(execution.NodeID) || short(execution.NodeID)}`,
                ),
              ),
            ),
          )
        : null;
    put(results, choice, shown);
    choose(all[0]);
  }

  const lookSoon = soon(150, () => refresh(), signal);
  const refresh = every(LOOK_MS, look, signal, (error) => {
    if (!seen) put(about, trouble(error));
  });
  live.addEventListener(
    "job",
    ({ detail }) => {
      if (detail.JobID === (followed || id)) lookSoon();
    },
    { signal },
  );

  function actions(job) {
    const stop = action(async () => {
      if (!(await confirmed(`Stop ${job.Name}? What runs of it is ended, and it does not start again.`, "Stop it")))
        return;
      await send("DELETE", at("orchestrator", "jobs", job.ID), { query: { reason: "from the console" } });
      note("It is told to stop.");
      lookSoon();
    });
    const rerun = action(async () => {
      const { JobID } = await change(at("orchestrator", "jobs", job.ID, "rerun"), {});
      note("Submitted once more.");
      if (JobID === job.ID) lookSoon();
      else go(`#/jobs/${JobID}`);
    });
    return [
      pill(job.State.StateType),
      h(
        "div",
        { class: "row actions" },
        hasEnded(job) ? null : h("button", { type: "button", class: "danger", onclick: stop }, "Stop"),
        h("button", { type: "button", onclick: rerun }, "Run again"),
        link(`#/jobs/new?from=${encodeURIComponent(job.ID)}`, "Change and submit", { class: "button" }),
      ),
    ];
  }
}

function summary(job, executions) {
  const used = (name) => executions.reduce((sum, { Usage }) => sum + (Usage?.[name] ?? 0), 0);
  const labels = Object.entries(job.Labels ?? {});
  return [
    job.State.Message ? h("p", { class: "why" }, job.State.Message) : null,
    facts([
      ["Id", copyable(job.ID, short(job.ID))],
      [
        "Type",
        `${job.Type}${job.Count > 1 ? ` × ${job.Count}` : ""}${job.Version > 1 ? `, version ${job.Version}` : ""}`,
      ],
      ["Engine", job.Tasks?.[0]?.Engine?.Type],
      ["Submitted", moment(fromNanos(job.CreateTime))],
      [hasEnded(job) ? "Took" : "For", duration(taken(job))],
      ["CPU used", used("CPUMillis") ? duration(used("CPUMillis")) : ""],
      [
        "Inputs moved",
        used("BytesIn") + used("BytesHeld") ? `${bytes(used("BytesIn"))}, ${bytes(used("BytesHeld"))} lay there` : "",
      ],
      ["Namespace", job.Namespace === "default" ? "" : job.Namespace],
      ["Labels", labels.length ? labels.map(([key, value]) => h("span", { class: "tag" }, `${key}=${value}`)) : ""],
    ]),
  ];
}

function line({ Event, Time }, first) {
  return h(
    "li",
    { class: Event.Topic.toLowerCase() },
    h("span", { class: "muted at", title: Time }, `+${duration(Date.parse(Time) - Date.parse(first.Time))}`),
    h("span", { class: "tag" }, Event.Topic),
    h("span", {}, Event.Message),
  );
}

/** The program's own; where it did not end by itself there is none. */
function exitCode({ ComputeState, RunOutput: { ExitCode: code } }) {
  if (code > 0) return h("strong", { class: "wrong" }, code);
  return ComputeState.StateType === 9 ? code : "–";
}

function attemptTable(names) {
  const usage = ({ Usage = {} }, name, shown) => (Usage[name] === undefined ? "–" : shown(Usage[name]));
  return new Table({
    caption: "Executions",
    key: (execution) => execution.ID,
    empty: empty("Nobody runs it yet."),
    columns: [
      { head: "Run", kind: "number", cell: (execution) => execution.PartitionIndex },
      {
        head: "Node",
        cell: ({ NodeID }) => link(`#/nodes/${encodeURIComponent(NodeID)}`, names().get(NodeID) || short(NodeID)),
      },
      {
        head: "State",
        cell: (execution) => [
          pill(stateOf(execution)),
          h("span", { class: "why", title: execution.ComputeState.Message }, execution.ComputeState.Message),
        ],
      },
      { head: "Exit code", kind: "number", cell: exitCode },
      { head: "Ran", kind: "number", cell: (execution) => usage(execution, "WallMillis", duration) },
      { head: "CPU", kind: "number", cell: (execution) => usage(execution, "CPUMillis", duration) },
      { head: "Memory", kind: "number", cell: (execution) => usage(execution, "MemoryPeak", bytes) },
      { head: "Left", kind: "number", cell: (execution) => usage(execution, "BytesOut", bytes) },
      {
        head: "Answers at",
        cell: ({ Ports = [] }) => Ports.map(({ Name, Host }) => `${Name}: ${Host}`).join(", ") || "–",
      },
    ],
  });
}

export default { title: "Job", open };
