"""Style and script of report.html, kept inside the page so that it works from disk."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --faint: #667; --line: #e4e4ea;
  --soft: #f5f5f8; --accent: #b87a00; --bar: #e69f00; --warn: #fff4dc; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15161a; --ink: #ececf0; --faint: #9a9aa6;
  --line: #2c2d34; --soft: #1e1f25; --accent: #f0b43c; --warn: #33290f; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 80px; max-width: 1240px; background: var(--page);
  color: var(--ink); font: 15px/1.45 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 24px; letter-spacing: -.01em; }
h2 { margin: 22px 0 6px; font-size: 15px; }
.sub { margin: 2px 0 16px; color: var(--faint); }
.warning { margin: 0 0 18px; padding: 10px 14px; border-left: 4px solid var(--bar);
  border-radius: 4px; background: var(--warn); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 14px; }
.tiles div { padding: 9px 16px; border-radius: 8px; background: var(--soft); color: var(--faint); }
.tiles b { display: block; color: var(--ink); font-size: 21px; font-variant-numeric: tabular-nums; }
details { margin: 0 0 18px; }
summary { cursor: pointer; color: var(--accent); }
details table { border-collapse: collapse; }
details td, details th { padding: 3px 18px 3px 0; text-align: left; font-weight: normal;
  vertical-align: top; }
details th { color: var(--faint); white-space: nowrap; }
details ul { margin: 4px 0; padding-left: 20px; }
.tools { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 0 0 10px; }
.tools button, .tools input { padding: 6px 12px; border: 1px solid var(--line); border-radius: 7px;
  background: var(--page); color: var(--ink); font: inherit; }
.tools button { cursor: pointer; }
.tools button[aria-pressed=true] { border-color: var(--accent); color: var(--accent); }
.tools input { flex: 1 1 180px; max-width: 320px; }
#shown { margin-left: auto; color: var(--faint); }
#images { width: 100%; border-collapse: collapse; table-layout: fixed; }
#images th { position: sticky; top: 0; padding: 0; border-bottom: 2px solid var(--line);
  background: var(--page); text-align: left; }
#images th button { width: 100%; padding: 9px 8px; border: 0; background: none; color: inherit;
  font: inherit; font-weight: 600; text-align: inherit; white-space: nowrap; cursor: pointer; }
#images th button::after { content: " \\2195"; opacity: .3; }
#images th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
#images th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
#images th.plain { padding: 9px 8px; }
#images td { padding: 7px 8px; border-bottom: 1px solid var(--line); vertical-align: middle;
  overflow-wrap: anywhere; }
#images .number, #images th.number { text-align: right; font-variant-numeric: tabular-nums; }
#images img { display: block; max-width: 104px; max-height: 104px; border-radius: 4px; }
#images a { color: var(--accent); }
#images .unsorted tr:nth-child(n+201) { display: none; }
#more { margin: 14px 0; padding: 8px 16px; border: 1px solid var(--line); border-radius: 7px;
  background: var(--page); color: var(--accent); font: inherit; cursor: pointer; }
.file { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.name, .links { font-size: 14px; }
.file, .note { color: var(--faint); font-size: 13px; }
.error { color: var(--bad); }
.bar { height: 4px; margin-top: 4px; border-radius: 2px; background: var(--soft); }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--bar); }
/* On a phone there is no place for columns: a row's cells stand one below another. */
@media (max-width: 700px) {
  body { padding: 18px 14px 60px; }
  details th { white-space: normal; }
  #images, #images tbody { display: block; }
  #images colgroup, #images th.plain, #images td:empty { display: none; }
  #images thead tr { display: flex; flex-wrap: wrap; border-bottom: 2px solid var(--line); }
  #images th { position: static; border: 0; }
  #images th button { padding: 7px 10px 7px 0; }
  #images tbody tr:not([hidden]) { display: grid; grid-template-columns: 104px minmax(0, 1fr);
    column-gap: 12px; padding: 10px 0; border-bottom: 1px solid var(--line); }
  #images td { grid-column: 2; padding: 1px 0; border: 0; }
  #images td.picture { grid-column: 1; grid-row: 1 / span 7; }
  #images td.number { text-align: left; }
  #images td[data-label]::before { content: attr(data-label) " "; color: var(--faint); }
}
@media print { .tools { display: none; } #images th { position: static; } }
"""

SCRIPT = """
'use strict';
const body = document.querySelector('#images tbody');
const rows = Array.from(body.rows);
const heads = Array.from(document.querySelectorAll('#images th[data-key]'));
const chosen = { filter: 'all', text: '', limit: 200 };
const words = new Intl.Collator(undefined, { numeric: true });
const more = document.querySelector('#more');

function sortBy(head, direction) {
  const key = head.dataset.key, numeric = head.classList.contains('number');
  const sign = direction === 'ascending' ? 1 : -1;
  const value = row => row.dataset[key] ?? '';
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === '' || y === '') return (x === '') - (y === '');  // missing values last
    const order = numeric ? x - y : words.compare(x, y);
    return sign * order || a.dataset.order - b.dataset.order;
  });
  const sorted = document.createDocumentFragment();
  for (const row of rows) sorted.append(row);
  body.append(sorted);
  show();
  for (const other of heads) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', direction);
}

function show() {
  let count = 0;  // laying out ten thousand rows takes half a minute, so only some are shown
  for (const row of rows) {
    const kind = chosen.filter === 'all' || row.dataset.kind === chosen.filter;
    const fits = kind && row.dataset.name.toLowerCase().includes(chosen.text);
    row.hidden = !(fits && count < chosen.limit);
    count += fits;
  }
  document.querySelector('#shown').textContent = `${count} of ${rows.length} files`;
  more.hidden = count <= chosen.limit;
}

for (const head of heads) {
  head.querySelector('button').addEventListener('click', () => {
    const usual = head.classList.contains('number') ? 'descending' : 'ascending';
    const reverse = usual === 'ascending' ? 'descending' : 'ascending';
    sortBy(head, head.getAttribute('aria-sort') === usual ? reverse : usual);
  });
}
const filters = Array.from(document.querySelectorAll('.tools button'));
for (const button of filters) {
  button.addEventListener('click', () => {
    chosen.filter = button.dataset.filter;
    for (const other of filters) other.setAttribute('aria-pressed', other === button);
    show();
  });
}
document.querySelector('#search').addEventListener('input', event => {
  chosen.text = event.target.value.toLowerCase();
  show();
});
more.addEventListener('click', () => { chosen.limit += 1000; show(); });
sortBy(heads.find(head => head.dataset.key === 'probability'), 'descending');
body.classList.remove('unsorted');
"""
