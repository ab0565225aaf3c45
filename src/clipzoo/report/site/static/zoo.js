// The table of index.html: filter, sort, and two runs side by side (#compare=first,second).
// All text goes through textContent, so names of classes and videos are never read as markup.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("zoo");
const body = table.tBodies[0];
const rows = [...body.rows];
const filters = document.getElementById("filters");
const compare = document.getElementById("compare");
const comparison = document.getElementById("comparison");
const field = (id) => document.getElementById(id);

// Text of each row, without the column of the checkbox.
const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

function filter() {
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const same = ["method", "dataset", "status"].every(
      (key) => !field(key).value || row.dataset[key] === field(key).value
    );
    const found = words.every((word) => texts.get(row).includes(word));
    const listed = field("all").checked || row.dataset.more === undefined;
    row.hidden = !(same && found && listed);
    shown += !row.hidden;
  }
  field("count").value = `${shown} of ${rows.length} results`;
}

function sort(header) {
  const column = header.cellIndex;
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value;
  };
  const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
  const sorted = [...rows].sort((a, b) => {
    const [first, second] = [key(a), key(b)];
    if (first === "" || second === "") return (first === "") - (second === ""); // empty ones last
    const order = numeric ? first - second : first.localeCompare(second, "en", { numeric: true });
    return descending ? -order : order;
  });
  body.append(...sorted);
}

// The runs that are chosen, in the order of the choice. A run has a checkbox in each of its rows.
let picked = [];

function pick(name, on) {
  picked = picked.filter((other) => other !== name);
  if (on) picked.push(name);
  picked = picked.slice(-2);
  for (const box of table.querySelectorAll(".pick")) box.checked = picked.includes(box.value);
  compare.disabled = picked.length !== 2;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function makeTable(titles, lines) {
  const scroll = make("div", undefined, "wide");
  const result = make("table");
  const head = make("thead");
  const top = make("tr");
  top.append(...titles.map((title) => make("th", title)));
  head.append(top);
  const content = make("tbody");
  for (const line of lines) {
    const row = make("tr");
    row.append(...line.map((cell) => make("td", cell)));
    content.append(row);
  }
  result.append(head, content);
  scroll.append(result);
  return scroll;
}

const signed = (value) => `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(1)}`;

// The 95% interval, in percentage points, of the difference of two accuracies on the same videos:
// Tango, Statistics in Medicine 17, 1998, as in clipzoo.evaluate.intervals.
function pairedInterval(won, lost, num) {
  const z95 = 1.959963984540054;
  const score = (delta) => {
    const b = -won - lost + (2 * num - won + lost) * delta;
    const c = -lost * delta * (1 - delta);
    const share = (Math.sqrt(Math.max(b * b - 8 * num * c, 0)) - b) / (4 * num);
    const variance = num * (2 * share + delta * (1 - delta));
    const distance = won - lost - num * delta;
    if (variance > 0) return distance / Math.sqrt(variance);
    return distance ? Math.sign(distance) * Infinity : 0;
  };
  return [z95, -z95].map((bound) => {
    let low = -1;
    let high = 1;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (score(middle) > bound) low = middle;
      else high = middle;
    }
    return (100 * (low + high)) / 2;
  });
}

// Whether each video is right, in the order of ids.
function bits(set) {
  const bytes = atob(set.right);
  return Array.from({ length: set.num }, (_, i) => (bytes.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1);
}

function comparedSets(first, second) {
  const lines = [];
  for (const [stem, a] of Object.entries(first.sets)) {
    const b = second.sets[stem];
    if (!b) continue;
    if (!a.videos || a.videos !== b.videos) {
      const reason = a.videos && b.videos ? "not the same videos" : "the predicted classes are not known";
      lines.push([stem, a.dataset, reason, "", "", ""]);
      continue;
    }
    const [right, other] = [bits(a), bits(b)];
    const won = right.filter((value, i) => value && !other[i]).length;
    const lost = right.filter((value, i) => !value && other[i]).length;
    const [low, high] = pairedInterval(won, lost, a.num);
    const difference = signed((100 * (won - lost)) / a.num);
    const better = low > 0 ? "the first" : high < 0 ? "the second" : "not shown";
    lines.push([stem, a.dataset, `${difference} (${signed(low)} to ${signed(high)})`, `${won}`, `${lost}`, better]);
  }
  return lines;
}

function resultLines(first, second) {
  const key = (result) => JSON.stringify([result.dataset, result.metric]);
  const others = new Map(second.results.map((result) => [key(result), result]));
  const lines = first.results.map((a) => {
    const b = others.get(key(a));
    others.delete(key(a));
    return [a.dataset, a.result, a.text, b ? b.text : "not measured", b ? signed(a.value - b.value) : ""];
  });
  const rest = [...others.values()].map((b) => [b.dataset, b.result, "not measured", b.text, ""]);
  return [...lines, ...rest];
}

function classLines(first, second) {
  const lines = [];
  for (const [stem, a] of Object.entries(first.sets)) {
    const b = second.sets[stem];
    if (!b || b.dataset !== a.dataset) continue;
    const others = new Map(b.classes.map(([id, hits, videos]) => [id, (100 * hits) / videos]));
    const names = data.classes[a.dataset] || [];
    for (const [id, hits, videos] of a.classes) {
      if (!others.has(id)) continue;
      const [one, two] = [(100 * hits) / videos, others.get(id)];
      if (one !== two) lines.push([names[id] ?? `class ${id}`, a.dataset, one, two, one - two]);
    }
  }
  lines.sort((a, b) => Math.abs(b[4]) - Math.abs(a[4]));
  return lines.map(([name, dataset, one, two, by]) => [name, dataset, one.toFixed(1), two.toFixed(1), signed(by)]);
}

function settingLines(first, second) {
  const keys = [...new Set([...Object.keys(first.settings), ...Object.keys(second.settings)])];
  return keys
    .filter((key) => key !== "recipe" && first.settings[key] !== second.settings[key])
    .map((key) => [key, first.settings[key] ?? "(none)", second.settings[key] ?? "(none)"]);
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function curves(title, first, second) {
  const all = [...first, ...second];
  const figure = make("figure");
  figure.append(make("figcaption", title));
  if (!all.length) {
    figure.append(make("p", "Neither run has this curve."));
    return figure;
  }
  const [width, height, left, bottom, gap] = [560, 220, 62, 30, 10];
  const range = (values) => [Math.min(...values), Math.max(...values)];
  const [steps, values] = [range(all.map((p) => p[0])), range(all.map((p) => p[1]))];
  const share = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
  const x = (step) => left + (width - left - gap) * share(step, steps);
  const y = (value) => height - bottom - (height - gap - bottom) * share(value, values);
  const image = svg("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const write = (text, attributes) => {
    const label = svg("text", attributes);
    label.textContent = text;
    image.append(label);
  };
  for (const value of new Set(values)) {
    image.append(svg("line", { class: "grid", x1: left, x2: width - gap, y1: y(value), y2: y(value) }));
    write(Number(value.toPrecision(4)), { class: "end", x: left - 6, y: y(value) + 4 });
  }
  for (const step of new Set(steps)) write(step, { class: "middle", x: x(step), y: height - 12 });
  write("step", { class: "middle", x: (left + width) / 2, y: height - 2 });
  for (const [points, end] of [[first, ""], [second, "2"]]) {
    const places = points.map(([step, value]) => [x(step).toFixed(1), y(value).toFixed(1)]);
    image.append(svg("polyline", { class: `line${end}`, points: places.map(String).join(" ") }));
    if (places.length <= 30) {
      for (const [cx, cy] of places) image.append(svg("circle", { class: `dot${end}`, cx, cy, r: 3 }));
    }
  }
  figure.append(image);
  return figure;
}

function sideBySide(names) {
  const [first, second] = names.map((name) => data.runs[name]);
  const close = make("button", "Close");
  close.type = "button";
  close.addEventListener("click", () => { location.hash = ""; });
  const title = make("h2");
  names.forEach((name, i) => {
    const link = make("a", name, i ? "second" : "first");
    link.href = data.runs[name].page;
    title.append(...(i ? [" and ", link] : [link]));
  });
  const parts = [title, close];
  const section = (heading, ...content) => parts.push(make("h3", heading), ...content);
  const text = (words) => make("p", words);
  const table = (titles, lines, none) => (lines.length ? makeTable(titles, lines) : text(none));
  section("What they are", makeTable(["", ...names], [
    ["About", first.about, second.about],
    ["Method", first.method, second.method],
    ["Verdict", first.verdict, second.verdict],
  ]));
  section("Results", makeTable(["Dataset", "Result", ...names, "Difference"], resultLines(first, second)));
  section(
    "On the same videos",
    text("Top-1 of the first minus that of the second, with a paired 95% interval (Tango). " +
      "\"Not shown\": the interval contains 0."),
    table(["Set", "Dataset", "Difference", "Only the first right", "Only the second right", "Better"],
      comparedSets(first, second), "They have no set in common.")
  );
  const charts = make("div", undefined, "figures");
  for (const [key, words] of [["loss", "Training loss"], ["val_top1", "Validation top-1 (%)"]]) {
    charts.append(curves(words, first.curves[key] || [], second.curves[key] || []));
  }
  section("Training", charts);
  const classes = classLines(first, second);
  section(
    classes.length > 40 ? `Classes that differ most: 40 of ${classes.length}` : "Classes that differ",
    table(["Class", "Dataset", ...names, "Difference"], classes.slice(0, 40),
      "No class has another accuracy, or none is known of both.")
  );
  for (const stem of Object.keys(first.sets).filter((stem) => stem in second.sets)) {
    for (const kind of Object.keys(first.sets[stem].pictures)) {
      const addresses = [first, second].map((run) => run.sets[stem].pictures[kind]);
      if (!addresses[1]) continue;
      const pair = make("div", undefined, "pair");
      addresses.forEach((address, i) => {
        const figure = make("figure");
        const image = make("img");
        image.src = address;
        image.alt = `${kind} of ${names[i]}`;
        figure.append(make("figcaption", names[i]), image);
        pair.append(figure);
      });
      section(`${kind}: ${first.sets[stem].dataset}`, pair);
    }
  }
  const unknown = names.filter((name) => !data.runs[name].recorded);
  section(
    "Settings that differ",
    unknown.length
      ? text(`Not recorded of ${unknown.join(" and ")}.`)
      : table(["Setting", ...names], settingLines(first, second), "None differs.")
  );
  comparison.replaceChildren(...parts);
}

// #compare=first,second shows both; #compare=first picks one, to which another is chosen.
function followAddress() {
  const match = /^#compare=(.+)$/.exec(location.hash);
  comparison.hidden = !match;
  if (!match) return;
  let names;
  try {
    names = match[1].split(",").map(decodeURIComponent);
  } catch {
    names = [match[1]]; // not an encoded address, so not a run
  }
  const unknown = names.filter((name) => !Object.hasOwn(data.runs, name));
  if (unknown.length || names.length > 2) {
    const words = unknown.length ? `There is no run ${unknown.join(", ")}.` : "Two runs can be compared.";
    comparison.replaceChildren(make("p", words));
    return;
  }
  picked = [];
  for (const name of names) pick(name, true);
  if (picked.length === 2) sideBySide(picked);
  else comparison.replaceChildren(make("p", `${names[0]} is chosen: choose a second run in the table, then "Compare two runs".`));
  comparison.scrollIntoView();
}

filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
table.tHead.addEventListener("click", (event) => {
  const button = event.target.closest(".sort");
  if (button) sort(button.closest("th"));
});
body.addEventListener("change", (event) => {
  if (event.target.matches(".pick")) pick(event.target.value, event.target.checked);
});
compare.addEventListener("click", () => {
  location.hash = `compare=${picked.map((name) => encodeURIComponent(name).replaceAll("%2F", "/")).join(",")}`;
});
window.addEventListener("hashchange", followAddress);
filter();
followAddress();
