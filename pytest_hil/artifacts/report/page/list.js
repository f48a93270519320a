// The list of tests: only the rows that can be seen are elements, so thousands cost nothing.

const ROW = 52;

const list = {
  box: document.getElementById("list"),
  space: document.getElementById("list-space"),
  tests: [],
  rows: new Map(),

  fill() {
    this.tests = shown();
    this.places = new Map(this.tests.map((test, place) => [test.key, place]));
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.space.replaceChildren();
    this.space.style.height = this.tests.length ? `${this.tests.length * ROW}px` : "";
    if (!this.tests.length) {
      this.space.append(el("div", { class: "nothing" }, tests.length ? "No test fits." : "This run has no tests.",
        el("br"), tests.length ? el("button", { type: "button", class: "quiet", onclick: clearFilters }, "Show all") : null));
    }
    document.getElementById("count").textContent =
      this.tests.length === tests.length ? plural(tests.length, "test") : `${this.tests.length.toLocaleString("en")} of ${plural(tests.length, "test")}`;
    this.draw();
  },

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 8);
    const last = Math.min(this.tests.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + 8);
    for (const [place, row] of this.rows) {
      if (place < first || place >= last) {
        row.remove();
        this.rows.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (!this.rows.has(place)) {
        const row = this.row(this.tests[place], place);
        this.rows.set(place, row);
        this.space.append(row);
      }
    }
    this.select();
  },

  row(test, place) {
    const words = searched();
    const bracket = test.name.indexOf("[");
    const name = bracket > 0 ? [test.name.slice(0, bracket), test.name.slice(bracket)] : [test.name, ""];
    const why = test.title || test.reason;
    return el("div", {
      class: `row ${test.outcome}`, role: "option", id: `row-${test.number}`, "aria-setsize": this.tests.length,
      "aria-posinset": place + 1, css: { top: `${place * ROW}px` }, title: test.nodeid,
      onclick: () => openTest(test),
    },
    icon(test.outcome),
    el("div", { class: "name-box", css: { "min-width": "0" } },
      el("div", { class: "name" }, marked(name[0], words), name[1] ? el("i", {}, marked(name[1], words)) : null),
      el("div", { class: why && test.bad ? "sub why" : "sub" }, why && test.outcome !== "passed" ? marked(why, words) : marked(test.file, words))),
    el("div", { class: "when" }, el("b", {}, seconds(test.duration)), el("br"),
      [test.target, test.attempt > 1 ? `try ${test.attempt}` : "", test.flaky ? "flaky" : ""].filter(Boolean).join(" · ")));
  },

  select() {
    let active = "";
    for (const [place, row] of this.rows) {
      const on = this.tests[place].key === state.id;
      row.setAttribute("aria-selected", on);
      if (on) active = row.id;
    }
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  },

  reveal() {
    const place = this.places.get(state.id);
    if (place === undefined) return;
    const top = place * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    this.draw();
  },

  // The test so many places further on, from the chosen one.
  move(step) {
    if (!this.tests.length) return;
    const place = this.places.get(state.id);
    const next = place === undefined ? (step > 0 ? 0 : this.tests.length - 1) : Math.max(0, Math.min(this.tests.length - 1, place + step));
    change({ id: this.tests[next].key });
  },

  nextBad(step) {
    const from = this.places.get(state.id) ?? (step > 0 ? -1 : this.tests.length);
    for (let place = from + step; place >= 0 && place < this.tests.length; place += step) {
      if (this.tests[place].bad) return change({ id: this.tests[place].key });
    }
    toast("No further failure");
  },
};

list.box.addEventListener("scroll", () => list.draw(), { passive: true });
new ResizeObserver(() => list.draw()).observe(list.box);

const narrow = matchMedia("(max-width: 820px)");

function openTest(test) {
  change({ view: "tests", id: test.key }, { push: true });
  document.getElementById("panes").classList.add("open");
  if (narrow.matches) document.getElementById("detail").focus();
}

function closeTest() {
  document.getElementById("panes").classList.remove("open");
  list.box.focus();
}

function clearFilters() {
  change({ q: "", o: "", t: "", w: "", m: "" });
  document.getElementById("search").value = "";
}

const testLink = (test, text = test.name) => el("a", {
  href: hashOf({ view: "tests", id: test.key }),
  onclick: (event) => { event.preventDefault(); openTest(test); },
}, text);
