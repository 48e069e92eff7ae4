// Requests to the node that served this page, and to nobody else.

const TOKEN = "bacnode.token";

/** Told when the node wants a token (`asked`) and when one is set or forgotten (`changed`). */
export const access = new EventTarget();

/** What bears this window's requests; gone when the window is closed. */
export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
  access.dispatchEvent(new Event("changed"));
}

/** An answer that is not the one hoped for; status 0 where there was none. */
export class ApiError extends Error {
  constructor(status, code, message, hint = "") {
    super(message);
    Object.assign(this, { status, code, hint });
  }

  get isGone() {
    return this.status === 0;
  }
}

/** The address of something, each of its parts made safe. */
export function at(...parts) {
  return `/api/v1/${parts.map(encodeURIComponent).join("/")}`;
}

/** Sends a request; gives the answer as it comes, and throws what went wrong. */
export async function send(method, path, { query = {}, json, body, type, signal } = {}) {
  const wanted = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== ""));
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (json !== undefined) [headers["Content-Type"], body] = ["application/json", JSON.stringify(json)];
  else if (type) headers["Content-Type"] = type;
  const url = wanted.size ? `${path}?${wanted}` : path;
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers,
      body,
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "Unreachable", "the node cannot be reached", "the console goes on when it is back");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) access.dispatchEvent(new CustomEvent("asked", { detail: said.Message }));
  throw new ApiError(answer.status, said.Code ?? "", said.Message ?? `the node answers ${answer.status}`, said.Hint);
}

export async function get(path, query, signal) {
  return (await send("GET", path, { query, signal })).json();
}

export async function put(path, json, signal) {
  return (await send("PUT", path, { json, signal })).json();
}

/** The bytes of a body up to `max`, and whether there is more; the rest is not fetched. */
export async function head(answer, max) {
  const reader = answer.body.getReader();
  const parts = [];
  let size = 0;
  while (size < max) {
    const { done, value } = await reader.read();
    if (done) return { bytes: joined(parts, size), more: false };
    parts.push(value);
    size += value.length;
  }
  await reader.cancel();
  return { bytes: joined(parts, size).subarray(0, max), more: true };
}

function joined(parts, size) {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What a program prints, as it does: a WebSocket. A browser gives it no header, so a token goes in as a protocol's name. */
export function logs(job, query) {
  const wanted = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const url = new URL(`${at("orchestrator", "jobs", job, "logs")}?${wanted}`, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return token() ? new WebSocket(url, ["bacnode", `bearer.${token()}`]) : new WebSocket(url);
}

/** Saves content as a file. */
export async function download(cid, path, name) {
  const address = `${at("network", "content", cid)}?${new URLSearchParams(path ? { path } : {})}`;
  let href = address;
  if (token()) {
    // A link bears no token: the bytes are fetched first.
    href = URL.createObjectURL(await (await send("GET", address)).blob());
  }
  const anchor = document.createElement("a");
  [anchor.href, anchor.download] = [href, name];
  anchor.click();
  if (href !== address) setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
