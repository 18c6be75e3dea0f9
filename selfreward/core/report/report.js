"use strict";
// The sample's table: rows are text nodes made from the JSON of this page, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("sample");
const body = table.tBodies[0];
const search = document.getElementById("search");
const round = document.getElementById("round");
const kind = document.getElementById("kind");

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const points = (score) => (score === null ? "–" : String(Math.round(score * 100) / 100));
const any = (answers, test) => answers.some(test);

const rows = data.map((row, index) => {
  const scores = row.answers.map((answer) => answer.score).filter((score) => score !== null);
  const best = scores.length ? Math.max(...scores) : null;
  return {
    ...row, index, best,
    spread: scores.length ? best - Math.min(...scores) : null,
    trained: any(row.answers, (answer) => answer.role !== ""),
    unreadable: any(row.answers, (answer) => any(answer.votes, (vote) => vote.score === null)),
    cut: any(row.answers, (answer) => answer.finish === "length"),
    text: [row.id, row.prompt, ...row.earlier.map((turn) => turn.text), ...row.answers.flatMap(
      (answer) => [answer.id, answer.text, ...answer.votes.map((vote) => vote.words)])].join("\n").toLowerCase(),
  };
});

const columns = [
  { title: "Round", key: (row) => row.round, cell: (row) => [row.round] },
  { title: "Prompt", key: (row) => row.prompt, cell: (row, open) => [open] },
  { title: "Scores", cell: (row) => row.answers.map(chip) },
  { title: "Best", key: (row) => row.best, cell: (row) => [points(row.best)] },
  { title: "Spread", key: (row) => row.spread, cell: (row) => [points(row.spread)] },
  { title: "Written by", key: (row) => row.source, cell: (row) => [row.source] },
];

const MARKS = { chosen: "▲", rejected: "▼", "trained on": "▲" };
const marked = (answer) => answer.role.split(" and ").map((role) => MARKS[role] || "").join("");
const tone = (answer) => answer.role.replaceAll(" ", "-");

function chip(answer) {
  const name = `${answer.score === null ? "no score" : points(answer.score)}${answer.role ? ", " + answer.role : ""}`;
  return make("span", { class: `chip ${tone(answer)}`, title: name, role: "img", "aria-label": name }, marked(answer) + points(answer.score));
}

function voteItem(vote, number) {
  const item = make("li", {}, make("span", { class: vote.score === null ? "vote unreadable" : "vote" },
    `vote ${number + 1}: ${vote.score === null ? "unreadable" : points(vote.score)}`));
  if (vote.words) item.append(make("p", { class: "text" }, vote.words));
  return item;
}

function answerCard(answer) {
  const facts = [answer.model, answer.finish === "length" ? "cut off" : answer.finish, answer.rank === null ? "" : `human rank ${answer.rank}`, answer.id];
  const head = make("header", {},
    make("span", { class: "score" }, answer.score === null ? "no score" : points(answer.score)),
    ...(answer.role ? [make("span", { class: `tag ${tone(answer)}` }, `${marked(answer)} ${answer.role}`)] : []),
    make("span", { class: "facts" }, facts.filter(Boolean).join(" · ")));
  const card = make("article", { class: tone(answer) }, head, make("p", { class: "text" }, answer.text || "(empty)"));
  if (answer.votes.length) {
    card.append(make("p", { class: "facts" }, `judged: ${answer.judge}`), make("ol", { class: "votes" }, ...answer.votes.map(voteItem)));
  }
  return card;
}

function details(row) {
  const parts = row.earlier.map((turn) => make("p", { class: "text turn" }, `${turn.role}: ${turn.text}`));
  parts.push(make("p", { class: "text asked" }, row.prompt), make("p", { class: "facts" }, `prompt ${row.id} · ${row.round} · written by ${row.source}`));
  const cards = make("div", { class: "answers" }, ...row.answers.map(answerCard));
  return [...parts, row.answers.length ? cards : make("p", {}, "No answer.")];
}

for (const row of rows) {
  const open = make("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": `more-${row.index}` }, make("span", {}, row.prompt));
  const cell = make("td", { colspan: columns.length });
  row.more = make("tr", { id: `more-${row.index}`, class: "more" }, cell);
  row.line = make("tr", { class: "line" }, ...columns.map((column) => make("td", { class: column.title.toLowerCase().replace(" ", "-") }, ...column.cell(row, open))));
  row.more.hidden = true;
  open.addEventListener("click", () => {
    if (!cell.hasChildNodes()) cell.append(...details(row));
    row.more.hidden = !row.more.hidden;
    open.setAttribute("aria-expanded", String(!row.more.hidden));
  });
}

let sorted = { column: null, direction: 1 };

function compare(a, b) {
  const [x, y] = [sorted.column.key(a), sorted.column.key(b)];
  if (x === y) return a.index - b.index;
  if (x === null || y === null) return x === null ? 1 : -1; // what has no figure comes last, either way
  return (x < y ? -1 : 1) * sorted.direction;
}

function show() {
  const words = search.value.trim().toLowerCase();
  const wanted = (row) => row.text.includes(words) && (!round.value || row.round === round.value)
    && (!kind.value || (kind.value === "left" ? !row.trained : row[kind.value]));
  const found = rows.filter(wanted);
  if (sorted.column) found.sort(compare);
  body.replaceChildren(...found.flatMap((row) => [row.line, row.more]));
  document.getElementById("count").textContent = `${found.length} of ${rows.length} prompts`;
  document.getElementById("none").hidden = found.length > 0;
}

for (const column of columns) {
  const heading = make("th", { scope: "col", class: column.title.toLowerCase().replace(" ", "-") });
  if (column.key) {
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      sorted = { column, direction: sorted.column === column ? -sorted.direction : 1 };
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sorted.direction > 0 ? "ascending" : "descending");
      show();
    });
    heading.append(button);
  } else heading.append(column.title);
  table.tHead.rows[0].append(heading);
}

for (const name of new Set(rows.map((row) => row.round))) round.append(make("option", { value: name }, name));
search.addEventListener("input", show);
round.addEventListener("change", show);
kind.addEventListener("change", show);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filters").hidden = table.hidden = false;
show();
