// A crowd that no test can afford: a thousand peers and ten thousand jobs, made up between the page and the node.

const PEERS = 1_000;
const LINKS = 300;
const JOBS = 10_000;
const STATES = ["Completed", "Failed", "Running", "Stopped"];

const id = (index) => `12D3KooW${String((index * 7_919) % 100_003).padStart(44, "x")}`;

function adverts() {
  const total = { CPU: 4, Memory: 8e9, Disk: 1e11, GPU: 0 };
  return Array.from({ length: PEERS }, (_, index) => ({
    PeerId: id(index),
    Name: `peer-${index}`,
    Sequence: 1,
    Issued: new Date().toISOString(),
    TTLSeconds: 60,
    Load: index % 100,
    Engines: index % 3 ? ["wasm"] : ["wasm", "docker"],
    Total: total,
  }));
}

function links() {
  return Array.from({ length: LINKS }, (_, index) => ({
    PeerId: id(index),
    Name: `peer-${index}`,
    Address: "/ip4/192.0.2.1/tcp/1235",
    Direction: "out",
    RttMs: (index * index) % 300,
    Agent: "bacnode",
  }));
}

function jobs(query) {
  const from = Number(query.get("next_token") || 0);
  const to = Math.min(JOBS, from + Number(query.get("limit") || 100));
  const items = Array.from({ length: to - from }, (_, offset) => {
    const index = from + offset;
    const created = (Date.now() - index * 10_000) * 1e6;
    return {
      ID: `j-crowd000-${String(index).padStart(24, "0")}`,
      Name: `job-${index}`,
      Namespace: "default",
      Type: "batch",
      Count: 1,
      Labels: {},
      State: { StateType: STATES[index % STATES.length], Message: "" },
      CreateTime: created,
      ModifyTime: created + 5e8,
    };
  });
  return { Items: items, NextToken: to < JOBS ? String(to) : "" };
}

/** Lets a window see the crowd. */
export async function crowd(page) {
  const answers = {
    "network/view": adverts,
    "network/peers": () => ({ Peers: links(), Warnings: [] }),
    "orchestrator/jobs": jobs,
  };
  for (const [path, make] of Object.entries(answers)) {
    await page.route(
      (url) => url.pathname === `/api/v1/${path}`,
      (route) => route.fulfill({ json: make(new URL(route.request().url()).searchParams) }),
    );
  }
}

/** Frames in a second while somebody drags the map. */
export async function framesWhileDragging(page, seconds) {
  const box = await page.locator("canvas.map").boundingBox();
  const counted = page.evaluate(
    (ms) =>
      new Promise((done) => {
        const start = performance.now();
        let frames = 0;
        const step = (now) => {
          frames += 1;
          if (now - start < ms) requestAnimationFrame(step);
          else done((frames * 1000) / (now - start));
        };
        requestAnimationFrame(step);
      }),
    seconds * 1000,
  );
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  const end = Date.now() + seconds * 1000;
  for (let turn = 0; Date.now() < end; turn += 0.07)
    await page.mouse.move(x + 120 * Math.sin(turn), y + 90 * Math.cos(turn));
  await page.mouse.up();
  return counted;
}
