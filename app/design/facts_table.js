// The editable table of facts. Values reach the page only through `.value` and `.textContent`, never as HTML.
// Props: value = {relation, rows: [[id, subject, object, alternatives]]}, marks = {place: [[column, severity, message]]}.
// Events: rows {relation, rows, removed} after an edit; paste_rows {relation, rows, at, text} for a pasted table.
const SIZE = 25, WAIT = 300;
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
const pages = () => Math.max(1, Math.ceil((rows.length + 1) / SIZE));
const cells = (place) => body.querySelectorAll(`tr[data-place="${place}"] input`);

const send = (removed) => {
  clearTimeout(timer);
  waiting = false;
  trigger("rows", { relation, rows: rows.map((r) => [r[0], r[1], r[2]]), removed: removed || "" });
};
const later = () => { waiting = true; clearTimeout(timer); timer = setTimeout(send, WAIT); };
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
  const marks = props.marks || {};
  body.querySelectorAll("tr.problem").forEach((n) => n.remove());
  body.querySelectorAll("input").forEach((n) => { n.removeAttribute("aria-invalid"); n.removeAttribute("data-mark"); });
  for (const node of [...body.children]) {
    const found = marks[node.dataset.place];
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
  const places = Object.keys(marks).map(Number).sort((a, b) => a - b);
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

const load = () => {
  const value = props.value || {};
  if (value.relation !== relation) page = 0;
  relation = value.relation || "";
  rows = (value.rows || []).map((r) => [...r]);
  clearTimeout(timer);
  waiting = false;
  draw();
};

const placeOf = (node) => Number(node.closest("tr").dataset.place);
body.addEventListener("input", (event) => {
  const place = placeOf(event.target), column = Number(event.target.dataset.column);
  if (place === rows.length) {
    rows.push([null, "", "", 0]);
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
  trigger("paste_rows", { relation, rows: rows.map((r) => [r[0], r[1], r[2]]), at: placeOf(event.target), text });
});
watch("value", load);
watch("marks", mark);
load();
