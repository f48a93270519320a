// How long tests and machines took.

const WIDTH = 560, HEIGHT = 220, PAD = { left: 44, right: 12, top: 10, bottom: 30 };
const inner = { width: WIDTH - PAD.left - PAD.right, height: HEIGHT - PAD.top - PAD.bottom };

const frame = (label, ...children) => svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...children);

function ticks(top, count = 4) {
  const rough = top / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = 0; n * step <= top * 1.0001; n++) found.push(n * step);
  return found;
}

function yAxis(top, text) {
  return ticks(top).map((value) => {
    const y = PAD.top + inner.height * (1 - value / top);
    return [svg("line", { class: "gridline", x1: PAD.left, x2: WIDTH - PAD.right, y1: y, y2: y }), svg("text", { x: PAD.left - 6, y: y + 4, "text-anchor": "end" }, text(value))];
  }).flat();
}

// Durations in steps that grow: 1, 2, 5, 10 …
function histogram() {
  const timed = tests.filter((test) => test.duration !== null && test.outcome !== "skipped");
  if (!timed.length) return null;
  const edges = [];
  for (let power = -3; power < 6; power++) for (const n of [1, 2, 5]) edges.push(n * 10 ** power);
  const place = (value) => { const found = edges.findIndex((edge) => value < edge); return found < 0 ? edges.length : found; };
  const places = timed.map((test) => place(test.duration));
  const low = Math.max(0, places.reduce((a, b) => Math.min(a, b)) - 1), high = Math.min(edges.length, places.reduce((a, b) => Math.max(a, b)) + 1);
  const order = ["passed", "xpassed", "xfailed", "rerun", "running", "interrupted", "error", "failed"];
  const bins = Array.from({ length: high - low + 1 }, () => ({}));
  timed.forEach((test, n) => { const bin = bins[places[n] - low]; bin[test.outcome] = (bin[test.outcome] || 0) + 1; });
  const top = Math.max(...bins.map((bin) => Object.values(bin).reduce((a, b) => a + b, 0)));
  const step = inner.width / bins.length;
  const name = (edge) => seconds(edge).replace(".00", "").replace(".0 ", " ").replace(/(\.\d)0 s/, "$1 s");
  return frame(`Histogram of the durations of ${plural(timed.length, "test")}`,
    ...yAxis(top, (value) => (Number.isInteger(value) ? String(value) : "")),
    ...bins.flatMap((bin, n) => {
      let y = PAD.top + inner.height;
      const range = `${n + low ? name(edges[n + low - 1]) : "0"} to ${name(edges[n + low] ?? Infinity)}`;
      return order.filter((outcome) => bin[outcome]).map((outcome) => {
        const height = Math.max(1.5, (bin[outcome] / top) * inner.height);
        y -= height;
        return svg("rect", { class: outcome, x: PAD.left + n * step + 1.5, y, width: Math.max(1, step - 3), height, rx: 1.5, css: { fill: "var(--c)" },
          onpointermove: (event) => tip.show(event.clientX, event.clientY, el("b", {}, plural(bin[outcome], "test")), `${OUTCOMES[outcome][1]}, ${range}`), onpointerleave: () => tip.hide() });
      });
    }),
    ...bins.map((_, n) => (n + low < edges.length && n < bins.length - 1 && (bins.length < 10 || n % 2 === 0)
      ? svg("text", { x: PAD.left + (n + 1) * step, y: HEIGHT - 12, "text-anchor": "middle" }, name(edges[n + low])) : null)),
    svg("line", { class: "axis", x1: PAD.left, x2: WIDTH - PAD.right, y1: PAD.top + inner.height, y2: PAD.top + inner.height }));
}

// How long it took until a machine was there, over the run. Each kind of origin has a shape of its own.
function opened() {
  const dots = tests.filter((test) => test.opened !== null && test.start !== null);
  if (!dots.length) return null;
  const sorted = dots.map((test) => test.opened).sort((a, b) => a - b);
  // One cold boot would press hundreds of clones onto the axis: then the scale is logarithmic.
  const highest = sorted.at(-1), log = highest > 8 * quantile(sorted, 0.5);
  const low = Math.max(1e-3, sorted[0]) / 1.3;
  const top = highest * 1.12 || 1;
  const y = (value) => PAD.top + inner.height * (1 - (log ? Math.log(Math.max(value, low) / low) / Math.log(top / low) : value / top));
  const end = Math.max(...dots.map((test) => test.start)) || 1;
  const kinds = [...new Set(dots.map((test) => test.origin.split(" ")[0] || "?"))].sort();
  const colours = ["var(--accent)", "var(--interrupted)", "var(--passed)", "var(--error)"];
  const axis = log
    ? [0.001, 0.01, 0.1, 1, 10, 100].flatMap((n) => [n, 2 * n, 5 * n]).filter((n) => n >= low && n <= top).map((value, _, all) => {
        const wide = all.length > 7 && !/^1/.test(String(value).replace(/^0\.0*/, ""));
        return [svg("line", { class: "gridline", x1: PAD.left, x2: WIDTH - PAD.right, y1: y(value), y2: y(value) }), wide ? null : svg("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end" }, seconds(value).replace(/\.0+ /, " ").replace(/(\.\d)0 /, "$1 "))];
      }).flat()
    : yAxis(top, (value) => (value ? seconds(value).replace(/0 s$/, " s") : "0"));
  const shape = (kind, cx, cy) => kind % 2
    ? { tag: "path", at: { d: `M${cx - 4} ${cy + 3.5}h8l-4 -8z` } }
    : { tag: "circle", at: { cx, cy, r: 3 } };
  return {
    figure: frame(`Time until the machine was there, of ${plural(dots.length, "test")}`, ...axis,
      ...ticks(end, 5).map((value) => svg("text", { x: PAD.left + (value / end) * inner.width, y: HEIGHT - 12, "text-anchor": "middle" }, value ? seconds(value).replace(/\.0+ /, " ") : "0")),
      svg("line", { class: "axis", x1: PAD.left, x2: WIDTH - PAD.right, y1: PAD.top + inner.height, y2: PAD.top + inner.height }),
      ...dots.slice(0, 4000).map((test) => {
        const kind = kinds.indexOf(test.origin.split(" ")[0] || "?");
        const { tag, at } = shape(kind, PAD.left + (test.start / end) * inner.width, y(test.opened));
        return svg(tag, { ...at, css: { fill: colours[kind % 4], opacity: ".65", cursor: "pointer" }, onclick: () => openTest(test),
          onpointermove: (event) => tip.show(event.clientX, event.clientY, el("b", {}, `${test.origin}: ${seconds(test.opened)}`), test.name), onpointerleave: () => tip.hide() });
      })),
    legend: kinds.map((name, kind) => el("span", {}, el("span", { "aria-hidden": "true", css: { color: colours[kind % 4] } }, kind % 2 ? "▲ " : "● "), name)),
    sorted,
  };
}

const figures = (pairs) => el("div", { class: "figures" }, pairs.filter(([, value]) => value !== "").map(([label, value]) => el("div", {}, el("b", {}, value), label)));

function timingView(view) {
  const durations = tests.filter((test) => test.duration !== null && test.outcome !== "skipped").map((test) => test.duration).sort((a, b) => a - b);
  const slowest = tests.filter((test) => test.duration !== null).sort((a, b) => b.duration - a.duration).slice(0, 20);
  const plot = histogram(), machines = opened();
  const busy = durations.reduce((a, b) => a + b, 0);
  view.replaceChildren(
    el("div", { class: "grid" },
      el("div", { class: "card" }, el("h2", {}, "How long tests took"), el("p", { class: "lead" }, "Set-up, call and tear-down together."),
        figures([["median", seconds(quantile(durations, 0.5))], ["95th percentile", seconds(quantile(durations, 0.95))], ["longest", seconds(durations.at(-1))], ["all together", seconds(busy)]]),
        plot || el("p", { class: "note" }, "No test has a duration.")),
      el("div", { class: "card" }, el("h2", {}, "How long machines took"), el("p", { class: "lead" }, "From asking for a target until it could be used."),
        machines ? figures([["median", seconds(quantile(machines.sorted, 0.5))], ["95th percentile", seconds(quantile(machines.sorted, 0.95))], ["longest", seconds(machines.sorted.at(-1))], ["all together", seconds(machines.sorted.reduce((a, b) => a + b, 0))]]) : null,
        machines ? machines.figure : el("p", { class: "note" }, "No test opened a machine."), machines ? el("p", { class: "legend" }, machines.legend) : null)),
    el("div", { class: "card" }, el("h2", {}, "The slowest tests"), el("p", { class: "lead" }, "The twenty that took longest."),
      el("div", { class: "bars" }, slowest.map((test) => el("a", { class: test.outcome, href: hashOf({ view: "tests", id: test.key }), onclick: (event) => { event.preventDefault(); openTest(test); } },
        el("span", { class: "label", title: test.nodeid }, `${OUTCOMES[test.outcome][0]} ${test.name}`),
        el("span", { class: "track" }, el("i", { css: { width: `${(100 * test.duration) / (slowest[0].duration || 1)}%` } })), el("span", { class: "value" }, seconds(test.duration)))))));
}
