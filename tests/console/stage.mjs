// What the walk stands on: a browser, a door to the node that can be shut, and a word with whoever started it.

import { createRequire } from "node:module";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
// The packages may lie elsewhere: CONSOLE_MODULES names the folder with `node_modules`.
const require = createRequire(path.join(process.env.CONSOLE_MODULES ?? here, "walk.mjs"));
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** How long anything may take that should be quick. */
export const PATIENCE_MS = 30_000;

/** The arguments, `--name value` each. */
export function argumentsOf(argv, names) {
  const given = {};
  for (let index = 0; index < argv.length; index += 2) given[argv[index].replace(/^--/, "")] = argv[index + 1];
  const missing = names.filter((name) => !given[name]);
  if (missing.length) {
    console.error(`usage: node walk.mjs ${names.map((name) => `--${name} …`).join(" ")}`);
    process.exit(2);
  }
  return given;
}

/** A door before an API that keeps its place when the node behind it is another process at another port. */
export class Door {
  #sockets = new Set();
  #server = null;
  port = 0;

  constructor(api) {
    this.target = api;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async open() {
    this.#server = net.createServer((socket) => {
      const { hostname, port } = new URL(this.target);
      const behind = net.connect(Number(port), hostname);
      for (const [one, other] of [
        [socket, behind],
        [behind, socket],
      ]) {
        this.#sockets.add(one);
        one.on("error", () => other.destroy());
        one.on("close", () => {
          this.#sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    await new Promise((listening) => this.#server.listen(this.port, "127.0.0.1", listening));
    this.port = this.#server.address().port;
  }

  shut() {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks whoever started the walk to do something to the nodes; gives what they answer after `ok`. */
export async function ask(what) {
  console.log(`! ${what}`);
  const { value = "" } = await lines.next();
  if (!value.startsWith("ok")) throw new Error(`${what}: ${value || "nobody answers"}`);
  return value.slice(2).trim();
}

/** The browser, with what must not happen in it. */
export class Stage {
  wrongs = [];
  failed = 0;
  #requests = 0;

  static async open(shots) {
    const stage = new Stage();
    stage.shots = shots;
    fs.mkdirSync(shots, { recursive: true });
    // As root, in containers, Chromium has no sandbox to offer.
    const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    stage.browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
    return stage;
  }

  get requests() {
    return this.#requests;
  }

  /** A window of its own. What it asks of others, what it says and what breaks in it is noted. */
  async window(origin, options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1360, height: 900 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("request", (request) => {
      this.#requests += 1;
      const url = new URL(request.url());
      if (url.protocol !== "blob:" && url.origin !== origin) this.wrongs.push(`a request to ${url.origin}`);
    });
    page.on("response", (answer) => {
      if (answer.status() >= 500) this.wrongs.push(`${answer.url()} answers ${answer.status()}`);
    });
    page.on("pageerror", (error) => this.wrongs.push(`an error: ${error.message}`));
    page.on("dialog", (dialog) => {
      this.wrongs.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => {
      // The browser itself tells of answers that are refusals, which the walk provokes.
      const expected =
        message.text().startsWith("Failed to load resource") ||
        /WebSocket connection to .* failed/.test(message.text());
      if (message.type() === "error" && !expected) this.wrongs.push(`the page complains: ${message.text()}`);
    });
    return page;
  }

  /** One check: a line, whatever comes of it. */
  async check(name, work) {
    const before = this.wrongs.length;
    const started = Date.now();
    let said = "";
    const failures = [];
    try {
      said = (await work()) ?? "";
    } catch (error) {
      failures.push(error.message.split("\n").slice(0, 4).join(" | "));
    }
    failures.unshift(...this.wrongs.slice(before));
    if (failures.length) this.failed += 1;
    if (failures.length) console.log(`FAIL  ${name}: ${failures.join("; ")}`);
    else console.log(`ok    ${name}${said ? ` (${said})` : ""} ${Date.now() - started} ms`);
  }

  async shot(page, name) {
    await page.screenshot({ path: path.join(this.shots, `${name}.png`), fullPage: true });
  }
}

/** What axe finds on a page that is serious or worse. */
export async function faults(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(
      ({ id, nodes }) =>
        `${id}: ${nodes
          .slice(0, 2)
          .map(({ html }) => html.slice(0, 120))
          .join(" , ")}`,
    );
}

/** A small picture, as a data URL. */
export const PICTURE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAQJ0lEQVR42hXYobpFUBCG4V0URVEURVEURVEURVEURVEURVEURVEURfmKoiiKoiiKoiiKoriJ47iC97FmzT+zfr8fwg/xh/RD/qH8UH9oP/Qfxg/zh/XD/uH8cH94P/wfwY/wR/Qj/pH8SH9kP/IfxY/yR/Wj/tH8aH90P/jR/xh+jD+mH/OP5cf6Y/ux/zh+nD+uH/eP58f74/cTEAREAUlAFlAEVAFNQBcwBEwBS8AWcARcAU/AFwgEQoFIIBZIBFKBTCAXKARKgUqgFmgEWoFOAIFeYBAYBSaBWWARWAU2gV3gEDgFLoFb4BF4hQ8kIoiIIpKILKKIqCKaiC5iiJgilogt4oi4Ip6ILxKIhCKRSCySiKQimUguUoiUIpVILdKItCKdCCK9yCAyikwis8gisopsIrvIIXKKXCK3yCPyih9IQpAQJSQJWUKRUCU0CV3CkDAlLAlbwpFwJTwJXyKQCCUiiVgikUglMolcopAoJSqJWqKRaCU6CSR6iUFilJgkZolFYpXYJHaJQ+KUuCRuiUfilT6QjCAjykgysowio8poMrqMIWPKWDK2jCPjyngyvkwgE8pEMrFMIpPKZDK5TCFTylQytUwj08p0Msj0MoPMKDPJzDKLzCqzyewyh8wpc8ncMo/MK38gBUFBVJAUZAVFQVXQFHQFQ8FUsBRsBUfBVfAUfIVAIVSIFGKFRCFVyBRyhUKhVKgUaoVGoVXoFFDoFQaFUWFSmBUWhVVhU9gVDoVT4VK4FR6FV/lAKoKKqCKpyCqKiqqiqegqhoqpYqnYKo6Kq+Kp+CqBSqgSqcQqiUqqkqnkKoVKqVKp1CqNSqvSqaDSqwwqo8qkMqssKqvKprKrHCqnyqVyqzwqr/qBNAQNUUPSkDUUDVVD09A1DA1Tw9KwNRwNV8PT8DUCjVAj0og1Eo1UI9PINQqNUqPSqDUajVaj00Cj1xg0Ro1JY9ZYNFaNTWPXODROjUvj1ng0Xu0D6Qg6oo6kI+soOqqOpqPrGDqmjqVj6zg6ro6n4+sEOqFOpBPrJDqpTqaT6xQ6pU6lU+s0Oq1Op4NOrzPojDqTzqyz6Kw6m86uc+icOpfOrfPovPoHMhAMRAPJQDZQDFQDzUA3MAxMA8vANnAMXAPPwDcIDEKDyCA2SAxSg8wgNygMSoPKoDZoDFqDzgCD3mAwGA0mg9lgMVgNNoPd4DA4DS6D2+AxeI0PZCKYiCaSiWyimKgmmoluYpiYJpaJbeKYuCaeiW8SmIQmkUlskpikJplJblKYlCaVSW3SmLQmnQkmvclgMppMJrPJYrKabCa7yWFymlwmt8lj8pofyEKwEC0kC9lCsVAtNAvdwrAwLSwL28KxcC08C98isAgtIovYIrFILTKL3KKwKC0qi9qisWgtOgsseovBYrSYLGaLxWK12Cx2i8PitLgsbovH4rU+kI1gI9pINrKNYqPaaDa6jWFj2lg2to1j49p4Nr5NYBPaRDaxTWKT2mQ2uU1hU9pUNrVNY9PadDbY9DaDzWgz2cw2i81qs9nsNofNaXPZ3DaPzWt/IAfBQXSQHGQHxUF10Bx0B8PBdLAcbAfHwXXwHHyHwCF0iBxih8QhdcgccofCoXSoHGqHxqF16Bxw6B0Gh9FhcpgdFofVYXPYHQ6H0+FyuB0eh9f5QC6Ci+giucguiovqornoLoaL6WK52C6Oi+viufgugUvoErnELolL6pK55C6FS+lSudQujUvr0rng0rsMLqPL5DK7LC6ry+ayuxwup8vlcrs8Lq/7gTwED9FD8pA9FA/VQ/PQPQwP08PysD0cD9fD8/A9Ao/QI/KIPRKP1CPzyD0Kj9Kj8qg9Go/Wo/PAo/cYPEaPyWP2WDxWj81j9zg8To/L4/Z4PF7vA/kIPqKP5CP7KD6qj+aj+xg+po/lY/s4Pq6P5+P7BD6hT+QT+yQ+qU/mk/sUPqVP5VP7ND6tT+eDT+8z+Iw+k8/ss/isPpvP7nP4nD6Xz+3z+Lz+BwoQAsQAKUAOUALUAC1ADzACzAArwA5wAtwAL8APCALCgCggDkgC0oAsIA8oAsqAKqAOaALagC6AgD5gCBgDpoA5YAlYA7aAPeAIOAOugDvgCXiDDxQihIghUogcooSoIVqIHmKEmCFWiB3ihLghXogfEoSEIVFIHJKEpCFZSB5ShJQhVUgd0oS0IV0IIX3IEDKGTCFzyBKyhmwhe8gRcoZcIXfIE/KGHyhCiBAjpAg5QolQI7QIPcKIMCOsCDvCiXAjvAg/IogII6KIOCKJSCOyiDyiiCgjqog6ooloI7oIIvqIIWKMmCLmiCVijdgi9ogj4oy4Iu6IJ+KNPlCMECPGSDFyjBKjxmgxeowRY8ZYMXaME+PGeDF+TBATxkQxcUwSk8ZkMXlMEVPGVDF1TBPTxnQxxPQxQ8wYM8XMMUvMGrPF7DFHzBlzxdwxT8wbf6AEIUFMkBLkBCVBTdAS9AQjwUywEuwEJ8FN8BL8hCAhTIgS4oQkIU3IEvKEIqFMqBLqhCahTegSSOgThoQxYUqYE5aENWFL2BOOhDPhSrgTnoQ3+UApQoqYIqXIKUqKmqKl6ClGiplipdgpToqb4qX4KUFKmBKlxClJSpqSpeQpRUqZUqXUKU1Km9KlkNKnDCljypQypywpa8qWsqccKWfKlXKnPClv+oEyhAwxQ8qQM5QMNUPL0DOMDDPDyrAznAw3w8vwM4KMMCPKiDOSjDQjy8gziowyo8qoM5qMNqPLIKPPGDLGjCljzlgy1owtY884Ms6MK+POeDLe7APlCDlijpQj5yg5ao6Wo+cYOWaOlWPnODlujpfj5wQ5YU6UE+ckOWlOlpPnFDllTpVT5zQ5bU6XQ06fM+SMOVPOnLPkrDlbzp5z5Jw5V86d8+S8+QcqEArEAqlALlAK1AKtQC8wCswCq8AucArcAq/ALwgKwoKoIC5ICtKCrCAvKArKgqqgLmgK2oKugIK+YCgYC6aCuWApWAu2gr3gKDgLroK74Cl4iw9UIpSIJVKJXKKUqCVaiV5ilJglVold4pS4JV6JXxKUhCVRSVySlKQlWUleUpSUJVVJXdKUtCVdCSV9yVAylkwlc8lSspZsJXvJUXKWXCV3yVPylh+oQqgQK6QKuUKpUCu0Cr3CqDArrAq7wqlwK7wKvyKoCCuiirgiqUgrsoq8oqgoK6qKuqKpaCu6Cir6iqFirJgq5oqlYq3YKvaKo+KsuCruiqfirT5QjVAj1kg1co1So9ZoNXqNUWPWWDV2jVPj1ng1fk1QE9ZENXFNUpPWZDV5TVFT1lQ1dU1T09Z0NdT0NUPNWDPVzDVLzVqz1ew1R81Zc9XcNU/NW3+gBqFBbJAa5AalQW3QGvQGo8FssBrsBqfBbfAa/IagIWyIGuKGpCFtyBryhqKhbKga6oamoW3oGmjoG4aGsWFqmBuWhrVha9gbjoaz4Wq4G56Gt/lALUKL2CK1yC1Ki9qitegtRovZYrXYLU6L2+K1+C1BS9gStcQtSUvakrXkLUVL2VK11C1NS9vStdDStwwtY8vUMrcsLWvL1rK3HC1ny9Vytzwtb/uBOoQOsUPqkDuUDrVD69A7jA6zw+qwO5wOt8Pr8DuCjrAj6og7ko60I+vIO4qOsqPqqDuajraj66Cj7xg6xo6pY+5YOtaOrWPvODrOjqvj7ng63u4D/T+YIP4/Cnxr+Lf4fqvmt9x969S3wHwrwzekf2PxN4h+o983bH3jzTdQfBH+heYXU18wfK34a35fu/ku+HelviL+yuY7qO/XfJj/r4cBRphghgVW2GCHA0644IYHXj5Qj9Aj9kg9co/So/ZoPXqP0WP2WD12j9Pj9ng9fk/QE/ZEPXFP0pP2ZD15T9FT9lQ9dU/T0/Z0/T+n7xl6xp6pZ+5ZetaerWfvOXrOnqvn7nl63v4DDQgD4oA0IA8oA+qANqAPGAPmgDVgDzgD7oA34A8EA+FANBAPJAPpQDaQDxQD5UA1UA80A+1AN/z/nH5gGBgHpoF5YBlYB7aBfeAYOAeugXvgGXiHDzQijIgj0og8ooyoI9qIPmKMmCPWiD3ijLgj3og/EoyEI9FIPJKMpCPZSD5SjJQj1Ug90oy0I934f1T9yDAyjkwj88gyso5sI/vIMXKOXCP3yDPyjh9oQpgQJ6QJeUKZUCe0CX3CmDAnrAl7wplwJ7wJfyKYCCeiiXgimUgnsol8opgoJ6qJeqKZaCe66b9w+olhYpyYJuaJZWKd2Cb2iWPinLgm7oln4p0+0IwwI85IM/KMMqPOaDP6jDFjzlgz9owz4854M/5MMBPORDPxTDKTzmQz+UwxU85UM/VMM9POdPN/Gfczw8w4M83MM8vMOrPN7DPHzDlzzdwzz8w7f6AFYUFckBbkBWVBXdAW9AVjwVywFuwFZ8Fd8Bb8hWAhXIgW4oVkIV3IFvKFYqFcqBbqhWahXeiW/0vVLwwL48K0MC8sC+vCtrAvHAvnwrVwLzwL7/KBVoQVcUVakVeUFXVFW9FXjBVzxVqxV5wVd8Vb8VeClXAlWolXkpV0JVvJV4qVcqVaqVealXalW/+veL8yrIwr08q8sqysK9vKvnKsnCvXyr3yrLzrB9oQNsQNaUPeUDbUDW1D3zA2zA1rw95wNtwNb8PfCDbCjWgj3kg20o1sI98oNsqNaqPeaDbajW77bzj9xrAxbkwb88aysW5sG/vGsXFuXBv3xrPxbh9oR9gRd6QdeUfZUXe0HX3H2DF3rB17x9lxd7wdfyfYCXeinXgn2Ul3sp18p9gpd6qdeqfZaXe6/b/99TvDzrgz7cw7y866s+3sO8fOuXPt3DvPzrt/oAPhQDyQDuQD5UA90A70A+PAPLAO7APnwD3wDvyD4CA8iA7ig+QgPcgO8oPioDyoDuqD5qA96I7/ZtwfDAfjwXQwHywH68F2sB8cB+fBdXAfPAfv8YFOhBPxRDqRT5QT9UQ70U+ME/PEOrFPnBP3xDvxT4KT8CQ6iU+Sk/QkO8lPipPypDqpT5qT9qQ7/6OhPxlOxpPpZD5ZTtaT7WQ/OU7Ok+vkPnlO3vMDXQgX4oV0IV8oF+qFdqFfGBfmhXVhXzgX7oV34V8EF+FFdBFfJBfpRXaRXxQX5UV1UV80F+1Fd/0HVX8xXIwX08V8sVysF9vFfnFcnBfXxX3xXLzXB7oRbsQb6Ua+UW7UG+1GvzFuzBvrxr5xbtwb78a/CW7Cm+gmvklu0pvsJr8pbsqb6qa+aW7am+7+j83+ZrgZb6ab+Wa5WW+2m/3muDlvrpv75rl57w/0IDyID9KD/KA8qA/ag/5gPJgP1oP94Dy4D96D/xA8hA/RQ/yQPKQP2UP+UDyUD9VD/dA8tA/d8x/i/cPwMD5MD/PD8rA+bA/7w/FwPlwP98Pz8D4f6EV4EV+kF/lFeVFftBf9xXgxX6wX+8V5cV+8F/8leAlfopf4JXlJX7KX/KV4KV+ql/qleWlfuvd/pOhfhpfxZXqZX5aX9WV72V+Ol/Plerlfnpf35Q97M+PE8swvWgAAAABJRU5ErkJggg==";

/** A tar archive of small files by name, as the API takes folders. */
export function tar(files) {
  const parts = [];
  for (const [name, text] of Object.entries(files)) {
    const body = Buffer.from(text);
    const head = Buffer.alloc(512);
    head.write(name, 0, 100);
    head.write("0000644\0", 100);
    head.write(`${body.length.toString(8).padStart(11, "0")}\0`, 124);
    head.write("00000000000\0", 136);
    head.write("        ", 148);
    head.write("0ustar\x0000", 156);
    head.write(
      `${head
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, "0")}\0 `,
      148,
    );
    parts.push(head, body, Buffer.alloc((512 - (body.length % 512)) % 512));
  }
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}
