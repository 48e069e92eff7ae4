// Figures in the text format of Prometheus and OpenMetrics.

/** The figures of a document: `{name, help, samples: [{labels, value}]}`, by name; of histograms their sums and counts. */
export function parse(text) {
  const figures = new Map();
  const helps = new Map();
  for (const line of text.split("\n")) {
    const help = line.match(/^# HELP (\S+) (.*)$/);
    if (help) helps.set(help[1], help[2].replace(/\.$/, ""));
    const sample = line.match(/^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/);
    if (line.startsWith("#") || !sample || sample[1].endsWith("_bucket")) continue;
    const [, name, labels = "", value] = sample;
    const figure = figures.get(name) ?? { name, help: "", samples: [] };
    figure.samples.push({ labels: labels.replaceAll('"', ""), value: Number(value) });
    figures.set(name, figure);
  }
  for (const figure of figures.values())
    figure.help = helps.get(figure.name) ?? helps.get(figure.name.replace(/_(total|sum|count)$/, "")) ?? "";
  return [...figures.values()].sort((left, right) => left.name.localeCompare(right.name));
}
