"use strict";
// The utterance table: 50 rows at a time are in the page, whatever the size of the test set. Texts become text nodes,
// never markup.
const PAGE_ROWS = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const two = data.systems.length > 1;
const [ID, SPEAKER, CORPUS, SECONDS, WORDS, REFERENCE, FIRST, SECOND] = [0, 1, 2, 3, 4, 5, 6, 7];

const errors = (row, system) => row[FIRST + system][0];
const change = (row) => errors(row, 1) - errors(row, 0);
const rate = (row, system) => (row[WORDS] ? errors(row, system) / row[WORDS] : errors(row, system) ? Infinity : 0);

const filters = {
  "all utterances": () => true,
  "with errors": (row) => row.slice(FIRST).some((scored) => scored[0] > 0),
  "without errors": (row) => row.slice(FIRST).every((scored) => scored[0] === 0),
};
if (two) {
  filters["with different errors"] = (row) => change(row) !== 0;
  filters[`better with ${data.systems[0]}`] = (row) => change(row) > 0;
  filters[`better with ${data.systems[1]}`] = (row) => change(row) < 0;
}
if (Object.keys(data.sounds).length) filters["with a recording"] = (row) => row[ID] in data.sounds;

// Name of a column, its value for sorting, and the text in its cell.
const columns = [
  { name: "utterance", value: (row) => row[ID], show: (row) => row[ID], kind: "id" },
  { name: "speaker", value: (row) => row[SPEAKER], show: (row) => row[SPEAKER], kind: "text" },
  { name: "corpus", value: (row) => row[CORPUS], show: (row) => row[CORPUS], kind: "text" },
  { name: "seconds", value: (row) => row[SECONDS] ?? -1, show: (row) => (row[SECONDS] ?? null) === null ? "" : row[SECONDS].toFixed(1), kind: "number" },
  { name: "words", value: (row) => row[WORDS], show: (row) => row[WORDS], kind: "number" },
  ...data.systems.map((name, system) => ({
    name: two ? `errors of ${name}` : "errors", value: (row) => errors(row, system), show: (row) => errors(row, system), kind: "number",
  })),
  ...(two
    ? [{ name: "second less first", value: change, show: (row) => (change(row) > 0 ? "+" : "") + change(row), kind: "number" }]
    : [{ name: "WER", value: (row) => rate(row, 0), show: (row) => (Number.isFinite(rate(row, 0)) ? (100 * rate(row, 0)).toFixed(0) + " %" : "–"), kind: "number" }]),
].filter((column) => column.kind !== "text" || data.rows.some((row) => column.value(row)));

const state = { sort: two ? columns.length - 1 : columns.findIndex((column) => column.name === "errors"), down: true, page: 0, rows: [] };
const at = (id) => document.getElementById(id);

function element(tag, text, style) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (style) made.className = style;
  return made;
}

// The words of one system against the reference, each error marked by colour and by form.
function alignment(row, system) {
  const said = row[REFERENCE].split(" ").filter(Boolean);
  const heard = row[FIRST + system][1].split(" ").filter(Boolean);
  const line = element("p", undefined, "alignment");
  if (two) line.append(element("span", undefined, `swatch series-${"ab"[system]} back`));
  let i = 0, j = 0, plain = [];
  const flush = () => { if (plain.length) line.append(plain.join(" ") + " "); plain = []; };
  for (const operation of row[FIRST + system][2]) {
    if (operation === "C") { plain.push(said[i++]); j++; continue; }
    flush();
    const mark = element("span", undefined, operation.toLowerCase());
    if (operation !== "I") mark.append(element("del", said[i++]));
    if (operation === "S") mark.append(" ");
    if (operation !== "D") mark.append(element("ins", heard[j++]));
    line.append(mark, " ");
  }
  flush();
  if (!said.length && !heard.length) line.append(element("em", "no words"));
  return line;
}

function draw() {
  const words = at("find").value.toLowerCase().trim();
  const wanted = filters[at("show").value];
  const column = columns[state.sort];
  state.rows = data.rows.filter((row) => wanted(row) && (!words || JSON.stringify(row.slice(0, 3)).toLowerCase().includes(words)
    || row[REFERENCE].toLowerCase().includes(words) || row.slice(FIRST).some((scored) => scored[1].toLowerCase().includes(words))));
  const order = (a, b) => { const x = column.value(a), y = column.value(b); return x < y ? -1 : x > y ? 1 : 0; };
  state.rows.sort((a, b) => (state.down ? -order(a, b) : order(a, b)) || (a[ID] < b[ID] ? -1 : 1));
  const pages = Math.max(1, Math.ceil(state.rows.length / PAGE_ROWS));
  state.page = Math.min(state.page, pages - 1);
  at("found").textContent = `${state.rows.length} of ${data.rows.length} utterances`;
  at("page").textContent = `page ${state.page + 1} of ${pages}`;
  at("back").disabled = state.page === 0;
  at("next").disabled = state.page === pages - 1;
  at("rows").replaceChildren(...state.rows.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS).flatMap(lines));
  for (const [index, head] of [...at("heads").children].entries()) {
    head.setAttribute("aria-sort", index !== state.sort ? "none" : state.down ? "descending" : "ascending");
  }
  at("sort").value = `${state.sort} ${state.down}`;
}

// Two table rows an utterance: its figures, then its words.
function lines(row) {
  const figures = element("tr", undefined, "figures-row");
  for (const column of columns) {
    const cell = element("td", column.show(row), column.kind);
    cell.dataset.name = column.name;
    figures.append(cell);
  }
  const text = element("tr", undefined, "text-row");
  const cell = element("td");
  cell.colSpan = columns.length;
  data.systems.forEach((_, system) => cell.append(alignment(row, system)));
  if (row[ID] in data.sounds) {
    const player = element("audio");
    player.controls = true;
    player.preload = "none";
    player.src = data.sounds[row[ID]];
    cell.append(player);
  }
  text.append(cell);
  return [figures, text];
}

for (const [index, column] of columns.entries()) {
  const head = element("th", undefined, column.kind);
  const button = element("button", column.name);
  button.type = "button";
  button.addEventListener("click", () => {
    state.down = state.sort === index ? !state.down : column.kind === "number";
    state.sort = index;
    state.page = 0;
    draw();
  });
  head.append(button);
  at("heads").append(head);
  for (const down of [true, false]) {
    const option = element("option", `${column.name}, ${column.kind === "number" ? (down ? "most first" : "least first") : (down ? "Z to A" : "A to Z")}`);
    option.value = `${index} ${down}`;
    at("sort").append(option);
  }
}
for (const name of Object.keys(filters)) at("show").append(element("option", name));
at("find").addEventListener("input", () => { state.page = 0; draw(); });
at("show").addEventListener("change", () => { state.page = 0; draw(); });
at("sort").addEventListener("change", () => {
  const [index, down] = at("sort").value.split(" ");
  Object.assign(state, { sort: Number(index), down: down === "true", page: 0 });
  draw();
});
for (const [id, step] of [["back", -1], ["next", 1]]) {
  at(id).addEventListener("click", () => { state.page += step; draw(); document.querySelector(".controls").scrollIntoView(); });
}
for (const hidden of document.querySelectorAll(".controls, .utterances, .pages")) hidden.hidden = false;
draw();
