// The head, the filters, the keyboard, and which part is to be seen.

const byId = (id) => document.getElementById(id);

function head() {
  const run = model.run;
  byId("run-id").textContent = run.id;
  const workers = new Set(tests.map((test) => test.worker).filter(Boolean)).size;
  const fact = (value, label) => (value ? el("span", {}, el("b", {}, value), label ? ` ${label}` : "") : null);
  byId("facts").append(...[
    run.status === "finished" ? null : el("span", { class: `badge tone ${run.status}` }, run.status === "running" ? "still running" : "killed before its end"),
    fact(plural(tests.length, "test")), model.start ? fact(seconds(model.end - model.start)) : null,
    run.targets.length ? el("span", {}, "on ", el("b", {}, run.targets.join(", "))) : null, workers > 1 ? fact(String(workers), "workers") : null,
    model.start ? el("span", {}, new Date(model.start * 1000).toLocaleString()) : null,
  ].filter(Boolean));
  document.title = `${verdict()} · ${run.id}`;

  const chip = (key, count, label, mark) => el("button", { type: "button", class: `chip ${key}`, "data-key": key, "aria-pressed": "false", title: `Only ${label}`, onclick: () => {
    const set = wanted();
    set.has(key) ? set.delete(key) : set.add(key);
    change({ view: "tests", o: [...set].join(",") });
  } }, mark, el("b", {}, count.toLocaleString("en")), label);
  const counts = Object.entries(model.counts);
  const crashed = tests.filter((test) => test.crashes).length;
  byId("verdict").append(
    el("div", { class: "bar", "aria-hidden": "true" }, counts.map(([name, count]) => el("span", { class: name, css: { flex: String(count) } }))),
    el("div", { class: "chips", role: "group", "aria-label": "Outcomes" },
      counts.map(([name, count]) => chip(name, count, OUTCOMES[name][1], icon(name))),
      crashed ? chip("crashed", crashed, "with a crash", el("span", { class: "icon crash failed", "aria-hidden": "true" }, "!")) : null,
      flaky.size ? chip("flaky", flaky.size, "flaky", el("span", { class: "icon rerun", "aria-hidden": "true" }, "↻")) : null));
}

function verdict() {
  const bad = ["failed", "error", "interrupted"].filter((name) => model.counts[name]).map((name) => `${model.counts[name]} ${OUTCOMES[name][1]}`);
  return bad.length ? `✗ ${bad.join(", ")}` : `✓ ${model.counts.passed || 0} passed`;
}

function filters() {
  const select = (key, label, values, names = {}) => {
    const usual = DEFAULTS[key];
    const made = el("select", { "aria-label": label, "data-key": key, onchange: () => change({ [key]: made.value }) },
      key === "s" ? null : el("option", { value: "" }, label), values.map((value) => el("option", { value }, names[value] || value)));
    made.value = usual;
    return made;
  };
  const all = (pick) => {
    const values = [...new Set(tests.flatMap(pick))];
    const some = values.filter(Boolean).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    return values.includes("") && some.length ? [...some, NONE] : some;
  };
  const targets = all((test) => test.target), workers = all((test) => test.worker), markers = all((test) => test.markers);
  byId("selects").append(...[
    targets.length > 1 ? select("t", "All targets", targets, { [NONE]: "no target" }) : null,
    workers.length > 1 ? select("w", "All workers", workers, { [NONE]: "no worker" }) : null,
    markers.length ? select("m", "All markers", markers) : null,
    select("s", "Order", ["order", "time", "slow", "name"], { order: "Failures first", time: "In order of time", slow: "Slowest first", name: "By name" }),
  ].filter(Boolean));
}

const TABS = {
  tests: ["Tests", () => tests.length], timeline: ["Time line", () => ""], crashes: ["Crashes", () => model.crashes.length],
  timing: ["Timing", () => ""], coverage: ["Coverage", () => (model.coverage.length ? `${Math.round((100 * model.coverage_total[0]) / (model.coverage_total[1] || 1))} %` : "")], run: ["Run", () => ""],
};
const views = Object.keys(TABS).filter((name) => name !== "coverage" || model.coverage.length);

function tabs() {
  byId("tabs").append(...views.map((name) => {
    const count = TABS[name][1]();
    return el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}`, onclick: () => change({ view: name }, { push: true }) },
      TABS[name][0], count === "" ? null : el("span", { class: "n" }, count.toLocaleString("en")));
  }));
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    change({ view: views[(views.indexOf(state.view) + step + views.length) % views.length] });
    byId(`tab-${state.view}`).focus();
  });
}

const drawn = new Set();

function show(changes) {
  if (!views.includes(state.view)) state.view = "tests";
  for (const name of views) {
    const on = name === state.view;
    byId(`view-${name}`).hidden = !on;
    byId(`tab-${name}`).setAttribute("aria-selected", on);
    byId(`tab-${name}`).tabIndex = on ? 0 : -1;
    if (on) byId(`tab-${name}`).scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const view = byId(`view-${state.view}`);
  if (state.view === "tests") {
    const filtered = ["q", "o", "t", "w", "m", "s"].some((key) => key in changes);
    if (filtered || !list.places) {
      syncFilters();
      if (changes.q !== undefined || changes.o !== undefined || changes.s !== undefined) list.box.scrollTop = 0;
      list.fill();
    }
    list.reveal();
    list.select();
    byId("panes").classList.toggle("open", Boolean(state.id) && (byId("panes").classList.contains("open") || narrow.matches));
    detail.show(byKey.get(state.id));
  } else if (state.view === "timeline") {
    if (!timeline.made) timeline.make(view);
    else if ("group" in changes) timeline.group();
    timeline.draw();
  } else if (!drawn.has(state.view)) {
    drawn.add(state.view);
    ({ crashes: crashesView, timing: timingView, coverage: coverageView, run: runView })[state.view](view);
  }
}

function syncFilters() {
  const search = byId("search");
  if (search.value !== state.q && document.activeElement !== search) search.value = state.q;
  for (const select of byId("selects").children) {
    select.value = state[select.dataset.key];
    select.classList.toggle("set", state[select.dataset.key] !== DEFAULTS[select.dataset.key]);
  }
  const set = wanted();
  for (const chip of document.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", set.has(chip.dataset.key));
}

// Colours: as the system has them, unless somebody chose.
const themes = ["system", "light", "dark"];
let theme = "system";
try { theme = themes.includes(localStorage.getItem("hil-theme")) ? localStorage.getItem("hil-theme") : "system"; } catch { /* not for files, in some browsers */ }
const systemDark = matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const dark = theme === "dark" || (theme === "system" && systemDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  const [sign, word] = { system: ["◐", "System"], light: ["☀", "Light"], dark: ["☾", "Dark"] }[theme];
  byId("theme").replaceChildren(sign, el("span", { class: "wide-only" }, ` ${word}`));
  byId("theme").setAttribute("aria-label", `Colours: ${word.toLowerCase()}`);
  timeline.draw();
}
function nextTheme() {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  try { localStorage.setItem("hil-theme", theme); } catch { /* then it is for this page only */ }
  paint();
}
systemDark.addEventListener("change", paint);

const KEYS = [
  ["/", "search tests"], ["j k  ↓ ↑", "next, previous test"], ["n p", "next, previous failure"], ["Enter", "into the test: its console and events"],
  ["Esc", "back to the list; empty the search"], ["f", "find in the console"], ["c", "copy the command that runs the test again"],
  ["1 – 6", "the parts of this report"], ["t", "colours: system, light, dark"], ["?", "this help"],
];

function keyboard(event) {
  const help = byId("help");
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || help.open) return;
  const field = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") {
    if (field) {
      if (field.id === "search" && field.value) { field.value = ""; change({ q: "" }); } else list.box.focus();
    } else if (byId("panes").classList.contains("open")) closeTest();
    else if (state.view !== "tests") change({ view: "tests" });
    else list.box.focus();
    return event.preventDefault();
  }
  if (field) {
    if (field.id === "search" && (event.key === "Enter" || event.key === "ArrowDown")) {
      event.preventDefault();
      list.box.focus();
      if (!list.places.has(state.id)) list.move(1);
    }
    return undefined;
  }
  const inList = event.target === list.box || event.target === document.body;
  const page = Math.max(1, Math.floor(list.box.clientHeight / ROW) - 1);
  const acts = {
    "/": () => { change({ view: "tests" }); closeIfNarrow(); byId("search").focus(); byId("search").select(); },
    j: () => list.move(1), k: () => list.move(-1), n: () => list.nextBad(1), p: () => list.nextBad(-1),
    f: () => detail.find?.focus(), t: nextTheme, "?": () => help.showModal(),
    c: () => { const test = byKey.get(state.id); if (test) copy(model.commands[test.number]); },
    ...(inList ? { ArrowDown: () => list.move(1), ArrowUp: () => list.move(-1), PageDown: () => list.move(page), PageUp: () => list.move(-page), Home: () => list.move(-1e9), End: () => list.move(1e9),
      Enter: () => { const test = byKey.get(state.id); if (test) { openTest(test); detail.box.focus(); } } } : {}),
  };
  const number = Number(event.key);
  const act = views[number - 1] && number ? () => change({ view: views[number - 1] }, { push: true }) : acts[event.key];
  if (!act) return undefined;
  if ("jknp".includes(event.key) && state.view !== "tests") change({ view: "tests" });
  event.preventDefault();
  return act();
}

function closeIfNarrow() {
  if (narrow.matches) byId("panes").classList.remove("open");
}

head();
filters();
tabs();
byId("help").append(el("h2", {}, "Keyboard"), el("dl", {}, KEYS.map(([keys, what]) => [el("dt", {}, keys.split(" ").filter(Boolean).map((key) => (key === "–" ? " – " : [el("kbd", {}, key), " "])).flat()), el("dd", {}, what)])),
  el("form", { method: "dialog" }, el("button", { class: "quiet" }, "Close")));
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("theme").addEventListener("click", nextTheme);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); change({ view: "tests" }); list.box.focus(); });
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", () => change({ q: byId("search").value }));
addEventListener("keydown", keyboard);
narrow.addEventListener("change", () => show({}));
readHash();
watchers.push(show);
paint();
// Whoever opens it wants to know why it is red: the first failure, unless a link says another.
if (!state.id && state.view === "tests" && !narrow.matches) state.id = shown()[0]?.key ?? "";
show(state);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
