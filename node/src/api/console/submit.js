// Submitting a job: from a template, by a form, or as text.

import { at, get, send } from "./api.js";
import { Editor } from "./editor.js";
import { action, h, note, put, trouble } from "./element.js";
import { Form } from "./form.js";
import { go } from "./router.js";
import { specOf } from "./spec.js";
import { TEMPLATES } from "./templates.js";
import { addFile } from "./upload.js";
import { write } from "./yaml.js";

async function open(main, { query, signal }) {
  const submit = h("button", { type: "button", class: "primary", onclick: action(hand) }, "Submit");
  const force = h("input", { type: "checkbox" });
  const editor = new Editor(signal, (right) => submit.classList.toggle("unsure", !right));
  const form = new Form((text) => (editor.value = text));
  const said = h("div", {});
  const formPanel = h("div", { class: "panel", id: "by-form", hidden: true }, form.element);
  const byForm = h(
    "button",
    {
      type: "button",
      "aria-expanded": "false",
      "aria-controls": "by-form",
      onclick: () => {
        formPanel.hidden = !formPanel.hidden;
        byForm.setAttribute("aria-expanded", String(!formPanel.hidden));
        columns.className = formPanel.hidden ? "columns single" : "columns even";
        if (!formPanel.hidden) editor.value = form.text;
      },
    },
    "Fill in a form",
  );
  const columns = h(
    "div",
    { class: "columns single" },
    formPanel,
    h(
      "div",
      { class: "panel" },
      editor.element,
      said,
      h(
        "div",
        { class: "row" },
        submit,
        h("label", { class: "check" }, force, "also if nothing is different (services, daemons)"),
      ),
    ),
  );

  put(
    main,
    h("div", { class: "head" }, h("h1", {}, "Submit a job"), byForm),
    h(
      "section",
      { "aria-labelledby": "templates" },
      h("h2", { id: "templates" }, "Start from"),
      h("ul", { class: "cards" }, TEMPLATES.map(card)),
    ),
    columns,
  );

  function card(template) {
    const use = action(() => fill(template));
    const brings = template.files.length ? ` Adds ${template.files.join(", ")} to this node.` : "";
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", onclick: use },
        h("strong", {}, template.name),
        h("span", { class: "tag" }, template.engine),
        h("span", { class: "hint" }, template.about, brings),
      ),
    );
  }

  async function fill(template) {
    const cids = {};
    for (const name of template.files) {
      const file = await (await send("GET", `/console/examples/${name}`, { signal })).blob();
      cids[name] = (await addFile(file)).Cid;
    }
    editor.value = template.text(cids);
    editor.text.scrollIntoView({ block: "nearest" });
  }

  async function hand() {
    put(said);
    try {
      const answer = await send("PUT", at("orchestrator", "jobs"), {
        json: { Job: editor.value, Force: force.checked },
      });
      const { JobID, Warnings = [] } = await answer.json();
      for (const warning of Warnings) note(warning);
      go(`#/jobs/${JobID}`);
    } catch (error) {
      if (error.status === 400) await editor.judge();
      put(said, trouble(error));
    }
  }

  const template = TEMPLATES.find(({ id }) => id === query.get("template"));
  if (template) await fill(template);
  if (query.get("from")) {
    const { Job: job } = await get(at("orchestrator", "jobs", query.get("from")), {}, signal);
    editor.value = write(specOf(job));
  }
}

export default { title: "Submit a job", open };
