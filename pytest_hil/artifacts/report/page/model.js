// What Python wrote, with names: the run, its tests, and a test's details on demand.

const model = JSON.parse(document.getElementById("model").textContent);

const OUTCOMES = {
  failed: ["✗", "failed"], error: ["!", "error"], interrupted: ["⏻", "interrupted"], running: ["…", "running"],
  rerun: ["↻", "tried again"], xpassed: ["✓", "passed unexpectedly"], passed: ["✓", "passed"],
  skipped: ["–", "skipped"], xfailed: ["✗", "failed as expected"],
};
const BAD = new Set(["failed", "error", "interrupted"]);
const flaky = new Set(model.flaky);

const tests = model.tests.map((row, number) => {
  const [nodeid, target, worker, outcome, start, duration, phases, reason, markers, directory, attempt, crashes, more] = row;
  const cut = nodeid.lastIndexOf("::");
  // A parameter may have colons of its own.
  const bracket = nodeid.indexOf("[");
  const at = bracket >= 0 && cut > bracket ? nodeid.lastIndexOf("::", bracket) : cut;
  const [machine, origin, opened] = model.origins[number];
  return {
    number, nodeid, target, worker, outcome, start, duration, phases, reason, markers, directory, attempt, crashes, more,
    machine, origin, opened,
    file: at >= 0 ? nodeid.slice(0, at) : "",
    name: at >= 0 ? nodeid.slice(at + 2) : nodeid,
    bad: BAD.has(outcome),
    flaky: flaky.has(number),
    key: `${nodeid}@${target}${attempt > 1 ? `~${attempt}` : ""}`,
    words: "",
  };
});
const byKey = new Map(tests.map((test) => [test.key, test]));

for (const group of model.crashes) {
  for (const number of group.tests) {
    tests[number].words += ` ${group.title}`;
    tests[number].title ||= group.title;
  }
}
for (const test of tests) {
  test.words = `${test.nodeid} ${test.target} ${test.reason} ${test.markers.join(" ")}${test.words}`.toLowerCase();
}

const unpacked = new Map();

// A test's console, events and so on; {} if it has none. Raises what a browser says that cannot unpack.
async function detailsOf(test) {
  if (!test.more) return {};
  if (unpacked.has(test.number)) return unpacked.get(test.number);
  let element = document.getElementById(`d${test.number}`);
  while (!element && document.readyState === "loading") {
    // The page can be used before all of it is read.
    await new Promise((done) => setTimeout(done, 30));
    element = document.getElementById(`d${test.number}`);
  }
  if (!element) throw new Error("this file is cut: it ends before this test's details");
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack consoles");
  const bytes = Uint8Array.from(atob(element.textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const found = JSON.parse(await new Response(stream).text());
  if (unpacked.size > 30) unpacked.delete(unpacked.keys().next().value);
  unpacked.set(test.number, found);
  return found;
}

// Where a file of the run is, from this page.
const fileUrl = (...parts) => model.base + parts.filter(Boolean).map((part) => part.split("/").map(encodeURIComponent).join("/")).join("/");

const fixed = (number, digits) => number.toFixed(digits);

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.0995) return `${fixed(value * 1000, value < 0.00995 ? 1 : 0)} ms`;
  if (value < 9.95) return `${fixed(value, 2)} s`;
  if (value < 59.95) return `${fixed(value, 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const unit = ["kB", "MB", "GB"].find((_, n) => bytes < 1000 ** (n + 2)) || "TB";
  const value = bytes / 1000 ** (["kB", "MB", "GB", "TB"].indexOf(unit) + 1);
  return `${fixed(value, value < 10 ? 1 : 0)} ${unit}`;
}

const plural = (count, word, more = `${word}s`) => `${count.toLocaleString("en")} ${count === 1 ? word : more}`;
const clock = (moment) => new Date(moment * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const quantile = (sorted, part) => sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] : null;
