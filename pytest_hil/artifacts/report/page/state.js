// What is shown now. All of it is in the URL after the #, so that a link leads to the same.

const VIEWS = ["tests", "timeline", "crashes", "timing", "coverage", "run"];
const DEFAULTS = { q: "", o: "", t: "", w: "", m: "", s: "order", id: "", group: "" };

const state = { view: "tests", ...DEFAULTS };
const watchers = [];

function readHash() {
  const [view, rest = ""] = location.hash.slice(1).split("?");
  const values = new URLSearchParams(rest);
  state.view = VIEWS.includes(view) ? view : "tests";
  for (const key of Object.keys(DEFAULTS)) state[key] = values.get(key) ?? DEFAULTS[key];
}

function hashOf(changes = {}) {
  const wanted = { ...state, ...changes };
  const values = new URLSearchParams();
  for (const [key, usual] of Object.entries(DEFAULTS)) if (wanted[key] !== usual) values.set(key, wanted[key]);
  const text = values.toString();
  return `#${wanted.view}${text ? `?${text}` : ""}`;
}

// A new place in the browser's history only for what one would go back from.
function change(changes, { push = false } = {}) {
  Object.assign(state, changes);
  const hash = hashOf();
  if (hash !== location.hash) {
    try {
      history[push ? "pushState" : "replaceState"](null, "", hash);
    } catch {
      location.hash = hash;
    }
  }
  for (const watcher of watchers) watcher(changes);
}

addEventListener("popstate", () => { readHash(); for (const watcher of watchers) watcher(state); });
addEventListener("hashchange", () => { readHash(); for (const watcher of watchers) watcher(state); });

const wanted = () => new Set(state.o ? state.o.split(",") : []);
const searched = () => state.q.toLowerCase().split(/\s+/).filter(Boolean);
const NONE = "(none)";

function shown({ outcomes = true } = {}) {
  const words = searched();
  const set = wanted();
  const only = (value, filter) => !filter || (filter === NONE ? !value : value === filter);
  const found = tests.filter((test) =>
    (!outcomes || !set.size || set.has(test.outcome) || (set.has("flaky") && test.flaky) || (set.has("crashed") && test.crashes))
    && only(test.target, state.t) && only(test.worker, state.w)
    && (!state.m || test.markers.includes(state.m))
    && words.every((word) => test.words.includes(word)));
  const orders = {
    order: (a, b) => b.bad - a.bad || a.number - b.number,
    time: (a, b) => a.number - b.number,
    slow: (a, b) => (b.duration ?? -1) - (a.duration ?? -1),
    name: (a, b) => (a.nodeid < b.nodeid ? -1 : a.nodeid > b.nodeid ? 1 : a.number - b.number),
  };
  return found.sort(orders[state.s] || orders.order);
}
