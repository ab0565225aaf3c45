// The page of `clipzoo serve`. Whatever comes from the user, the file or the server becomes text
// nodes and attributes, never HTML; the Content-Security-Policy forbids the rest.
"use strict";

const MOST_QUERY = 60000; // characters of an address that the server reads
const COLORS = ["#0b5cad", "#c44e00", "#00795c", "#8a3f9e", "#6b5b00"];
const DASHES = ["", "10 6", "2 6", "12 6 2 6", "20 7"];
const STEPS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600]; // seconds
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
let about = null; // the reply of /about
let dropped = null; // a file that was dropped where the input does not take it
let running = null; // the request that is on its way
let shownCurve = null; // drawn again when the window changes its width

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function megabytes(bytes) {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function clock(seconds) {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) parts.unshift(Math.floor(whole / 3600));
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : String(part))).join(":");
}

// The form

function chosenFile() {
  return dropped || byId("file").files[0] || null;
}

function choose(file) {
  dropped = file;
  byId("file").value = "";
  describeFile();
}

function describeFile() {
  const file = chosenFile();
  byId("hint").textContent = file
    ? `${file.name}, ${megabytes(file.size)}`
    : `Choose a file, or drop one here; up to ${megabytes(about.max_bytes)}.`;
}

function classLines() {
  return byId("classes").value.split("\n").map((line) => line.trim()).filter((line) => line);
}

function describeClasses() {
  const names = classLines();
  const own = names.join("\n") === about.class_names.join("\n");
  byId("reset").hidden = own;
  byId("classes-note").textContent = about.is_open
    ? `${names.length} classes${own ? ", those that the model was trained on" : ""}.`
    : `${names.length} classes. This model is closed: it has no text tower, so it knows no others.`;
  return own;
}

function say(text) {
  byId("status").textContent = text;
}

function fail(text) {
  byId("error").textContent = text;
  say("");
}

function setBusy(request) {
  running = request;
  byId("predict").setAttribute("aria-disabled", String(request !== null));
  byId("cancel").hidden = request === null;
  byId("progress").hidden = request === null;
}

function progress(share) {
  if (share === null) byId("progress").removeAttribute("value");
  else byId("progress").value = share;
}

function submit(event) {
  event.preventDefault();
  if (running) {
    say("One prediction is already on its way; wait for it, or cancel it.");
    return;
  }
  byId("error").textContent = "";
  const file = chosenFile();
  const names = classLines();
  if (!about) return fail("The server did not answer; reload the page.");
  if (!file) return fail("No video: choose a file first.");
  if (!names.length) return fail("No class names: write some, one a line.");
  if (file.size > about.max_bytes) {
    return fail(
      `${file.name} has ${megabytes(file.size)}; allowed: ${megabytes(about.max_bytes)}. Cut or ` +
        "compress the video, or start the server with a larger --max-mb."
    );
  }
  const query = new URLSearchParams({ name: file.name });
  if (!describeClasses()) query.set("classes", names.join("\n"));
  if (query.toString().length > MOST_QUERY) {
    return fail(`The class names are too long: allowed are ${MOST_QUERY} encoded characters.`);
  }
  send(file, query);
}

// One request, whose answer is lines of JSON

function send(file, query) {
  const request = new XMLHttpRequest();
  const answer = { file, parsed: 0, finished: false };
  request.open("POST", `predict?${query}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = (event) => {
    progress(event.loaded / event.total);
    say(`Uploading ${file.name}: ${Math.round((100 * event.loaded) / event.total)}%`);
  };
  request.onprogress = () => readLines(request, answer);
  request.onload = () => {
    try {
      readLines(request, answer);
    } finally {
      end(answer, "The connection was lost before the answer was complete; try again.");
    }
  };
  request.onerror = () => end(answer, "The server cannot be reached; is it still running?");
  request.onabort = () => {
    end(answer, "");
    say("Cancelled.");
  };
  setBusy(request);
  hideResults(); // those of one video may not be taken for those of another
  progress(null);
  say(`Uploading ${file.name}`);
  request.send(file);
}

function readLines(request, answer) {
  const text = request.responseText;
  if (request.status !== 200) {
    if (request.readyState === XMLHttpRequest.DONE) {
      answer.finished = true;
      fail(errorOf(text) || `The server answered with status ${request.status}.`);
    }
    return;
  }
  for (let end; (end = text.indexOf("\n", answer.parsed)) >= 0; answer.parsed = end + 1) {
    show(JSON.parse(text.slice(answer.parsed, end)), answer);
  }
}

function errorOf(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return "";
  }
}

function end(answer, unfinished) {
  setBusy(null);
  if (!answer.finished && unfinished) fail(unfinished);
}

function show(line, answer) {
  if ("waiting" in line) {
    progress(null);
    say(`Waiting: ${line.waiting} ${line.waiting === 1 ? "prediction is" : "predictions are"} first.`);
  } else if ("running" in line) {
    progress(null);
    say("Predicting");
  } else if ("prediction" in line) {
    showPrediction(line, answer.file);
  } else if ("pictures" in line) {
    showPictures(line.pictures, answer.numFrames);
  } else if ("progress" in line) {
    progress(line.progress.seconds / line.progress.of);
    say(`Looking at ${clock(line.progress.seconds)} of ${clock(line.progress.of)}`);
  } else if ("curve" in line) {
    shownCurve = line.curve;
    showCurve();
  } else if ("done" in line) {
    answer.finished = true;
    const { seconds, waited } = line.done;
    const wait = waited >= 0.1 ? `, after ${waited.toFixed(1)} s of waiting` : "";
    byId("took").textContent = `It took ${seconds.toFixed(1)} s${wait}.`;
    say(`Done in ${seconds.toFixed(1)} s.`);
  } else if ("error" in line) {
    answer.finished = true;
    fail(line.error);
  }
  if ("prediction" in line) answer.numFrames = line.prediction.num_frames;
}

// The results

function hideResults() {
  shownCurve = null;
  for (const id of ["title", "scores", "over-time", "seen", "same"]) byId(id).hidden = true;
  byId("empty").hidden = false;
}

function showPrediction({ prediction, commands }, file) {
  byId("empty").hidden = true;
  for (const id of ["title", "scores", "same"]) byId(id).hidden = false;
  byId("title").textContent = file.name;
  byId("took").textContent = "";
  const shown = prediction.labels.length;
  byId("scores-caption").textContent =
    shown < prediction.num_classes
      ? `The best ${shown} of ${prediction.num_classes} classes`
      : `All ${shown} classes`;
  byId("rows").replaceChildren(
    ...prediction.labels.map((label, i) => {
      const probability = prediction.probabilities[i];
      const bar = element("div", { class: "bar" });
      bar.style.width = `${100 * probability}%`;
      const track = element("div", { class: "track", "aria-hidden": "true" }, bar);
      const score = element("div", { class: "score" }, track, element("span", {}, probability.toFixed(3)));
      return element(
        "tr",
        {},
        element("td", { dir: "auto" }, label),
        element("td", {}, score),
        element("td", { class: "number" }, prediction.cosines[i].toFixed(3))
      );
    })
  );
  byId("commands").textContent = commands.join("\n");
  if (window.matchMedia("(max-width: 899px)").matches) byId("results").scrollIntoView();
}

function showPictures(pictures, numFrames) {
  byId("seen").hidden = false;
  byId("pictures-title").textContent =
    pictures.length < numFrames
      ? `${pictures.length} of the ${numFrames} frames that the model saw`
      : `The ${numFrames} frames that the model saw`;
  byId("pictures").replaceChildren(
    ...pictures.map(({ seconds, jpeg }) => {
      const when = `${seconds.toFixed(2)} s`;
      const image = element("img", { src: `data:image/jpeg;base64,${jpeg}`, alt: `Frame at ${when}` });
      return element("li", {}, image, element("span", { "aria-hidden": "true" }, when));
    })
  );
}

function lineStyle(i) {
  return { class: "line", stroke: COLORS[i % COLORS.length], "stroke-dasharray": DASHES[i % DASHES.length] };
}

function showCurve() {
  const { starts, ends, best, series, every } = shownCurve;
  byId("over-time").hidden = false;
  byId("curve-title").textContent = `Over time, in windows of ${every} s`;
  const width = byId("curve").clientWidth;
  const [height, left, right, top, bottom] = [240, 34, 8, 10, 26];
  const first = starts[0];
  const last = ends[ends.length - 1];
  const x = (seconds) => left + ((width - left - right) * (seconds - first)) / (last - first);
  const y = (probability) => top + (height - top - bottom) * (1 - probability);
  const label = `Probabilities over time: ${series.map((one) => one.label).join(", ")}`;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  for (const value of [0, 0.5, 1]) {
    drawing.append(
      shape("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value))
    );
  }
  const least = ((last - first) * 70) / width; // a label is about 40 pixels wide
  const step = STEPS.find((seconds) => seconds >= least) || Math.ceil(least / 3600) * 3600;
  for (let seconds = Math.ceil(first / step) * step; seconds <= last; seconds += step) {
    const attributes = { x: x(seconds), y: height - 6, "text-anchor": "middle" };
    drawing.append(shape("text", attributes, clock(seconds)));
  }
  series.forEach(({ probabilities }, i) => {
    const points = probabilities.map((p, k) => `${x((starts[k] + ends[k]) / 2).toFixed(1)},${y(p).toFixed(1)}`);
    drawing.append(shape("polyline", { ...lineStyle(i), points: points.join(" ") }));
  });
  byId("curve").replaceChildren(drawing);
  byId("legend").replaceChildren(
    ...series.map((one, i) => {
      const sample = shape("svg", { width: 34, height: 10, "aria-hidden": "true" });
      sample.append(shape("line", { ...lineStyle(i), x1: 0, x2: 34, y1: 5, y2: 5 }));
      return element("li", {}, sample, element("bdi", {}, one.label));
    })
  );
  byId("windows").replaceChildren(
    ...best.map(([name, probability], i) =>
      element(
        "tr",
        {},
        element("td", {}, `${clock(starts[i])} to ${clock(ends[i])}`),
        element("td", { dir: "auto" }, name),
        element("td", { class: "number" }, probability.toFixed(3))
      )
    )
  );
}

// The start

async function begin() {
  const response = await fetch("about");
  if (!response.ok) throw new Error(errorOf(await response.text()) || `status ${response.status}`);
  about = await response.json();
  const kind = about.is_open ? "any classes" : "its own classes alone";
  byId("model").textContent = `${about.recipe}, ${about.arch}, for ${kind}`;
  document.title = `clipzoo: ${about.recipe}`;
  byId("classes").value = about.class_names.join("\n");
  byId("classes").readOnly = !about.is_open;
  describeClasses();
  describeFile();
}

function listen() {
  const drop = byId("drop");
  byId("form").addEventListener("submit", submit);
  byId("cancel").addEventListener("click", () => running && running.abort());
  byId("classes").addEventListener("input", describeClasses);
  byId("reset").addEventListener("click", () => {
    byId("classes").value = about.class_names.join("\n");
    describeClasses();
    byId("classes").focus();
  });
  byId("file").addEventListener("change", () => {
    dropped = null;
    describeFile();
  });
  // A file that is dropped beside the field would replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (e) => e.preventDefault());
  window.addEventListener("dragover", () => drop.classList.add("over"));
  for (const name of ["dragleave", "drop"]) window.addEventListener(name, () => drop.classList.remove("over"));
  window.addEventListener("drop", (event) => {
    const file = event.dataTransfer && event.dataTransfer.files[0];
    if (file && about) choose(file);
  });
  window.addEventListener("resize", () => shownCurve && showCurve());
}

listen();
begin().catch((error) => fail(`The page cannot start: ${error.message}`));
