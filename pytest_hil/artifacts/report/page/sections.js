// Crashes by title, coverage, and what the run was.

function crashesView(view) {
  if (!model.crashes.length) {
    view.replaceChildren(el("p", { class: "nothing" }, "No target crashed."));
    return;
  }
  view.replaceChildren(...model.crashes.map((group) => {
    const first = tests[group.first];
    const bodies = group.tests.map((number) => tests[number]);
    const targets = [...new Set(bodies.map((test) => test.target))];
    return el("section", { class: "card crash-group" }, el("div", { class: "crash-line" },
      el("span", { class: "icon crash", role: "img", "aria-label": "crash" }, "!"),
      el("div", { class: "grow" },
        el("h2", { class: "mono-title" }, group.title),
        el("div", { class: "badges" }, [group.kind, group.severity].filter(Boolean).map((word) => el("span", { class: "badge" }, word)),
          el("span", { class: "badge" }, el("b", {}, plural(group.tests.length, "test"))), el("span", { class: "badge" }, `on ${targets.join(", ")}`),
          group.follow_ups ? el("span", { class: "badge" }, `${plural(group.follow_ups, "time")} after another crash`) : null),
        el("p", {}, "First in ", testLink(first), first.start === null ? "" : ` at ${clock(model.start + first.start + (group.t ?? 0))} (+${seconds(first.start + (group.t ?? 0))})`, first.worker ? ` on ${first.worker}` : "", "."),
        group.text ? el("details", {}, el("summary", {}, "The first report"), el("pre", { class: "text" }, group.text)) : null,
        bodies.length > 1 ? el("details", bodies.length <= 5 ? { open: true } : {}, el("summary", {}, `All ${plural(bodies.length, "test")}`),
          el("div", { class: "links" }, bodies.slice(0, 200).map((test) => testLink(test, `${OUTCOMES[test.outcome][0]} ${test.name}${targets.length > 1 ? ` on ${test.target}` : ""}`)),
            bodies.length > 200 ? el("span", {}, `and ${bodies.length - 200} more`) : null)) : null)));
  }));
}

function coverageView(view) {
  const [covered, total] = model.coverage_total;
  const share = (part, whole) => (whole ? `${fixed((100 * part) / whole, 1)} %` : "–");
  const field = el("input", { class: "find", type: "search", placeholder: "Find a file", "aria-label": "Find a file", oninput: () => fill() });
  const body = el("tbody");
  const note = el("span", { class: "note", role: "status" });
  const fill = () => {
    const word = field.value.toLowerCase();
    const found = model.coverage.filter(([name]) => name.toLowerCase().includes(word));
    note.textContent = found.length > 500 ? `the first 500 of ${plural(found.length, "file")}` : plural(found.length, "file");
    body.replaceChildren(...found.slice(0, 500).map(([name, part, whole]) => el("tr", {}, el("td", { class: "mono" }, name), el("td", { class: "num" }, (whole - part).toLocaleString("en")), el("td", { class: "num" }, whole.toLocaleString("en")),
      el("td", { css: { width: "20%", "min-width": "60px" } }, el("div", { class: "bar passed", css: { "margin-top": "6px" } }, el("span", { css: { width: `${whole ? (100 * part) / whole : 0}%` } }))), el("td", { class: "num" }, share(part, whole)))));
  };
  fill();
  view.replaceChildren(el("div", { class: "card" }, el("h2", {}, "Coverage"), el("p", { class: "lead" }, "Lines that ran on the targets; those files first that have most lines left."),
    figures([["of all lines", share(covered, total)], ["lines ran", covered.toLocaleString("en")], ["lines", total.toLocaleString("en")]]),
    el("div", { class: "part-head" }, field, note),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "file"), el("th", { class: "num" }, "not run"), el("th", { class: "num" }, "lines"), el("th"), el("th", { class: "num" }, "run"))), body)));
}

function runView(view) {
  const run = model.run;
  const pairs = [["run", run.id], ["began", new Date(model.start * 1000).toString()], ["took", seconds(model.end - model.start)],
    ["state", run.status], ["targets", run.targets.join(", ")], ["in", run.root], ["this page", `made ${new Date(model.made * 1000).toString()}`], ...Object.entries(run.facts)];
  const words = run.argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`));
  const line = ["pytest", ...words].join(" ");
  view.replaceChildren(
    el("div", { class: "card" }, el("h2", {}, "The run"), el("p", { class: "lead" }, "What was asked for, and where."),
      el("div", { class: "command" }, el("code", {}, line), copyButton(line)),
      el("dl", { class: "pairs part" }, pairs.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]))),
    el("div", { class: "card" }, el("h2", {}, "Machines"), el("p", { class: "lead" }, "What the targets were, as they were opened."),
      el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "target"), el("th", {}, "what it is"), el("th", { class: "num" }, "tests"))), el("tbody", {},
        model.machines.map(([target, described], number) => el("tr", {}, el("td", {}, target), el("td", {}, Object.entries(described).map(([key, value]) => `${key}: ${value}`).join(", ") || "–"),
          el("td", { class: "num" }, String(tests.filter((test) => test.machine === number).length)))))))),
    el("div", { class: "card" }, el("h2", {}, "Files"), el("div", { class: "links" }, model.files.map(([name, bytes]) => el("a", { href: fileUrl(name) }, `${name} · ${size(bytes)}`)))));
}
