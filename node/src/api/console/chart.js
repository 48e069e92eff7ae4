// Small drawings of figures over time.

import { duration } from "./amount.js";
import { svg } from "./element.js";

/** A line of `values` from 0 to `max`, as large as its place. `said` is what those hear who do not see it. */
export function line(values, max, said, { width = 120, height = 28 } = {}) {
  const top = Math.max(max, ...values, 1e-9);
  const x = (index) => (values.length < 2 ? width : (index / (values.length - 1)) * width);
  const y = (value) => height - 2 - (value / top) * (height - 4);
  const points = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`);
  const shape = {
    viewBox: `0 0 ${width} ${height}`,
    class: "chart",
    role: "img",
    "aria-label": said,
    preserveAspectRatio: "none",
  };
  if (values.length < 2)
    return svg("svg", shape, svg("line", { class: "base", x1: 0, x2: width, y1: height - 2, y2: height - 2 }));
  return svg(
    "svg",
    shape,
    svg("polygon", { class: "area", points: `0,${height} ${points.join(" ")} ${width},${height}` }),
    svg("polyline", { class: "stroke", points: points.join(" "), "vector-effect": "non-scaling-stroke" }),
  );
}

/** How long a row of samples lasts, in words. */
export function span(samples) {
  return samples.length < 2
    ? "gathered while this page is open"
    : `the last ${duration(samples.at(-1).at - samples[0].at)}`;
}

/** A share of a whole, as a bar. */
export function bar(share, said) {
  const width = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0)) * 100;
  return svg(
    "svg",
    { viewBox: "0 0 100 6", class: "bar", role: "img", "aria-label": said, preserveAspectRatio: "none" },
    svg("rect", { class: "base", width: 100, height: 6, rx: 3 }),
    svg("rect", { class: width > 85 ? "full" : "part", width, height: 6, rx: 3 }),
  );
}
