// Walks through the web console as its users do, in a browser, against real nodes that run real jobs.
//
//   node walk.mjs --api URL --guarded URL --token TOKEN --reader TOKEN --victim NAME --examples DIR --shots DIR
//
// `--api` is a node that asks for no token, `--guarded` one of the same network that does; TOKEN may do everything, the
// reader's may `read:job`. Where nodes must die the walk prints `! kill` (the one named `--victim`), or `! restart` (that of
// `--api`), and reads a line: `ok`, with the API's new URL after a restart. One line for each check; 0 if all are well.

import fs from "node:fs";
import path from "node:path";
import { crowd, framesWhileDragging } from "./crowd.mjs";
import { Door, PICTURE, Stage, argumentsOf, ask, faults, tar } from "./stage.mjs";

const given = argumentsOf(process.argv.slice(2), ["api", "guarded", "token", "reader", "victim", "examples", "shots"]);
const HOSTILE = "<img src=x onerror=alert(1)>";
/** What a page may take until something is seen. */
const PAINT_MS = 300;
const FRAMES_MIN = 30;

const door = new Door(given.api);
await door.open();
const stage = await Stage.open(given.shots);
const page = await stage.window(door.url);
const check = (name, work) => stage.check(name, work);
const example = (name) => path.join(given.examples, name);

/** A request beside the page, as a program makes it. */
async function call(method, at, body, type = "application/json") {
  const answer = await fetch(`${door.url}/api/v1/${at}`, { method, body, headers: { "content-type": type } });
  if (!answer.ok) throw new Error(`${method} ${at}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const submit = async (job) => (await call("PUT", "orchestrator/jobs", JSON.stringify({ Job: job }))).JobID;
const add = async (bytes, type = "application/octet-stream") =>
  (await call("POST", "network/content", bytes, type)).Cid;
const visit = (route) => page.goto(`${door.url}/#/${route}`);
const state = (wanted, within = page) => within.locator(".head .pill", { hasText: wanted }).waitFor();

/** A job that runs a misbehaving program of the examples. */
function trial(module, name, parameters, more = {}) {
  const inputs = [{ Source: { Type: "ipfs", Params: { CID: module } }, Target: "/main.wasm" }, ...(more.inputs ?? [])];
  return {
    Name: name,
    Type: "batch",
    Labels: more.labels ?? {},
    Tasks: [
      {
        Name: "main",
        Engine: { Type: "wasm", Params: { EntryModule: "/main.wasm", Parameters: parameters } },
        InputSources: inputs,
        Resources: { CPU: "100m", Memory: "64Mb" },
      },
    ],
  };
}

const module = await add(fs.readFileSync(example("trials/trial.wasm")));

await check("the page comes with a strict policy, and is not sent twice", async () => {
  const answer = await fetch(`${door.url}/`);
  const policy = answer.headers.get("content-security-policy") ?? "";
  for (const part of [
    "default-src 'none'",
    "script-src 'self'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ]) {
    if (!policy.includes(part)) throw new Error(`the policy lacks ${part}: ${policy}`);
  }
  if (answer.headers.get("x-content-type-options") !== "nosniff") throw new Error("no nosniff");
  const again = await fetch(`${door.url}/`, { headers: { "if-none-match": answer.headers.get("etag") ?? "" } });
  if (again.status !== 304) throw new Error(`sent again: ${again.status}`);
});

await check(`something is seen within ${PAINT_MS} ms`, async () => {
  const times = [];
  for (let round = 0; round < 5; round += 1) {
    await page.goto("about:blank");
    await visit("network");
    await page.locator("canvas.map").waitFor();
    const paint = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
    times.push(await page.waitForFunction(paint).then((handle) => handle.jsonValue()));
  }
  const median = times.sort((left, right) => left - right)[2];
  if (median > PAINT_MS) throw new Error(`${Math.round(median)} ms`);
  return `${Math.round(median)} ms`;
});

await check("the network shows its nodes, and is live", async () => {
  await page.getByRole("table", { name: "Peers" }).getByText(given.victim).waitFor();
  await page.locator("#link.open").waitFor();
  await page.locator(".figures").waitFor();
  await stage.shot(page, "network");
});

await check("keys go where the eye goes", async () => {
  await visit("jobs");
  await page.getByRole("link", { name: "Nodes", exact: true }).press("Enter");
  await page.waitForFunction(
    () => document.activeElement?.tagName === "H1" && document.activeElement.textContent === "Nodes",
  );
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  if (outline === "none") throw new Error("the focus cannot be seen");
});

await check("a job by filling in the form", async () => {
  await visit("jobs/new");
  await page.getByRole("button", { name: "Fill in a form" }).click();
  await page.getByLabel("Name", { exact: true }).fill("by-form");
  const chosen = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "Choose a .wasm" }).click();
  await (await chosen).setFiles(example("hello/hello.wasm"));
  await page.getByText("The spec is right.").waitFor();
  await stage.shot(page, "form");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await page.getByRole("heading", { name: "by-form" }).waitFor();
  await state("Completed");
});

await check("a wrong spec is told so as it is written", async () => {
  await visit("jobs/new");
  const text = page.getByLabel("Spec, as YAML or JSON");
  await text.fill("Name: wrong\nType: batch\nTasks:\n  - Name: main\n    Engine: {Type: custom, Params: {}}\n");
  await page.getByText("`custom` is not an engine").waitFor();
  await page.locator(".gutter .wrong", { hasText: "5" }).waitFor();
  await stage.shot(page, "wrong");
  await text.fill("Name: [unclosed\nType");
  await page.getByText("not valid YAML").waitFor();
  // Grows to billions of words where nobody counts.
  const bomb = [
    "a: &a [x,x,x,x,x,x,x,x,x]",
    ..."bcdefghi"
      .split("")
      .map((name, index) => `${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[index]}`).join()}]`),
  ];
  await text.fill(bomb.join("\n"));
  await page.locator(".verdict .wrong, .verdict .warning").first().waitFor();
  await call("GET", "agent/alive");
});

await check("a template, its table, and a chart that is text", async () => {
  await visit("jobs/new");
  await page.getByRole("button", { name: /^Weather/ }).click();
  await page.getByText("The spec is right.").waitFor();
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await state("Completed");
  await page.getByRole("button", { name: /^outputs/ }).click();
  await page.getByRole("button", { name: "monthly.csv", exact: true }).click();
  await page.locator(".sheet td", { hasText: "Seattle" }).first().waitFor();
  await stage.shot(page, "table");
  await page.getByRole("button", { name: "monthly.svg", exact: true }).click();
  await page.locator("pre.file", { hasText: "<svg" }).waitFor();
  await page.locator(".timeline svg .end.ok").first().waitFor();
  for (const topic of ["Asked", "Bid", "Awarded", "Running", "Accepted", "Completed"]) {
    await page.locator(".story .tag", { hasText: topic }).first().waitFor();
  }
});

await check("a result that is a picture", async () => {
  const picture = { Source: { Type: "inline", Params: { URL: PICTURE } }, Target: "/in/picture.png" };
  await visit(`jobs/${await submit(trial(module, "picture", ["cat", "/in/picture.png"], { inputs: [picture] }))}`);
  await state("Completed");
  await page.locator("img.preview").waitFor();
  await page.waitForFunction(() => document.querySelector("img.preview").naturalWidth === 48);
  await stage.shot(page, "picture");
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download stdout" }).click();
  if (!(await (await saved).path())) throw new Error("nothing was saved");
});

await check("logs that follow, and a stop", async () => {
  await visit(`jobs/${await submit(trial(module, "sleeper", ["sleep", "3000000"]))}`);
  await state("Running");
  await page.locator(".log", { hasText: "sleeping" }).waitFor();
  await stage.shot(page, "running");
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Stop it" }).click();
  await state("Stopped");
});

await check("once more", async () => {
  await visit("jobs/by-form");
  await page.getByRole("button", { name: "Run again" }).click();
  await page.waitForURL(/#\/jobs\/j-/);
  await state("Completed");
});

await check("the list of jobs: filtered, and live", async () => {
  await visit("jobs?state=Stopped");
  await page.getByRole("cell", { name: "sleeper" }).first().waitFor();
  if (await page.getByRole("cell", { name: "by-form" }).count()) throw new Error("the filter lets others through");
  await visit("jobs");
  await page.getByRole("cell", { name: "by-form" }).first().waitFor();
  await submit(trial(module, "just-now", ["nothing"]));
  await page.getByRole("cell", { name: "just-now" }).first().waitFor();
  await stage.shot(page, "jobs");
});

await check("hostile names, labels, output and files are text", async () => {
  const said = {
    Source: {
      Type: "inline",
      Params: { URL: `data:,${encodeURIComponent(`${HOSTILE}\n<script>alert(2)</script>\n\x1b[31mred\x1b[0m\n`)}` },
    },
    Target: "/in/said",
  };
  const id = await submit(
    trial(module, HOSTILE, ["cat", "/in/said"], {
      inputs: [said],
      labels: { "x-label": '"><script>alert(3)</script>' },
    }),
  );
  const folder = await add(
    tar({
      "<img src=x onerror=alert(4)>.txt": "<b>bold</b>",
      "a.csv": `${HOSTILE},"<script>"\n1,2\n`,
      "fake.png": "<svg onload=alert(5)>",
    }),
    "application/x-tar",
  );
  await visit(`jobs/${id}`);
  await page.getByRole("heading", { name: HOSTILE }).waitFor();
  await state("Completed");
  await page.locator(".log div", { hasText: HOSTILE }).waitFor();
  await page.locator(".log div").getByText("red", { exact: true }).waitFor();
  await stage.shot(page, "hostile");
  await visit("jobs");
  await page.getByRole("cell", { name: HOSTILE }).first().waitFor();
  await visit(`content/${folder}`);
  for (const name of ["<img src=x onerror=alert(4)>.txt", "a.csv", "fake.png"]) {
    await page.getByRole("button", { name, exact: true }).click();
    await page.locator(".pane h3", { hasText: name }).waitFor();
    await page.locator(".pane pre.file, .pane .sheet").first().waitFor();
  }
  await visit("network");
  await page.getByRole("table", { name: "Peers" }).waitFor();
  for (const route of ["nodes", `jobs/new?from=${id}`]) {
    await visit(route);
    await page.waitForTimeout(500);
    const injected = await page.locator("main img[src='x'], main script, main b, main svg[onload]").count();
    if (injected) throw new Error(`${injected} elements came in at ${route}`);
  }
});

await check("content: added, looked into, let go of", async () => {
  await visit("content");
  const chosen = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "Choose files" }).click();
  await (await chosen).setFiles(example("weather/weather.csv"));
  await page.getByText("weather.csv is added").waitFor();
  await page.locator(".usage").waitFor();
  await stage.shot(page, "content");
  const cid = await add("just a few words");
  await page.getByLabel("A CID, wherever it is").fill(cid);
  await page.getByRole("button", { name: "Look into it" }).click();
  await page.locator("pre.file", { hasText: "just a few words" }).waitFor();
  await page.getByText(/node has it|nodes have it/).waitFor();
  await visit("content");
  const row = page.getByRole("row").filter({ has: page.locator(`a[title="${cid}"]`) });
  await row.getByRole("button", { name: /^Unpin/ }).click();
  await row.getByRole("button", { name: /^Unpin/ }).waitFor({ state: "detached" });
});

await check("nodes, one node, this node", async () => {
  await visit("nodes");
  await page.getByRole("table", { name: "Nodes" }).getByText(given.victim).waitFor();
  await stage.shot(page, "nodes");
  await page.getByRole("link", { name: given.victim }).click();
  await page.getByRole("heading", { name: given.victim }).waitFor();
  await page.getByText("CPU in use").waitFor();
  await stage.shot(page, "node");
  await visit("self");
  await page.getByText("bacnode config show").waitFor();
  await page.locator("td .mono").first().waitFor();
  await stage.shot(page, "self");
});

await check("nobody looks, nothing is asked", async () => {
  await visit("network");
  await page.locator("#link.open").waitFor();
  const hide = (hidden) =>
    page.evaluate((is) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => is });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await hide(true);
  await page.locator("#link.paused").waitFor();
  const before = stage.requests;
  await page.waitForTimeout(7_000);
  if (stage.requests !== before) throw new Error(`${stage.requests - before} requests`);
  await hide(false);
  await page.locator("#link.open").waitFor();
});

await check(`a thousand peers and ten thousand jobs, at ${FRAMES_MIN} frames a second or more`, async () => {
  const window = await stage.window(door.url);
  await crowd(window);
  await window.goto(`${door.url}/#/network`);
  await window.getByText("1,000 known").waitFor();
  const far = await framesWhileDragging(window, 3);
  await stage.shot(window, "crowd");
  for (let step = 0; step < 8; step += 1) await window.getByRole("button", { name: "Zoom in" }).click();
  const near = await framesWhileDragging(window, 3);
  await window.goto(`${door.url}/#/jobs`);
  await window.getByRole("button", { name: "Older" }).click();
  await window.getByText("51–100").waitFor();
  await window.getByLabel("Name or id").fill("job-7777");
  await window.getByRole("cell", { name: "job-7777", exact: true }).waitFor();
  await window.context().close();
  if (Math.min(far, near) < FRAMES_MIN) throw new Error(`${Math.round(far)} from afar, ${Math.round(near)} near`);
  return `${Math.round(far)} from afar, ${Math.round(near)} near`;
});

await check("light, dark and a phone, without serious faults", async () => {
  const routes = ["network", "jobs", "jobs/new?template=hello", "jobs/by-form", "nodes", "content", "self"];
  const found = [];
  const views = [
    ["light", { colorScheme: "light" }],
    ["dark", { colorScheme: "dark" }],
    ["phone", { colorScheme: "light", viewport: { width: 360, height: 740 }, hasTouch: true }],
  ];
  for (const [name, options] of views) {
    // Axe comes as a script of its own, which the policy keeps out.
    const window = await stage.window(door.url, { ...options, bypassCSP: true });
    for (const route of routes) {
      await window.goto(`${door.url}/#/${route}`);
      await window.locator("h1").waitFor();
      await window.waitForTimeout(1_200);
      for (const fault of await faults(window)) found.push(`${name} ${route}: ${fault}`);
      const wide = await window.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) found.push(`${name} ${route}: wider than the window by ${wide}`);
      await stage.shot(window, `${name}-${route.replace(/\W+/g, "-")}`);
    }
    await window.context().close();
  }
  if (found.length) throw new Error(found.join("; "));
});

await check("a token is asked for, and only the right one will do", async () => {
  const guarded = new Door(given.guarded);
  await guarded.open();
  const window = await stage.window(guarded.url);
  const use = async (token) => {
    await window.getByRole("textbox", { name: "Token" }).fill(token);
    await window.getByRole("button", { name: "Use it" }).click();
  };
  await window.goto(`${guarded.url}/#/jobs`);
  await window.getByRole("heading", { name: "This node asks for a token" }).waitFor();
  await stage.shot(window, "token");
  await use("bnt_0000");
  await window.getByText("the token is not known here").first().waitFor();
  await use(given.token);
  await window.locator("#link.open").waitFor();
  await window.goto(`${guarded.url}/#/jobs/new?template=hello`);
  await window.getByText("The spec is right.").waitFor();
  await window.getByRole("button", { name: "Submit", exact: true }).click();
  await state("Completed", window);
  // Over a WebSocket, which takes no header.
  await window.locator(".log", { hasText: /hello/i }).waitFor();
  await window.getByRole("button", { name: "Forget the token" }).click();
  await window.getByRole("heading", { name: "This node asks for a token" }).waitFor();
  await use(given.reader);
  await state("Completed", window);
  await window.goto(`${guarded.url}/#/network`);
  await window.getByText("it needs `read:node`").first().waitFor();
  await window.context().close();
  guarded.shut();
});

await check("a node that is killed leaves", async () => {
  await visit("network");
  const row = page.getByRole("row").filter({ hasText: given.victim });
  await row.waitFor();
  await ask("kill");
  await page.waitForFunction(
    (name) => {
      const rows = [...document.querySelectorAll("tbody tr")].filter((line) => line.textContent.includes(name));
      return rows.every((line) => line.textContent.includes("not connected"));
    },
    given.victim,
    { timeout: 60_000 },
  );
  await stage.shot(page, "left");
});

await check("the node goes and comes back", async () => {
  await visit("jobs");
  await page.locator("#link.open").waitFor();
  await page.getByRole("cell", { name: "by-form" }).first().waitFor();
  door.shut();
  await page.locator("#link.gone").waitFor();
  // What was known stays readable.
  await page.getByRole("cell", { name: "by-form" }).first().waitFor();
  await stage.shot(page, "gone");
  door.target = (await ask("restart")) || door.target;
  await door.open();
  await page.locator("#link.open").waitFor();
  await submit(trial(module, "after-all", ["nothing"]));
  await page.getByRole("cell", { name: "after-all" }).first().waitFor();
});

await stage.browser.close();
door.shut();
console.log(stage.failed ? `${stage.failed} checks failed` : "the console is as it should be");
process.exit(stage.failed ? 1 : 0);
