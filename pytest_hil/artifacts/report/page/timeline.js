// What each worker, target or machine did when: a canvas that is moved by mouse, touch and keys.

const LEFT = 112, AXIS = 26;
// A few lanes get more room than many.
let BAR = 22, LANE = 34;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400];

const timeline = {
  made: false,
  lanes: [],
  from: 0,
  to: 1,
  at: null,

  make(view) {
    this.made = true;
    this.view = view;
    const groups = { worker: "Workers", target: "Targets", machine: "Machines" };
    this.buttons = Object.entries(groups).map(([key, label]) => el("button", { type: "button", "data-group": key, onclick: () => change({ group: key }) }, label));
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-roledescription": "time line", "aria-describedby": "timeline-said",
      "aria-label": "Time line of all tests. Arrow keys go from test to test, plus and minus zoom, Enter opens." });
    this.said = el("p", { class: "said", id: "timeline-said", role: "status", "aria-live": "polite" });
    const zoom = (label, title, act) => el("button", { type: "button", class: "quiet", "aria-label": title, title, onclick: act }, label);
    view.replaceChildren(el("div", { class: "card" },
      el("h2", {}, "What each machine did when"),
      el("p", { class: "lead" }, "One bar a test, from its set-up to the end of its tear-down; the pale part is the set-up, in which the machine is made. ",
        el("span", { class: "wide-only" }, "Ctrl and wheel, or + and −, zoom; drag to move; ", el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " go from test to test; ", el("kbd", {}, "Enter"), " opens.")),
      el("div", { class: "timeline-tools" }, el("span", { class: "segments", role: "group", "aria-label": "Lanes" }, this.buttons), el("span", { class: "grow" }),
        zoom("−", "Zoom out", () => this.zoom(1.6)), zoom("+", "Zoom in", () => this.zoom(1 / 1.6)), zoom("All", "Show all", () => this.all())),
      this.canvas, this.said,
      el("div", { class: "legend" }, Object.keys(model.counts).map((name) => el("span", { class: name }, icon(name), ` ${OUTCOMES[name][1]}`)))),
      el("div", { class: "card" }, el("h2", {}, "How it went for each"), el("div", { class: "sideways", tabindex: "0" }, this.table = el("table"))));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.group();
  },

  group() {
    const by = ["worker", "target", "machine"].includes(state.group) ? state.group : "worker";
    for (const button of this.buttons) button.setAttribute("aria-pressed", button.dataset.group === by);
    const names = { worker: (t) => t.worker || "main", target: (t) => t.target || "no target", machine: (t) => `${t.target || "no target"}${t.worker ? ` · ${t.worker}` : ""}` };
    const lanes = new Map();
    for (const test of tests) {
      if (test.start === null) continue;
      const name = names[by](test);
      if (!lanes.has(name)) lanes.set(name, []);
      lanes.get(name).push(test);
    }
    this.lanes = [...lanes].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })).map(([name, all]) => ({ name, tests: all.sort((a, b) => a.start - b.start), rows: 1 }));
    // Tests of one lane at the same time (a target that several workers have) stand below each other.
    BAR = this.lanes.length <= 6 ? 32 : 22;
    LANE = BAR + 14;
    let top = AXIS + 6;
    for (const lane of this.lanes) {
      const ends = [];
      for (const test of lane.tests) {
        let row = ends.findIndex((end) => end <= test.start + 1e-3);
        if (row < 0) row = ends.length < 8 ? ends.length : 7;
        ends[row] = test.start + (test.duration ?? 0);
        test.row = row;
      }
      lane.rows = Math.max(1, ends.length);
      lane.top = top;
      top += LANE * lane.rows - (lane.rows - 1) * (LANE - BAR - 3);
    }
    this.height = top + 6;
    this.canvas.style.height = `${this.height}px`;
    this.table.replaceChildren(...this.summary({ worker: "worker", target: "target", machine: "machine" }[by]));
    this.all();
  },

  // The same for those who read rather than look: what each lane had to do, and how it went.
  summary(word) {
    const whole = model.end - model.start || 1;
    const names = Object.keys(model.counts);
    return [el("thead", {}, el("tr", {}, el("th", {}, word), el("th", { class: "num" }, "tests"), el("th", {}), names.map((name) => el("th", { class: "num" }, OUTCOMES[name][1])), el("th", { class: "num", title: "of the whole run" }, "busy"))),
      el("tbody", {}, this.lanes.map((lane) => {
        const counts = names.map((name) => lane.tests.filter((test) => test.outcome === name).length);
        const busy = lane.tests.reduce((sum, test) => sum + (test.duration ?? 0), 0);
        return el("tr", {}, el("td", {}, lane.name), el("td", { class: "num" }, lane.tests.length.toLocaleString("en")),
          el("td", { css: { width: "26%", "min-width": "60px" } }, el("div", { class: "bar", "aria-hidden": "true", css: { "margin-top": "6px" } }, names.map((name, n) => (counts[n] ? el("span", { class: name, css: { flex: String(counts[n]) } }) : null)))),
          counts.map((count) => el("td", { class: "num" }, count ? count.toLocaleString("en") : "–")), el("td", { class: "num" }, `${Math.round((100 * busy) / whole)} %`));
      }))];
  },

  all() {
    const ends = this.lanes.flatMap((lane) => lane.tests.map((test) => test.start + (test.duration ?? 0)));
    this.end = ends.reduce((a, b) => Math.max(a, b), model.end - model.start) || 1;
    [this.from, this.to] = [0, this.end];
    this.draw();
  },

  zoom(factor, centre = this.at?.start ?? (this.from + this.to) / 2) {
    const span = Math.min(this.end, Math.max(0.05, (this.to - this.from) * factor));
    const part = (centre - this.from) / (this.to - this.from);
    this.move(centre - part * span, span);
  },

  move(from, span = this.to - this.from) {
    this.from = Math.max(0, Math.min(this.end - span, from));
    this.to = this.from + span;
    this.draw();
  },

  x(time) { return this.left + ((time - this.from) / (this.to - this.from)) * (this.width - this.left - 12); },
  time(x) { return this.from + ((x - this.left) / (this.width - this.left - 12)) * (this.to - this.from); },
  y(lane, test) { return lane.top + (LANE - BAR) / 2 + test.row * (BAR + 3); },

  draw() {
    if (!this.canvas || this.canvas.offsetParent === null) return;
    const ratio = devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.left = this.width < 560 ? 62 : LEFT;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const sans = getComputedStyle(document.body).fontFamily;
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = `11px ${sans}`;
    this.drawAxis(pen, colour);
    for (const lane of this.lanes) this.drawLane(pen, colour, lane, sans);
  },

  drawAxis(pen, colour) {
    const span = this.to - this.from;
    const rough = span / Math.max(2, (this.width - this.left) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = STEPS.find((n) => n >= rough) || power * 10;
    pen.textAlign = "center";
    for (let n = Math.ceil(this.from / step); n * step <= this.to; n++) {
      const x = Math.round(this.x(n * step)) + 0.5;
      pen.strokeStyle = colour("line-soft");
      pen.beginPath(); pen.moveTo(x, AXIS - 4); pen.lineTo(x, this.height); pen.stroke();
      pen.fillStyle = colour("ink-3");
      const value = n * step;
      pen.fillText(this.to > 120 ? `${Math.floor(value / 60)}:${String(Math.round(value % 60)).padStart(2, "0")}` : `${+value.toFixed(3)} s`, x, 14);
    }
  },

  drawLane(pen, colour, lane, sans) {
    pen.textAlign = "left";
    pen.fillStyle = colour("ink-2");
    pen.font = `500 12px ${sans}`;
    pen.fillText(shortened(pen, lane.name, this.left - 12), 2, lane.top + LANE / 2 + 4);
    pen.save();
    pen.beginPath(); pen.rect(this.left, 0, this.width, this.height); pen.clip();
    // What went wrong is drawn last: at a distance it must not vanish under its neighbours.
    for (const bad of [false, true]) {
      for (const test of lane.tests) {
        const end = test.start + (test.duration ?? 0);
        if (test.bad !== bad || end < this.from || test.start > this.to) continue;
        this.drawBar(pen, colour, lane, test, this.x(test.start), Math.max(2, this.x(end) - this.x(test.start) - 1));
      }
    }
    pen.restore();
  },

  drawBar(pen, colour, lane, test, x, width) {
    const y = this.y(lane, test);
    const main = colour(test.outcome);
    const setup = test.phases && width > 3 ? Math.min(width, this.x(test.start + test.phases[0]) - x) : 0;
    pen.globalAlpha = test.outcome === "passed" ? 0.72 : 1;
    pen.fillStyle = main;
    pen.beginPath(); pen.roundRect(x, y, width, BAR, Math.min(4, width / 2)); pen.fill();
    if (setup > 1) {
      pen.globalAlpha = 0.6;
      pen.fillStyle = colour("card");
      pen.beginPath(); pen.roundRect(x + 1, y + 1, Math.max(0, setup - 1), BAR - 2, Math.min(3, setup / 2)); pen.fill();
    }
    pen.globalAlpha = 1;
    pen.textAlign = "left";
    if (test.bad && width > 13) {
      pen.fillStyle = setup > 14 ? main : colour("card");
      pen.font = "bold 12px sans-serif";
      pen.fillText(OUTCOMES[test.outcome][0], x + 4, y + BAR / 2 + 4);
    } else if (test.bad) {
      pen.fillStyle = main;
      pen.beginPath(); pen.moveTo(x + width / 2 - 4, y - 6); pen.lineTo(x + width / 2 + 4, y - 6); pen.lineTo(x + width / 2, y); pen.fill();
    }
    if (width - setup > 60) {
      pen.fillStyle = colour("card");
      pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
      const at = x + Math.max(setup, test.bad ? 18 : 0) + 5;
      pen.fillText(shortened(pen, test.name, x + width - at - 5), at, y + BAR / 2 + 4);
    }
    if (test === this.at) {
      pen.strokeStyle = colour("focus");
      pen.lineWidth = 2;
      pen.beginPath(); pen.roundRect(x - 2, y - 2, width + 4, BAR + 4, 5); pen.stroke();
      pen.lineWidth = 1;
    }
  },

  hit(x, y) {
    const lane = this.lanes.find((one) => y >= one.top && y < one.top + LANE + (one.rows - 1) * (BAR + 3));
    if (!lane || x < this.left - 4) return null;
    let best = null, near = 6;
    for (const test of lane.tests) {
      const top = this.y(lane, test);
      if (y < top - 4 || y > top + BAR + 4) continue;
      const start = this.x(test.start), end = Math.max(start + 2, this.x(test.start + (test.duration ?? 0)));
      const away = x < start ? start - x : x > end ? x - end : 0;
      if (away < near || (away === near && test.bad)) [best, near] = [test, away];
    }
    return best;
  },

  choose(test) {
    this.at = test;
    if (test) {
      const end = test.start + (test.duration ?? 0);
      if (test.start < this.from || end > this.to) this.move(test.start - (this.to - this.from) / 3);
      this.said.replaceChildren(...tipOf(test).map((piece) => (piece instanceof HTMLBRElement ? " — " : piece instanceof Node ? piece.textContent + ": " : piece)));
    }
    this.draw();
  },

  step(lanes, places) {
    if (!this.lanes.length) return;
    let lane = this.lanes.findIndex((one) => one.tests.includes(this.at));
    if (lane < 0) return this.choose(this.lanes[0].tests[0]);
    if (places) {
      const all = this.lanes[lane].tests;
      const next = all[all.indexOf(this.at) + places];
      return next && this.choose(next);
    }
    lane += lanes;
    if (!this.lanes[lane]) return;
    this.choose(this.lanes[lane].tests.reduce((a, b) => (Math.abs(b.start - this.at.start) < Math.abs(a.start - this.at.start) ? b : a)));
  },

  listen() {
    const canvas = this.canvas;
    let drag = null;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      if (drag) {
        if (Math.abs(event.clientX - drag.x) > 4) { drag.moved = true; canvas.classList.add("drag"); }
        if (drag.moved) this.move(drag.from - ((event.clientX - drag.x) / (this.width - this.left - 12)) * (this.to - this.from));
        return;
      }
      const test = this.hit(event.clientX - box.left, event.clientY - box.top);
      canvas.style.cursor = test ? "pointer" : "grab";
      if (test) tip.show(event.clientX, event.clientY, ...tipOf(test)); else tip.hide();
    });
    canvas.addEventListener("pointerdown", (event) => {
      drag = { x: event.clientX, from: this.from, moved: false };
      canvas.setPointerCapture(event.pointerId);
      tip.hide();
    });
    canvas.addEventListener("pointerup", (event) => {
      const box = canvas.getBoundingClientRect();
      const test = drag && !drag.moved ? this.hit(event.clientX - box.left, event.clientY - box.top) : null;
      drag = null;
      canvas.classList.remove("drag");
      if (test) openTest(test);
    });
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerleave", () => tip.hide());
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
      event.preventDefault();
      if (event.ctrlKey) this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.time(event.clientX - canvas.getBoundingClientRect().left));
      else this.move(this.from + (event.deltaX / this.width) * (this.to - this.from));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const acts = {
        ArrowRight: () => this.step(0, 1), ArrowLeft: () => this.step(0, -1), ArrowDown: () => this.step(1, 0), ArrowUp: () => this.step(-1, 0),
        "+": () => this.zoom(1 / 1.6), "=": () => this.zoom(1 / 1.6), "-": () => this.zoom(1.6), 0: () => this.all(),
        Enter: () => this.at && openTest(this.at),
      };
      const act = acts[event.key];
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      act();
    });
  },
};

function shortened(pen, text, width) {
  if (width < 8) return "";
  if (pen.measureText(text).width <= width) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pen.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle; else high = middle - 1;
  }
  return low ? `${text.slice(0, low)}…` : "";
}
