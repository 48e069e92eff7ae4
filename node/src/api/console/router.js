// Which page is shown: the part of the address after `#`. Each page lives until the next one, and then hears `signal`.

import { empty, h, put, trouble } from "./element.js";

let leaving = new AbortController();

/** Shows the page that the address names, now and whenever that changes. `pages` is a list of patterns and pages. */
export function start(pages) {
  addEventListener("hashchange", () => show(pages, true));
  if (!location.hash.startsWith("#/")) history.replaceState(null, "", "#/network");
  show(pages, false);
}

/** Goes elsewhere. */
export function go(to) {
  location.hash = to;
}

/** Shows the page anew. */
export function again() {
  dispatchEvent(new HashChangeEvent("hashchange"));
}

async function show(pages, moved) {
  const [path, query = ""] = location.hash.slice(1).split("?");
  // A link to a place on the page, not to another page.
  if (!path.startsWith("/")) return;
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const main = put(document.getElementById("main"));
  main.className = "";
  const [page, parts] = find(pages, path);
  mark(path);
  if (!page) return put(main, h("h1", {}, "Nothing here"), empty(`There is no page ${path}.`));
  document.title = `${page.title} · bacnode`;
  scrollTo(0, 0);
  try {
    await page.open(main, { parts, query: new URLSearchParams(query), signal });
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    main.append(trouble(error));
  }
  // Whoever hears the page instead of seeing it is told where they are.
  if (moved && !signal.aborted) focusHeading(main);
}

function focusHeading(main) {
  const heading = main.querySelector("h1") ?? main;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

function find(pages, path) {
  for (const [pattern, page] of pages) {
    const found = path.match(pattern);
    if (found) {
      try {
        return [page, found.slice(1).map(decodeURIComponent)];
      } catch {
        return [null, []];
      }
    }
  }
  return [null, []];
}

function mark(path) {
  for (const anchor of document.querySelectorAll("nav a")) {
    const here = path.startsWith(anchor.getAttribute("href").slice(1));
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}
