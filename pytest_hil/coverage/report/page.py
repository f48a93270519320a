"""The look of the pages, and what little moves on them."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --hit: #d9f2df; --miss: #fbdcdc; --part: #fbefcb;
  --line: #d4d7dc; --dim: #5d6572; }
@media (prefers-color-scheme: dark) { :root { --hit: #12351d; --miss: #4a1c1f; --part: #453612;
  --line: #3a404a; --dim: #9aa3b0; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem clamp(.6rem, 3vw, 2rem); }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
.summary, th { color: var(--dim); } .summary b { color: CanvasText; font-size: 1.2rem; }
table { border-collapse: collapse; } meter { width: 6rem; }
.files { width: 100%; display: block; overflow-x: auto; }
.files th, .files td { text-align: right; padding: .2rem .6rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.files th:first-child, .files td:first-child { text-align: left; width: 100%; }
#filter { font: inherit; padding: .3rem .5rem; margin-bottom: .6rem; width: min(24rem, 100%);
  box-sizing: border-box; }
.page { display: flex; gap: 1rem; align-items: flex-start; }
.source { flex: 1; min-width: 0; display: block; overflow-x: auto; font-size: 13px; }
.source code { white-space: pre; tab-size: 4; }
.source th, .source td { text-align: right; padding: 0 .6rem; font-weight: normal;
  font-variant-numeric: tabular-nums; }
.source td:last-child { text-align: left; padding-left: .2rem; }
.hit td { background: var(--hit); } .miss td { background: var(--miss); }
.part td { background: var(--part); }
button { font: inherit; color: inherit; border: 0; background: none; cursor: pointer; padding: 0;
  text-decoration: underline dotted; }
aside { position: sticky; top: 1rem; width: min(28rem, 40vw); max-height: 90vh; overflow: auto;
  overflow-wrap: anywhere; }
aside ul { padding-left: 1.1rem; }
"""

SCRIPT = """
const filter = document.getElementById('filter');
if (filter) filter.addEventListener('input', () => {
  const words = filter.value.toLowerCase().split(/\\s+/);
  for (const row of document.querySelectorAll('.files tbody tr'))
    row.hidden = !words.every(word => row.cells[0].textContent.toLowerCase().includes(word));
});
const data = document.getElementById('data');
if (data) {
  const known = JSON.parse(data.textContent), panel = document.getElementById('tests');
  document.addEventListener('click', event => {
    const button = event.target.closest('button[data-set]');
    if (!button) return;
    const line = button.closest('tr').id.slice(1), list = document.createElement('ul');
    const title = document.createElement('b'), tests = known.sets[button.dataset.set];
    title.textContent = `line ${line}: reached by ${tests.length} of ` +
      `${Object.keys(known.tests).length} tests`;
    for (const test of tests) {
      const item = document.createElement('li');
      item.textContent = known.tests[test];
      list.append(item);
    }
    panel.replaceChildren(title, list);
    panel.hidden = false;
  });
}
"""
