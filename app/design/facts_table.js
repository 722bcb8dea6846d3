// The editable table of facts. Values reach the page only through `.value` and `.textContent`, never as HTML.
// Props: value = {relation, rows: [[number, subject, object, alternatives]], taken, draft, revision},
//   marks = {rows: {number: [[column, severity, message]]}, taken, draft, revision}; `taken`: the last step that the lab
//   knows. Answers overtake each other: of the same draft one of an earlier revision than the last comes too late.
// Events: rows {relation, steps, words} after an edit; paste_rows {relation, steps, above, text} for a pasted table.
// A step: {number, cells: [[row, row above, subject or null, object or null]], removed: [row]}. Only what was changed
// here is sent, with every step that is not confirmed yet, so that neither another tab nor a late answer undoes it.
const SIZE = 25, WAIT = 300, MOST = 10000;
const box = element.querySelector(".facts-table");
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const table = make("table"), body = make("tbody"), foot = make("div", { class: "facts-foot" });
table.append(
  make("thead", {}, make("tr", {},
    make("th", { class: "n", scope: "col", "aria-label": "Row" }),
    make("th", { scope: "col", text: "Subject" }),
    make("th", { scope: "col", text: "Object" }),
    make("th", { class: "x", "aria-label": "Remove" }))),
  body);
box.replaceChildren(table, foot);

let rows = [], relation = "", page = 0, timer = null, waiting = false;
let known = new Map(), steps = 0;  // known: the rows as the steps so far leave them
let kept = [], taken = 0;  // kept: the steps that the rows last shown don't have; taken: the last that the lab knows
let marks = {};
const seen = { value: null, marks: null };
const late = (name, told) => {
  const last = seen[name];
  if (last && last.draft === told.draft && told.revision < last.revision) return true;
  seen[name] = told;
  return false;
};
const pages = () => Math.max(1, Math.ceil((rows.length + 1) / SIZE));
const cells = (place) => body.querySelectorAll(`tr[data-place="${place}"] input`);
const newNumber = () => 1 + Math.floor(Math.random() * 2 ** 48);

const learn = () => { known = new Map(rows.map((r) => [r[0], [r[1], r[2]]])); };
const note = () => {
  const now = new Set(rows.map((r) => r[0])), changed = [];
  rows.forEach(([number, subject, object], place) => {
    const old = known.get(number) || [null, null];
    if (old[0] === subject && old[1] === object) return;
    changed.push([number, rows[place - 1]?.[0] ?? null, old[0] === subject ? null : subject, old[1] === object ? null : object]);
  });
  const removed = [...known.keys()].filter((number) => !now.has(number));
  if (changed.length || removed.length) kept.push({ number: ++steps, cells: changed, removed });
  learn();
};
const confirmed = (number) => { taken = Math.max(taken, number || 0); };
const pending = () => kept.filter((step) => step.number > taken);
const send = (words) => {
  clearTimeout(timer);
  waiting = false;
  note();
  const left = pending();
  if (left.length) trigger("rows", { relation, steps: left, words: words || "" });
};
const later = () => { waiting = true; clearTimeout(timer); timer = setTimeout(() => send(), WAIT); };
const flush = () => { if (waiting) send(); };

const rowNode = (place) => {
  const row = rows[place], last = place === rows.length;
  const node = make("tr", { "data-place": place, ...(last ? { class: "spare" } : {}) });
  node.append(make("td", { class: "n", text: last ? "+" : place + 1 }));
  ["Subject", "Object"].forEach((name, column) => {
    const input = make("input", { type: "text", dir: "auto", autocomplete: "off", spellcheck: "false" });
    input.setAttribute("aria-label", `${name}, row ${place + 1}`);
    input.dataset.column = column;
    input.value = last ? "" : row[column + 1];
    if (last) input.placeholder = column ? "Object" : rows.length ? "Add a row" : "Type here, or paste rows from a spreadsheet";
    const cell = make("td", {}, input);
    if (column && !last && row[3]) {
      cell.append(make("span", { class: "more", text: `+${row[3]}`, title: `${row[3]} alternatives of its own for the multiple choice` }));
    }
    node.append(cell);
  });
  const cell = make("td", { class: "x" });
  if (!last) cell.append(make("button", { type: "button", text: "×", title: "Remove this row", "aria-label": `Remove row ${place + 1}` }));
  node.append(cell);
  return node;
};

const mark = () => {
  body.querySelectorAll("tr.problem").forEach((n) => n.remove());
  body.querySelectorAll("input").forEach((n) => { n.removeAttribute("aria-invalid"); n.removeAttribute("data-mark"); });
  for (const node of [...body.children]) {
    const found = marks[rows[node.dataset.place]?.[0]];
    if (!found) continue;
    const words = make("td", { colspan: 3 });
    for (const [column, severity, message] of found) {
      const input = node.querySelector(`input[data-column="${column === "object" ? 1 : 0}"]`);
      input.dataset.mark = severity;
      if (severity === "error") input.setAttribute("aria-invalid", "true");
      words.append(make("p", { class: severity, text: message }));
    }
    node.after(make("tr", { class: "problem" }, make("td"), words));
  }
  const places = rows.flatMap((r, place) => (marks[r[0]] ? [place] : []));
  const elsewhere = places.filter((p) => Math.floor(p / SIZE) !== page);
  foot.replaceChildren();
  const button = (text, action, off) => {
    const node = make("button", { type: "button", class: "link", text });
    node.disabled = Boolean(off);
    node.onclick = action;
    return node;
  };
  const go = (to) => { flush(); page = to; draw(); };
  if (pages() > 1) {
    foot.append(
      button("‹ Back", () => go(page - 1), page === 0),
      make("span", { text: `Rows ${page * SIZE + 1}–${Math.min(rows.length, (page + 1) * SIZE)} of ${rows.length}` }),
      button("Next ›", () => go(page + 1), page >= pages() - 1));
    if (elsewhere.length) {
      const next = elsewhere.find((p) => p > page * SIZE) ?? elsewhere[0];
      foot.append(button(`Go to row ${next + 1}, which has a problem`, () => { go(Math.floor(next / SIZE)); cells(next)[0]?.focus(); }));
    }
  }
};

const draw = () => {
  page = Math.min(page, pages() - 1);
  body.replaceChildren();
  const end = Math.min(rows.length + 1, (page + 1) * SIZE);
  for (let place = page * SIZE; place < end; place++) body.append(rowNode(place));
  mark();
};

const again = (step) => {
  for (const [number, above, subject, object] of step.cells) {
    let row = rows.find((r) => r[0] === number);
    if (!row) {
      const place = above === null ? -1 : rows.findIndex((r) => r[0] === above);
      rows.splice(place < 0 ? rows.length : place + 1, 0, (row = [number, "", "", 0]));
    }
    row[1] = subject ?? row[1];
    row[2] = object ?? row[2];
  }
  rows = rows.filter((r) => !step.removed.includes(r[0]));
};

const loadMarks = () => {
  const told = props.marks || {};
  confirmed(told.taken);
  if (late("marks", told)) return;
  marks = told.rows || {};
  mark();
};

// What is shown is what the lab knew when it answered and, on top, what was typed here and was not there yet.
const load = () => {
  const value = props.value || {};
  if (late("value", value)) return;
  const same = value.relation === relation;
  if (waiting) { if (same) note(); else send(); }
  if (!same) { page = 0; kept = []; }
  const field = same && body.contains(document.activeElement) ? document.activeElement : null;
  const at = field && [rows[placeOf(field)]?.[0], field.dataset.column, field.selectionStart, field.selectionEnd];
  relation = value.relation || "";
  rows = (value.rows || []).map((r) => [...r]);
  confirmed(value.taken);
  kept = kept.filter((step) => step.number > (value.taken || 0));
  kept.forEach(again);
  learn();
  draw();
  const place = !at ? -1 : at[0] === undefined ? rows.length : rows.findIndex((r) => r[0] === at[0]);
  const back = place < 0 ? null : cells(place)[Number(at[1])];
  if (back) { back.focus(); back.setSelectionRange(at[2], at[3]); }
};

const placeOf = (node) => Number(node.closest("tr").dataset.place);
body.addEventListener("input", (event) => {
  const place = placeOf(event.target), column = Number(event.target.dataset.column);
  if (place === rows.length) {
    if (rows.length >= MOST) { event.target.value = ""; return; }
    rows.push([newNumber(), "", "", 0]);
    const old = body.querySelector(`tr[data-place="${place}"]`);
    old.classList.remove("spare");
    old.firstChild.textContent = place + 1;
    old.querySelectorAll("input").forEach((n) => n.removeAttribute("placeholder"));
    old.lastChild.append(make("button", { type: "button", text: "×", title: "Remove this row", "aria-label": `Remove row ${place + 1}` }));
    if (Math.floor((place + 1) / SIZE) === page) body.append(rowNode(place + 1));
  }
  rows[place][column + 1] = event.target.value;
  later();
});
body.addEventListener("focusout", flush);
body.addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  const place = placeOf(event.target);
  rows.splice(place, 1);
  draw();
  send(`row ${place + 1}`);
});
body.addEventListener("keydown", (event) => {
  const step = { Enter: 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.isComposing || event.target.tagName !== "INPUT") return;
  const place = placeOf(event.target) + step;
  if (place < 0 || place > rows.length) return;
  event.preventDefault();
  if (Math.floor(place / SIZE) !== page) { flush(); page = Math.floor(place / SIZE); draw(); }
  cells(place)[Number(event.target.dataset.column)].focus();
});
body.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text/plain");
  if (!/[\t\n\r]/.test(text.trim())) return;
  event.preventDefault();
  clearTimeout(timer);
  waiting = false;
  note();
  trigger("paste_rows", { relation, steps: pending(), above: rows[placeOf(event.target) - 1]?.[0] ?? null, text });
});
watch("value", load);
watch("marks", loadMarks);
load();
loadMarks();
