// Elements from plain values. Text goes in as text: nothing here, or anywhere in this page, parses HTML.

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "css") for (const [key, each] of Object.entries(value)) made.style.setProperty(key, each);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [key, each] of Object.entries(value)) made.style.setProperty(key, each);
    else made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter(Boolean));
  return made;
}

const icon = (outcome) => el("span", { class: `icon ${outcome}`, role: "img", "aria-label": OUTCOMES[outcome][1] }, OUTCOMES[outcome][0]);

// The pieces of a text with what was searched for marked.
function marked(text, words, cls) {
  const found = words.filter(Boolean);
  if (!found.length) return [text];
  const lower = text.toLowerCase();
  const pieces = [];
  let at = 0;
  while (at < text.length) {
    let next = -1, length = 0;
    for (const word of found) {
      const here = lower.indexOf(word, at);
      if (here >= 0 && (next < 0 || here < next)) [next, length] = [here, word.length];
    }
    // A letter whose small form is longer moves all that follows: then nothing is marked.
    if (next < 0 || lower.length !== text.length) break;
    if (next > at) pieces.push(text.slice(at, next));
    pieces.push(el("mark", cls ? { class: cls } : {}, text.slice(next, next + length)));
    at = next + length;
  }
  if (at < text.length) pieces.push(text.slice(at));
  return pieces;
}

function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => place.classList.remove("on"), 1600);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages from a disk may not have the clipboard's newer interface.
    const field = el("textarea", { class: "hidden", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast("Copied");
}

const copyButton = (text, label = "Copy") => el("button", { type: "button", class: "quiet", onclick: () => copy(text) }, label);

const tip = {
  place: document.getElementById("tip"),
  show(x, y, ...children) {
    this.place.replaceChildren(...children);
    this.place.hidden = false;
    const box = this.place.getBoundingClientRect();
    const left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8));
    const top = y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18;
    this.place.style.left = `${left}px`;
    this.place.style.top = `${top}px`;
  },
  hide() { this.place.hidden = true; },
};

const tipOf = (test) => [
  el("b", {}, `${OUTCOMES[test.outcome][0]} ${test.name}`),
  `${OUTCOMES[test.outcome][1]} on ${test.target || "no target"}${test.worker ? `, ${test.worker}` : ""}`,
  el("br"),
  [test.duration === null ? "" : seconds(test.duration), test.start === null ? "" : `from ${seconds(test.start) || "0 s"}`,
    test.opened === null ? "" : `machine in ${seconds(test.opened)}`].filter(Boolean).join(" · "),
  ...(test.title || test.reason ? [el("br"), test.title || test.reason] : []),
];
