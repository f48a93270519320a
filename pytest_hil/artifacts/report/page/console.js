// A console with the times of its lines, found text, and the lines of a crash.

const STEP = 2500;

function consolePart(test, one, crashes) {
  const lines = one.text.split("\n");
  if (!one.text) lines.pop();
  const times = [];
  let at = 0;
  for (const step of one.times || []) times.push(at += step);
  const hits = crashLines(lines, crashes);

  const box = el("div", { class: `console ${narrow.matches ? "wrap" : ""}${one.times ? "" : " bare"}`, tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Console" });
  const body = el("div", { class: "console-lines" });
  box.append(body);
  const made = new Map();
  // Of a long console the end first: that is where it stopped.
  let from = Math.max(0, lines.length - STEP);

  const lineOf = (number) => {
    const time = times[number];
    const line = el("div", { class: `l${hits.has(number) ? " hit" : ""}${number < one.inherited ? " old" : ""}` },
      el("span", { class: "t" }, time === undefined ? "" : fixed(time / 1000, 3)),
      el("span", { class: "x" }, lines[number]));
    made.set(number, line);
    return line;
  };
  const rule = (text) => el("div", { class: "rule" }, text);
  const some = (first, last) => {
    const pieces = document.createDocumentFragment();
    for (let number = first; number < last; number++) {
      if (number === one.inherited && one.inherited > 0) pieces.append(rule("here this test's machine begins; above, its template booted"));
      pieces.append(lineOf(number));
    }
    if (last === lines.length && one.inherited === lines.length && last) pieces.append(rule("here this test's machine begins: it said nothing"));
    return pieces;
  };
  const more = el("button", { type: "button", class: "quiet", onclick: () => show(Math.max(0, from - STEP)) });
  const show = (first) => {
    const height = box.scrollHeight;
    more.after(some(first, from));
    from = first;
    more.hidden = !from;
    more.textContent = `Show ${plural(Math.min(from, STEP), "earlier line")}`;
    box.scrollTop += box.scrollHeight - height;
  };
  body.append(more, some(from, lines.length));
  more.hidden = !from;
  more.textContent = `Show ${plural(Math.min(from, STEP), "earlier line")}`;
  if (one.cut) body.prepend(rule(`about ${size(one.cut)} before this are in the file only`));

  const go = (number) => {
    if (number < from) show(number);
    const line = made.get(number);
    // Within the console's own box: the page stays where it is.
    box.scrollTop = line.offsetTop - box.offsetTop - box.clientHeight / 3;
  };
  // The end is what matters, or the crash.
  const settle = () => { if (hits.size) go(Math.min(...hits)); else box.scrollTop = box.scrollHeight; };

  const found = { places: [], now: -1, word: "" };
  const tally = el("span", { class: "note", role: "status", "aria-live": "polite" });
  const mark = (number, now) => {
    const line = made.get(number);
    if (line) line.lastChild.replaceChildren(...marked(lines[number], found.word ? [found.word] : [], now ? "now" : ""));
  };
  const find = (word) => {
    const old = found.places;
    found.word = "";
    for (const number of old) mark(number);
    found.word = word.toLowerCase();
    found.places = [];
    if (word) for (let n = 0; n < lines.length; n++) if (lines[n].toLowerCase().includes(found.word)) found.places.push(n);
    found.now = found.places.length;
    if (found.places.length && found.places[0] < from) show(0);
    for (const number of found.places) mark(number);
    if (word) step(-1); else tally.textContent = "";
  };
  const step = (by) => {
    if (!found.places.length) { tally.textContent = found.word ? "not found" : ""; return; }
    if (found.now >= 0 && found.now < found.places.length) mark(found.places[found.now]);
    found.now = (found.now + by + found.places.length) % found.places.length;
    mark(found.places[found.now], true);
    go(found.places[found.now]);
    tally.textContent = `${found.now + 1} of ${found.places.length}`;
  };
  let later;
  const field = el("input", { class: "find", type: "search", placeholder: "Find in console", "aria-label": "Find in this console", spellcheck: "false",
    oninput: () => { clearTimeout(later); later = setTimeout(() => find(field.value), 120); },
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      clearTimeout(later);
      if (field.value.toLowerCase() !== found.word) find(field.value); else step(event.shiftKey ? 1 : -1);
    } });
  const toggle = (label, name, on) => {
    const button = el("button", { type: "button", class: "quiet", "aria-pressed": on, onclick: () => {
      button.setAttribute("aria-pressed", box.classList.toggle(name) !== (name === "bare"));
    } }, label);
    return button;
  };
  const log = fileUrl(test.directory, one.label, "console.log");
  const part = el("section", { class: "part" },
    el("div", { class: "part-head" },
      el("h3", {}, one.label ? `Console of ${one.label}` : "Console"),
      el("span", { class: "note" }, one.cut ? el("span", { class: "warn" }, `cut: the last ${size(Math.max(0, one.size - one.cut))} of ${size(one.size)}`) : size(one.size),
        " · ", el("a", { href: log }, "the whole file")),
      el("span", { class: "right" }, tally, field,
        hits.size ? el("button", { type: "button", class: "quiet", onclick: settle }, "To the crash") : null,
        one.times ? toggle("Times", "bare", true) : null,
        toggle("Wrap", "wrap", narrow.matches))),
    one.times ? null : el("p", { class: "note warn" }, "The times are missing: console.jsonl is cut or gone."),
    lines.length ? box : el("p", { class: "note" }, "It said nothing."));
  return { part, settle, field };
}

// The lines that belong to a crash: where its text is found, or its first line.
function crashLines(lines, crashes) {
  const found = new Set();
  for (const crash of crashes) {
    const text = crash.text.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!text.length) continue;
    let start = lines.findIndex((line) => line.includes(text[0]));
    if (start < 0) continue;
    for (let n = 0; n < text.length && start + n < lines.length; n++) {
      if (n && !lines[start + n].includes(text[n])) continue;
      found.add(start + n);
    }
  }
  return found;
}
