// All of one test: why it went wrong, what its target said and did, and how to run it again.

const detail = {
  box: document.getElementById("detail"),
  key: null,

  async show(test) {
    if (this.key === (test ? test.key : "")) return;
    this.key = test ? test.key : "";
    this.find = null;
    this.box.replaceChildren();
    this.box.scrollTop = 0;
    if (!test) {
      this.box.append(el("p", { class: "nothing" }, tests.length ? "Choose a test: click, or j and k." : ""));
      return;
    }
    this.box.append(...headOf(test));
    let more;
    try {
      more = await detailsOf(test);
    } catch (error) {
      more = {};
      this.box.append(el("p", { class: "part warn" }, `The details cannot be shown: ${error.message}. The files are in `, el("a", { href: fileUrl(test.directory) }, test.directory), "."));
    }
    if (this.key !== test.key) return;
    const parts = partsOf(test, more);
    this.box.append(...parts.map((part) => part.part));
    this.find = parts.find((part) => part.field)?.field;
    for (const part of parts) part.settle?.();
  },
};

function headOf(test) {
  const badge = (label, value) => value ? el("span", { class: "badge" }, label, el("b", {}, value)) : null;
  const machine = test.machine >= 0 ? Object.entries(model.machines[test.machine][1]).map(([key, value]) => (key === "CPUs" ? `${value} CPU${value === "1" ? "" : "s"}` : value)).join(", ") : "";
  const others = tests.filter((other) => other.nodeid === test.nodeid && other !== test);
  return [
    el("button", { type: "button", class: "quiet back", onclick: closeTest }, "← All tests"),
    el("div", { class: `detail-head ${test.outcome}` }, icon(test.outcome), el("div", { css: { "min-width": "0" } },
      el("h2", {}, test.name), el("p", { class: "path" }, test.file))),
    el("div", { class: "badges" },
      el("span", { class: `badge tone ${test.outcome}` }, OUTCOMES[test.outcome][1]),
      test.flaky ? el("span", { class: "badge tone rerun" }, "flaky: failed, then passed") : null,
      test.attempt > 1 ? badge("try", String(test.attempt)) : null,
      badge("on", test.target), badge("worker", test.worker), badge("took", seconds(test.duration)),
      test.start === null ? null : el("span", { class: "badge", title: new Date((model.start + test.start) * 1000).toString() }, "began", el("b", {}, clock(model.start + test.start)), `+${seconds(test.start)}`),
      test.origin ? badge(test.origin.split(" ")[0], test.opened === null ? "" : seconds(test.opened)) : null,
      badge("machine", machine),
      test.markers.map((name) => el("button", { type: "button", class: "badge", title: "Show tests with this marker", onclick: () => change({ m: name }) }, `@${name}`))),
    phasesOf(test),
    el("div", { class: "command", title: model.run.root ? `In ${model.run.root}` : "" }, el("code", {}, model.commands[test.number]), copyButton(model.commands[test.number])),
    others.length ? el("p", { class: "links" }, "Also ran as: ",
      others.slice(0, 12).map((other) => el("span", { class: other.outcome }, testLink(other, `${OUTCOMES[other.outcome][0]} ${other.target || "no target"}${other.attempt > 1 ? ` try ${other.attempt}` : ""}`)))) : null,
  ].filter(Boolean);
}

function phasesOf(test) {
  if (!test.phases) return null;
  const names = ["setup", "call", "teardown"];
  const total = test.phases.reduce((a, b) => a + b, 0) || 1;
  return el("div", { class: "phases-box" },
    el("div", { class: "phases", "aria-hidden": "true" }, names.map((name, n) => el("span", { class: name, css: { flex: String(test.phases[n] / total) } }))),
    el("div", { class: "legend" }, names.map((name, n) => el("span", {}, el("span", { class: `key ${name}` }), `${name === "setup" ? "set-up" : name === "teardown" ? "tear-down" : name} ${seconds(test.phases[n])}`))));
}

function partsOf(test, more) {
  const crashes = more.crashes || [];
  const parts = crashes.map((crash) => ({ part: crashBox(crash, crash === crashes[0]) }));
  if (more.text) parts.push({ part: failurePart(more.text) });
  else if (test.reason && !crashes.length) parts.push({ part: el("section", { class: "part" }, el("h3", {}, test.outcome === "skipped" ? "Why it was skipped" : "Why"), el("pre", { class: "text" }, test.reason)) });
  if (test.outcome === "interrupted") parts.push({ part: el("p", { class: "part warn" }, "It did not end: the run or its worker was killed. What was written until then is here.") });
  for (const one of more.consoles || []) parts.push(consolePart(test, one, crashes));
  if (more.events) parts.push({ part: eventsPart(test, more) });
  if (more.usb) parts.push({ part: usbPart(test, more.usb) });
  if (more.files) {
    parts.push({ part: el("section", { class: "part" }, el("h3", {}, "Files"), el("div", { class: "links" },
      more.files.map(([name, bytes]) => el("a", { href: fileUrl(test.directory, name) }, `${name} · ${size(bytes)}`)))) });
  }
  if (!more.consoles && !more.text && !test.reason) parts.push({ part: el("p", { class: "part note" }, test.target ? "It left nothing else." : "It used no target.") });
  return parts;
}

function crashBox(crash, open) {
  const lines = crash.text ? crash.text.split("\n").length : 0;
  return el("section", { class: `crash-box${crash.follow_up ? " follow" : ""}` }, el("div", { class: "crash-line" },
    el("span", { class: "icon crash", role: "img", "aria-label": "crash" }, "!"),
    el("div", { class: "grow" },
      el("h3", {}, crash.title),
      el("p", { class: "sub" }, [crash.kind, crash.severity, crash.follow_up ? "follows from the one before" : "", typeof crash.t === "number" ? `at ${fixed(crash.t, 3)} s` : ""].filter(Boolean).join(" · ")),
      crash.text ? el("details", open && lines < 60 ? { open: true } : {}, el("summary", {}, `The report, ${plural(lines, "line")}`), el("pre", { class: "text" }, crash.text)) : null)));
}

function failurePart(text) {
  const body = el("pre", { class: "text", tabindex: "0" });
  for (const line of text.split("\n")) {
    const cls = /^E( |$)/.test(line) ? "e" : /^>/.test(line) ? "arrow" : "";
    body.append(cls ? el("span", { class: cls }, line) : line, "\n");
  }
  return el("section", { class: "part" }, el("div", { class: "part-head" }, el("h3", {}, "What pytest says"), el("span", { class: "right" }, copyButton(text))), body);
}

function eventsPart(test, more) {
  const rows = more.events.map((event) => {
    const facts = Object.entries(event).filter(([key]) => key !== "t" && key !== "kind");
    return el("tr", {}, el("td", { class: "num mono" }, typeof event.t === "number" ? fixed(event.t, 3) : ""), el("td", { class: "mono" }, String(event.kind ?? "?")),
      el("td", { class: "mono" }, facts.map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  ")));
  });
  if (more.events_left_out) {
    rows.splice(50, 0, el("tr", {}, el("td", { colspan: 3 }, more.events_left_out > 0 ? `… ${plural(more.events_left_out, "event")} left out: see events.jsonl …` : "… more events left out: see events.jsonl …")));
  }
  return el("section", { class: "part" },
    el("div", { class: "part-head" }, el("h3", {}, "Events"), el("span", { class: "note" }, "what happened to the target, in seconds since the test began")),
    el("div", { class: "scroll", tabindex: "0" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { class: "num" }, "s"), el("th", {}, "event"), el("th", {}, "facts"))), el("tbody", {}, rows))));
}

const ERRORS = { "-32": "stall", "-104": "unlinked", "-2": "unlinked", "-108": "shut down", "-110": "timed out", "-71": "protocol error", "-75": "overflow", "-121": "short", "-19": "no device" };

function usbPart(test, usb) {
  const rows = usb.endpoints.map((one) => el("tr", {},
    el("td", { class: "mono" }, one.device), el("td", { class: "mono" }, `0x${one.address.toString(16).padStart(2, "0")} ${one.address & 0x80 ? "IN" : "OUT"}`), el("td", {}, one.type),
    el("td", { class: "num" }, one.transfers.toLocaleString("en")), el("td", { class: "num" }, size(one.size)),
    el("td", {}, Object.entries(one.errors).map(([status, count]) => `${ERRORS[status] || status} ×${count}`).join(", "))));
  return el("section", { class: "part" },
    el("div", { class: "part-head" }, el("h3", {}, "USB"), el("span", { class: "note" }, `${size(usb.size)} in ${seconds(usb.seconds)}`, usb.whole ? "" : el("span", { class: "warn" }, "; only the first transfers are counted"), " · ",
      el("a", { href: fileUrl(test.directory, "usb.pcap") }, "usb.pcap"), " for Wireshark")),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "device"), el("th", {}, "endpoint"), el("th", {}, "type"), el("th", { class: "num" }, "transfers"), el("th", { class: "num" }, "data"), el("th", {}, "ended with"))), el("tbody", {}, rows))));
}
