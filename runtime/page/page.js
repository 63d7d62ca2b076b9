// The page of a running stream. Asks for the status twice a second; the live picture comes by itself.

const POLL_MS = 500;
const PATIENCE_MS = 4000; // for one answer of the machine
const PICTURE_RETRY_MS = 2000;
const FEW_CLASSES = 40; // up to here the legend lists them all, else those seen since the page was opened

const STATES = {
  opening: "Opening",
  running: "Running",
  reconnecting: "Reconnecting",
  ended: "Ended",
  unreachable: "No connection",
};

const at = (id) => document.getElementById(id);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// Assigning the same text again would make screen readers repeat it.
const write = (id, text) => {
  if (at(id).textContent !== text) at(id).textContent = text;
};

const percent = (share) => (share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);
const rounded = (value) => value.toFixed(value < 9.95 ? 1 : 0);
const duration = (ms) => (ms < 999.5 ? [rounded(ms), "ms"] : [(ms / 1000).toFixed(ms < 9950 ? 1 : 0), "s"]);
const ago = (seconds) => (seconds < 90 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(0)} min`);

let model = null;
let run = null; // of the program on the machine: another one may have another model
let lastAnswer = performance.now();
let lastStatus = null;

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

// ---- Live picture

const picture = {
  on: false,
  name: "", // under which the machine knows this viewer
  tried: -Infinity,

  start() {
    if (this.on || performance.now() - this.tried < PICTURE_RETRY_MS) return;
    this.on = true;
    this.name = Math.random().toString(36).slice(2);
    this.tried = performance.now();
    at("live").src = `/live.mjpg?${this.name}`;
  },

  stop() {
    this.on = false;
    this.tried = -Infinity;
    at("live").hidden = true;
    at("live").removeAttribute("src"); // ends the connection
  },

  // Browsers do not tell when such a picture comes to its end; the machine does.
  check(viewers) {
    if (performance.now() - this.tried > PICTURE_RETRY_MS && !viewers.includes(this.name)) this.on = false;
  },
};

at("live").addEventListener("load", () => (at("live").hidden = false));
at("live").addEventListener("error", () => {
  picture.on = false;
  at("live").hidden = true;
});

// ---- Settings

const settings = {
  wanted: {}, // not sent yet
  busy: false,
  changes: 0, // what the machine was asked before the last of them is out of date

  change(change) {
    this.changes += 1;
    Object.assign(this.wanted, change);
    if (!this.busy) this.send();
  },

  // One request at a time: a slider makes many changes, and the last must win.
  async send() {
    this.busy = true;
    while (Object.keys(this.wanted).length > 0) {
      const body = JSON.stringify(this.wanted);
      this.wanted = {};
      try {
        const headers = { "Content-Type": "application/json" };
        const answer = await ask("/api/settings", { method: "POST", headers, body });
        lastStatus = { ...lastStatus, ...answer };
        write("problem", "");
      } catch (error) {
        write("problem", `Not changed: ${error.message}`);
      }
    }
    this.busy = false;
    this.changes += 1;
    if (lastStatus) showSettings(lastStatus); // what the machine has, where it refused
  },
};

at("opacity").addEventListener("input", () => {
  write("opacity-value", `${at("opacity").value} %`);
  settings.change({ opacity: at("opacity").valueAsNumber / 100 });
});
at("save").addEventListener("click", (event) => {
  if (at("save").getAttribute("aria-disabled") === "true") event.preventDefault();
});

// ---- What is shown

function showModel() {
  write("title", model.title);
  const [height, width] = model.input;
  write("model", [model.architecture, model.precision.toUpperCase(), `${width} × ${height}`, model.machine].join(" · "));
  const options = model.tasks.map((task) => {
    const input = element("input", { type: "radio", name: "task", value: task });
    input.addEventListener("change", () => settings.change({ task }));
    return element("label", {}, input, element("span", { textContent: task[0].toUpperCase() + task.slice(1) }));
  });
  at("tasks").querySelector(".options")?.remove();
  at("tasks").append(element("div", { className: "options" }, ...options));
  at("legend").replaceChildren(...model.classes.map(legendEntry));
}

function legendEntry({ name, color }) {
  const swatch = element("span", { className: "swatch" });
  swatch.style.backgroundColor = color;
  const label = element("span", { textContent: name }, element("span", { className: "count" }));
  const hidden = model.classes.length > FEW_CLASSES;
  return element("li", { hidden, className: "absent" }, swatch, label, element("span", { className: "share" }));
}

function showLegend(status) {
  const found = new Map(status.shares.map(([id, share, count]) => [id, { share, count }]));
  model.classes.forEach(({ is_thing }, id) => {
    const entry = at("legend").children[id];
    const seen = found.get(id);
    entry.classList.toggle("absent", !seen);
    if (seen) entry.hidden = false;
    entry.querySelector(".share").textContent = seen ? percent(seen.share) : "–";
    entry.querySelector(".count").textContent = seen && is_thing && seen.count > 1 ? ` ×${seen.count}` : "";
  });
}

function showSettings(status) {
  if (settings.busy) return;
  for (const input of at("tasks").querySelectorAll("input")) input.checked = input.value === status.task;
  at("opacity").value = 100 * status.opacity;
  write("opacity-value", `${Math.round(100 * status.opacity)} %`);
}

function showFigures(status) {
  // While no frames come, the age is that of the one still to be seen.
  const still = status.state === "reconnecting";
  const age = still ? 1000 * status.last_frame_s : status.age_ms;
  const known = (still || status.state === "running") && status.last_frame_s !== null && age !== null;
  write("fps", known ? rounded(status.fps) : "–");
  const [number, unit] = known ? duration(age) : ["–", ""];
  at("age").replaceChildren(number, element("span", { className: "unit", textContent: unit }));
  for (const id of ["fps", "age"]) at(id).classList.toggle("still", still);
  for (const id of ["frames", "dropped", "reconnects", "corrupt"]) write(id, status[id].toLocaleString("en"));
  if (status.corrupt > 0) at("corrupt").parentElement.hidden = false;
  write("viewers", String(status.viewers.length));
}

function showStages(status) {
  const most = Math.max(...status.stages_ms.map(([, ms]) => ms));
  const rows = status.stages_ms.map(([stage, ms]) => {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${(100 * ms) / most}%`;
    const name = element("th", { scope: "row", textContent: stage[0].toUpperCase() + stage.slice(1) });
    return element("tr", {}, name, element("td", {}, bar), element("td", { textContent: `${ms.toFixed(1)} ms` }));
  });
  at("stages").replaceChildren(...rows);
}

// The next of 1, 2, 3, 5, 10, 20, ...
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 3, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function showPlot(name, values, samples, text) {
  const known = values.filter((value) => value !== null);
  const top = ceiling(Math.max(...known, 0));
  let path = "";
  values.forEach((value, index) => {
    const x = (300 * (samples - values.length + index)) / (samples - 1);
    const joined = index > 0 && values[index - 1] !== null;
    if (value !== null) path += `${joined ? "L" : "M"}${x.toFixed(1)} ${(100 - (100 * value) / top).toFixed(1)}`;
  });
  at(`${name}-plot`).firstElementChild.setAttribute("d", path);
  write(`${name}-top`, known.length > 0 ? text(top) : "");
  const range = known.length > 0 ? `from ${text(Math.min(...known))} to ${text(Math.max(...known))}` : "nothing yet";
  at(`${name}-plot`).setAttribute("aria-label", `Last minute: ${range}`);
}

function showPlots({ history }) {
  showPlot("fps", history.fps, history.samples, (value) => `${Number(value.toFixed(1))} fps`);
  showPlot("age", history.age_ms, history.samples, (value) => (value < 1000 ? `${value.toFixed(0)} ms` : `${value / 1000} s`));
}

function showState(state, notice) {
  write("state", STATES[state]);
  at("state").dataset.state = state;
  write("notice", notice);
  at("notice").hidden = notice === "";
  at("live").classList.toggle("old", state === "reconnecting" || state === "unreachable");
  document.body.classList.toggle("lost", state === "unreachable");
  const title = model ? model.title : "proscale-deploy";
  document.title = state === "running" ? title : `${STATES[state]}: ${title}`;
}

function noticeOf(status) {
  const last = status.last_frame_s === null ? "no frame yet" : `last frame ${ago(status.last_frame_s)} ago`;
  if (status.state !== "running") return [status.message, last].filter(Boolean).join(" – ");
  if (picture.on) return "";
  const full = status.viewers.length >= status.most_viewers;
  return full ? `${status.most_viewers} viewers are watching already, which is the most; trying again` : "";
}

function show(status, changed) {
  showState(status.state, noticeOf(status));
  showFigures(status);
  if (!changed) showSettings(status);
  showStages(status);
  showPlots(status);
  showLegend(status);
  const ready = status.frame_size !== null;
  at("save").setAttribute("aria-disabled", String(!ready));
  picture.check(status.viewers);
  if (ready) {
    at("view").style.aspectRatio = `${status.frame_size[1]} / ${status.frame_size[0]}`; // nothing jumps without a picture
    picture.start();
  }
}

function showLost() {
  const since = (performance.now() - lastAnswer) / 1000;
  showState("unreachable", `The machine does not answer, for ${ago(since)} now; trying again`);
  for (const id of ["fps", "age"]) {
    write(id, "–");
    at(id).classList.remove("still");
  }
  picture.on = false; // what was last seen stays, grey, until the machine answers again
}

// ---- The loop

async function update() {
  try {
    const { changes } = settings;
    const status = await ask("/api/status");
    if (run !== null && run !== status.run) return location.reload();
    if (model === null) {
      model = await ask("/api/model");
      showModel();
    }
    run = status.run;
    lastAnswer = performance.now();
    lastStatus = status;
    show(status, settings.changes !== changes);
  } catch {
    showLost();
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) picture.stop(); // nobody watches: the machine need not draw
});
for (;;) {
  if (!document.hidden) await update();
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}
