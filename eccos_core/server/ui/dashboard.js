// The dashboard. Texts of strangers enter the page as text nodes and attributes only: nothing here parses markup.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const REFRESH_MS = 15000, PAGE = 10, MOST_LISTED = 200;
let key = ""; // in memory only: gone with the page
let shown = { figures: null, savings: null, status: null, decisions: [] };
let olderPages = 1;

// ---------------------------------------------------------------- elements

function make(parent, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) parent.setAttribute(name, value === true ? "" : value);
  }
  parent.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return parent;
}
const h = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

function put(id, ...children) { // keep the focus where it is, though what has it is drawn anew
  const focused = $(id).contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  $(id).replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (focused !== undefined) $(id).querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

function table(caption, columns, rows, { cards = false } = {}) { // columns: [name, is a number]
  const head = h("tr", {}, columns.map(([name, number]) => h("th", { scope: "col", class: number ? "n" : null }, name)));
  const body = rows.map(({ cells, mark }) => h("tr", { class: mark ? "mark" : null }, cells.map((cell, i) => i
    ? h("td", { class: columns[i][1] ? "n" : null, "data-name": columns[i][0] || null }, cell)
    : h("th", { scope: "row" }, cell))));
  const made = h("table", { class: cards ? "cards" : null }, h("caption", {}, caption), h("thead", {}, head), h("tbody", {}, body));
  return cards ? made : h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption, "data-focus": caption }, made);
}

// ---------------------------------------------------------------- numbers

const NONE = "–";
const known = (value) => value !== null && value !== undefined;
const count = (value) => known(value) ? value.toLocaleString("en-US") : NONE;
const share = (value) => known(value) ? `${(100 * value).toFixed(1)} %` : NONE;
const quality = (value) => known(value) ? value.toFixed(3) : NONE;
const seconds = (value) => !known(value) ? NONE : value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(2)} s`;
function usd(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 2 : Math.min(12, Math.max(2, 2 - Math.floor(Math.log10(size))));
  return `${value < 0 ? "−" : ""}$${size.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}
const tickUsd = (value) => usd(value).replace(/(\.\d\d.*?)0+$/, "$1");
const when = (at) => new Date(1000 * at).toLocaleString();
function short(at, step) {
  const date = new Date(1000 * at);
  return step >= 43200 ? date.toLocaleDateString([], { month: "short", day: "numeric" })
    : date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: step < 60 ? "2-digit" : undefined, hourCycle: "h23" });
}

// ---------------------------------------------------------------- charts

function niceTicks(low, high, wanted = 4) {
  const raw = (high - low) / wanted || 1, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * base).find((each) => each >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) ticks.push(i * step);
  return ticks;
}
const widthOf = (id) => Math.max(260, $(id).clientWidth || 320);

function lineChart(id, label, { from, to, step, lines, format, low = 0, high = null }) {
  const width = widthOf(id), height = 220, left = 62, right = 10, top = 10, bottom = 26;
  const values = lines.flatMap((line) => line.points.map((point) => point[1]));
  if (!values.length) return put(id, h("p", { class: "faint" }, "Nothing to draw yet."));
  const most = high ?? (Math.max(...values, low + 1e-12) * 1.05);
  const x = (at) => left + (width - left - right) * Math.min(1, Math.max(0, (at - from) / (to - from || 1)));
  const y = (value) => height - bottom - (height - top - bottom) * (value - low) / (most - low || 1);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of niceTicks(low, most)) {
    svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      s("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
  }
  const marks = width < 480 ? 2 : 3;
  for (let i = 0; i <= marks; i++) {
    const at = from + (to - from) * i / marks;
    svg.append(s("text", { x: x(at), y: height - 8, "text-anchor": i === 0 ? "start" : i === marks ? "end" : "middle" }, short(at, step)));
  }
  for (const line of lines) {
    const path = line.points.map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (path) svg.append(s("path", { class: `l ${line.stroke} ${line.dashed ? "dashed" : ""}`, d: path }));
    if (line.dots || line.points.length === 1) {
      svg.append(...line.points.map(([at, value]) => s("circle", { class: line.fill, cx: x(at), cy: y(value), r: 3 })));
    }
  }
  put(id, svg, legend(lines));
}

function legend(lines) {
  return h("ul", { class: "legend" }, lines.map((line) => h("li", {},
    s("svg", { viewBox: "0 0 28 14", "aria-hidden": "true" }, line.stroke
      ? s("path", { class: `l ${line.stroke} ${line.dashed ? "dashed" : ""}`, d: "M1 7H27" })
      : s("rect", { class: line.fill, width: 28, height: 14 })), line.name)));
}

function barChart(id, label, { rows, format, lines }) { // rows: [name, [[value, class], ...]]
  if (!rows.length) return put(id, h("p", { class: "faint" }, "Nothing to draw yet."));
  const width = widthOf(id), bar = 14, each = 24 + bar * rows[0][1].length, room = 84;
  const most = Math.max(...rows.flatMap((row) => row[1].map((value) => value[0])), 1e-12);
  const svg = s("svg", { viewBox: `0 0 ${width} ${rows.length * each}`, role: "img", "aria-label": label });
  rows.forEach(([name, values], i) => {
    const fits = Math.floor(width / 7.5);
    svg.append(s("text", { x: 0, y: i * each + 15, class: "value" }, name.length > fits ? `${name.slice(0, fits - 1)}…` : name));
    values.forEach(([value, fill], j) => {
      const long = (width - room) * value / most, at = i * each + 20 + j * bar;
      svg.append(s("rect", { class: fill, x: 0, y: at, width: Math.max(1, long).toFixed(1), height: bar - 2 }),
        s("text", { x: long + 6, y: at + 10 }, format(value)));
    });
  });
  put(id, svg, lines ? legend(lines) : null);
}

function reliability(id, { bins, labelled }) {
  if (!labelled) return put(id, h("p", { class: "faint" }, "No answer of this period has a label yet."));
  const size = Math.min(340, widthOf(id)), left = 40, bottom = 36, side = size - left - 14;
  const x = (value) => left + side * value, y = (value) => 14 + side * (1 - value);
  const most = Math.max(...bins.map((bin) => bin.count));
  const svg = s("svg", { viewBox: `0 0 ${size} ${14 + side + bottom}`, role: "img",
    "aria-label": `Reliability diagram: mean label by forecast quality, ${labelled} labelled answers in ${bins.length} bins` });
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(s("line", { class: "grid", x1: left, x2: left + side, y1: y(tick), y2: y(tick) }),
      s("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)),
      s("text", { x: x(tick), y: y(0) + 16, "text-anchor": "middle" }, String(tick)));
  }
  svg.append(s("line", { class: "ref", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    s("path", { class: "l s1", d: bins.map((bin, i) => `${i ? "L" : "M"}${x(bin.forecast).toFixed(1)} ${y(bin.label).toFixed(1)}`).join("") }));
  for (const bin of bins) {
    const up = y(bin.label) > 34;
    svg.append(s("circle", { class: "f1", cx: x(bin.forecast), cy: y(bin.label), r: 3 + 7 * Math.sqrt(bin.count / most) }),
      s("text", { class: "value", x: x(bin.forecast), y: y(bin.label) + (up ? -13 : 24), "text-anchor": "middle" }, count(bin.count)));
  }
  svg.append(s("text", { x: left + side / 2, y: 14 + side + bottom - 2, "text-anchor": "middle" }, "forecast quality (numbers: labelled answers)"));
  put(id, svg);
}

// ---------------------------------------------------------------- sections

function drawCards({ figures, savings, status }) {
  const total = figures.total;
  const cards = [
    ["Decisions", count(total.decisions), `${count(total.answers)} answered`],
    ["Spent on answers", usd(total.paid_usd), total.answers ? `${usd(1000 * total.paid_usd / total.answers)} per 1,000` : ""],
    ["Saved", savings?.baseline ? usd(savings.saved_usd) : NONE,
      savings?.baseline ? `${share(savings.saved_share)} of ${savings.baseline} alone` : "no forecast to compare with"],
    ["Quality asked", quality(total.asked), total.with_floor ? `mean floor of ${count(total.with_floor)}` : "no floor was set"],
    ["Quality predicted", quality(total.predicted), "mean of all decisions"],
    ["Quality realised", quality(total.label), `${count(total.labelled)} labelled, ${quality(total.promised)} predicted for them`],
    ["In flight", count(status.in_flight), `${count(status.waiting)} waiting in the queue`],
  ];
  put("cards", cards.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, more)))));
}

function drawMoney({ figures, savings }) {
  const { since, until, step_s: step } = figures;
  const end = (row) => Math.min(until, row.at + step);
  const sum = (rows, name) => { let all = 0; return [[since, 0], ...rows.map((row) => [end(row), all += row[name]])]; };
  const lines = [{ name: "paid", stroke: "s0", points: sum(figures.steps, "paid_usd") }];
  if (savings?.baseline) lines.push({ name: `${savings.baseline} alone (estimated)`, stroke: "sr", dashed: true, points: sum(savings.steps, "baseline_usd") });
  lineChart("money", `Spend since the start of the period: ${usd(figures.total.paid_usd)} paid${savings?.baseline ? `, ${usd(savings.baseline_usd)} with ${savings.baseline} alone` : ""}`,
    { from: since, to: until, step, lines, format: tickUsd });
  let said = "The lines add up from the start of the period.";
  const measured = savings?.quality;
  if (measured?.quality_change) {
    const change = measured.quality_change;
    said += ` Against ${savings.baseline}, quality changed by ${change.value.toFixed(3)} (${change.low.toFixed(3)} to ${change.high.toFixed(3)}), estimated from the newest ${count(measured.decisions)} answers.`;
  }
  put("money-said", said);
  const baseline = new Map((savings?.steps ?? []).map((row) => [row.at, row.baseline_usd]));
  const rows = figures.steps.filter((row) => row.decisions).map((row) => {
    const other = baseline.get(row.at);
    return { cells: [when(row.at), count(row.decisions), usd(row.paid_usd), usd(other), known(other) ? usd(other - row.paid_usd) : NONE] };
  });
  put("money-table", table("Spend and savings per time step", [["From"], ["Decisions", 1], ["Paid", 1], ["Baseline", 1], ["Saved", 1]], rows));
}

function drawQuality({ figures, status }) {
  const { since, until, step_s: step, steps, total } = figures;
  const points = (name) => steps.filter((row) => known(row[name])).map((row) => [Math.max(since, Math.min(until, row.at + step / 2)), row[name]]);
  const floor = status.policy.kind === "quality_floor" ? ` The policy's floor is ${quality(status.policy.value)} now.` : "";
  put("quality-said", `Realised is the mean of ${count(total.labelled)} labels.${floor}`);
  lineChart("quality", `Quality over time. Asked ${quality(total.asked)}, predicted ${quality(total.predicted)}, realised ${quality(total.label)} in the mean`,
    { from: since, to: until, step, high: 1, format: (value) => value.toFixed(2), lines: [
      { name: "asked", stroke: "sr", fill: "fr", dashed: true, points: points("asked") },
      { name: "predicted", stroke: "s1", fill: "f1", points: points("predicted") },
      { name: "realised", stroke: "s2", fill: "f2", dots: true, points: points("label") }] });
  const rows = steps.filter((row) => row.decisions).map((row) => ({ cells:
    [when(row.at), quality(row.asked), quality(row.predicted), quality(row.label), count(row.labelled)] }));
  put("quality-table", table("Quality per time step", [["From"], ["Asked", 1], ["Predicted", 1], ["Realised", 1], ["Labels", 1]], rows));
}

function drawModels({ figures }) {
  const models = figures.models;
  barChart("share", `Share of decisions per model: ${models.map((row) => `${row.model} ${share(row.share)}`).join(", ")}`,
    { rows: models.map((row, i) => [row.model, [[row.share, `f${i % 8}`]]]), format: share });
  put("models-table", table("Models of this period",
    [["Model"], ["Decisions", 1], ["Share", 1], ["Paid", 1], ["Predicted", 1], ["Realised", 1], ["Labels", 1]],
    models.map((row) => ({ cells: [row.model, count(row.decisions), share(row.share), usd(row.paid_usd), quality(row.predicted), quality(row.label), count(row.labelled)] }))));
  const answered = models.filter((row) => known(row.latency_p50_s));
  barChart("latency", `Latency per model: ${answered.map((row) => `${row.model} ${seconds(row.latency_p50_s)} median, ${seconds(row.latency_p90_s)} p90`).join("; ")}`,
    { rows: answered.map((row) => [row.model, [[row.latency_p50_s, "f1"], [row.latency_p90_s, "f5"]]]), format: seconds,
      lines: [{ name: "median", fill: "f1" }, { name: "p90", fill: "f5" }] });
  put("latency-table", table("Latency per model", [["Model"], ["Answers", 1], ["Median", 1], ["p90", 1]],
    answered.map((row) => ({ cells: [row.model, count(row.answers), seconds(row.latency_p50_s), seconds(row.latency_p90_s)] }))));
}

function drawCalibration({ figures }) {
  const { bins, labelled, error } = figures.calibration;
  reliability("calibration", figures.calibration);
  put("calibration-said", labelled ? `${count(labelled)} labelled answers. Calibration error ${quality(error)}. On the dashed line, forecasts come true.` : "");
  put("calibration-table", table("Labelled answers by their forecast", [["Forecast"], ["Answers", 1], ["Mean forecast", 1], ["Mean label", 1]],
    bins.map((bin) => ({ cells: [`${bin.low.toFixed(1)} to ${bin.high.toFixed(1)}`, count(bin.count), quality(bin.forecast), quality(bin.label)] }))));
}

const BREAKERS = { closed: "closed", open: "OPEN: no request passes", half_open: "half open: one request tries" };
function drawHealth(status) {
  const open = status.models.filter((row) => row.breaker !== "closed");
  put("health-said", `${open.length ? `${open.length} of ${status.models.length} circuits are open: ${open.map((row) => row.model).join(", ")}.` : `All ${status.models.length} circuits are closed.`} `
    + `${count(status.in_flight)} in flight, ${count(status.waiting)} waiting.`);
  $("health-said").className = open.length ? "bad" : "";
  put("health-table", table("Models now", [["Model"], ["Circuit"], ["In flight", 1], ["Slots", 1], ["Errors", 1], ["Per minute", 1]],
    status.models.map((row) => ({ cells: [row.model, h("span", { class: row.breaker === "closed" ? "good" : "bad" }, BREAKERS[row.breaker]),
      count(row.in_flight), row.max_concurrency === null ? "no limit" : count(row.max_concurrency), share(row.error_rate), count(row.requests_last_minute)] }))));
  put("budgets", status.budgets?.length ? table("What tenants have left", [["Tenant"], ["Budget", 1], ["Spent", 1], ["Reserved", 1], ["Left", 1]],
    status.budgets.map((row) => ({ cells: [row.tenant, row.usd_per_month === null ? "no limit" : usd(row.usd_per_month), usd(row.spent_usd), usd(row.reserved_usd), row.left_usd === null ? NONE : usd(row.left_usd)] })))
    : h("p", { class: "faint" }, status.budgets ? "No tenant has a budget or has spent anything this month." : "This server has no budgets."));
  const told = [status.log.problem, status.configuration_problem, status.certificate_problem, ...status.drift,
    status.log.dropped ? `${count(status.log.dropped)} entries of the decision log were lost.` : null];
  put("problems", told.filter(Boolean).map((text) => h("p", { class: "bad" }, text)));
}

function drawDecisions(decisions) {
  const rows = decisions.map((row) => ({ cells: [
    h("time", { datetime: new Date(1000 * row.at).toISOString() }, when(row.at)),
    [row.model ?? `${row.decided_model} (no answer)`, row.calls.length > 1 ? h("small", {}, ` plan: ${row.calls.join(" → ")}`) : null],
    quality(row.quality_asked), quality(row.quality), quality(row.label), usd(row.paid_usd ?? null), seconds(row.latency_s),
    [row.reason, row.attempts.length ? h("small", { class: "bad" }, ` Failed first: ${row.attempts.map((each) => `${each.model} (${each.kind})`).join(", ")}.`) : null],
    h("button", { type: "button", "data-id": row.id, "data-focus": row.id, "aria-label": `Why ${row.decided_model}? Decision of ${when(row.at)}` }, "Why?")] }));
  put("decisions", rows.length ? table(`The newest ${count(rows.length)} decisions`, [["When"], ["Model"], ["Asked", 1], ["Predicted", 1], ["Realised", 1], ["Paid", 1], ["Time", 1], ["Reason"], [""]], rows, { cards: true })
    : h("p", { class: "faint" }, "No decision yet."));
  $("older").hidden = rows.length < PAGE * olderPages || rows.length >= MOST_LISTED;
}

// ---------------------------------------------------------------- why this model

async function showWhy(id) {
  let found;
  try { found = await read(`decisions/${encodeURIComponent(id)}`); } catch (error) { return say(error.message); }
  const forecast = [...found.forecast].sort((a, b) => a.cost_usd - b.cost_usd);
  const point = (value) => usd(value / 100);
  const body = [h("p", {}, found.reason),
    h("p", { class: "faint" }, `${when(found.at)}, decision ${found.id}${found.tenant ? `, tenant ${found.tenant}` : ""}. `
      + `A point of quality (0.01) could cost ${point(found.usd_per_quality)}.`),
    found.notes.map((note) => h("p", {}, note)),
    h("h3", {}, "What each model was forecast to do"),
    table("Forecast of each model for this request", [["Model"], ["Quality", 1], ["Cost of a call", 1], ["Cost less quality's worth", 1], ["May answer"]],
      forecast.map((row) => ({ mark: row.model === found.decided_model, cells: [row.model + (row.model === found.decided_model ? " (chosen)" : ""),
        quality(row.quality), usd(row.cost_usd), usd(row.cost_usd - found.usd_per_quality * row.quality), row.may_answer ? "yes" : "no"] }))),
    h("h3", {}, "What another price of quality would have chosen"),
    found.prices.length ? table("By forecasts and price alone, without load and waiting", [["A point of quality may cost"], ["Model"]],
      found.prices.map((row) => ({ mark: row.model === found.chosen_at_price, cells: [row.to_usd_per_quality === null
        ? `${point(row.from_usd_per_quality)} or more` : `${point(row.from_usd_per_quality)} to ${point(row.to_usd_per_quality)}`,
        row.model + (row.model === found.chosen_at_price ? " (at this price)" : "")] })))
      : h("p", {}, "No model of the forecast may answer this."),
    h("h3", {}, "What happened"),
    h("p", {}, found.model === null ? "No answer is in the log." : `${found.model} answered: ${usd(found.paid_usd)} (${usd(found.cost_usd)} expected), ${seconds(found.latency_s)}, `
      + `${count(found.input_tokens)} tokens in, ${count(found.output_tokens)} out. Quality asked ${quality(found.quality_asked)}, predicted ${quality(found.quality)}, `
      + `realised ${quality(found.label)}${found.label_source ? ` (${found.label_source})` : ""}.`),
    found.attempts.length ? table("Calls that failed", [["Model"], ["Failure"], ["Time", 1]], found.attempts.map((each) => ({ cells:
      [each.model, [each.kind, each.message ? `: ${each.message}` : null], seconds(each.latency_s)] }))) : null,
    found.calls.length ? table("Calls of the plan", [["Model"], ["Cost", 1], ["Time", 1], ["Quality seen", 1], ["What followed"]], found.calls.map((call) => ({ mark: call.accepted, cells:
      [call.model, usd(call.cost_usd), seconds(call.latency_s), quality(call.quality), `${call.accepted ? "Accepted. " : ""}${call.why}`] }))) : null,
    found.text !== null ? [h("h3", {}, "What was asked"), h("pre", { tabindex: "0" }, found.text)] : null,
    shown.status?.viewer.is_admin && found.model !== null ? rateForm(found.id) : null];
  put("why-body", body);
  if (!$("why").open) $("why").showModal();
}

function rateForm(id) {
  const give = (value) => async () => {
    try {
      await read("/v1/eccos/feedback", { method: "POST", body: JSON.stringify({ decision_id: id, quality: value }) });
      await showWhy(id);
      say(`The answer is labelled ${value ? "good" : "bad"}.`);
      refresh();
    } catch (error) { say(error.message); }
  };
  const good = h("button", { type: "button", "data-focus": "good" }, "Good answer"), bad = h("button", { type: "button", "data-focus": "bad" }, "Bad answer");
  good.addEventListener("click", give(1));
  bad.addEventListener("click", give(0));
  return [h("h3", {}, "Label the answer"), h("p", { class: "rate" }, good, bad)];
}

// ---------------------------------------------------------------- reading

class KeyNeeded extends Error {}

async function read(path, options = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path.startsWith("/") ? path : `/ui/data/${path}`, { ...options, headers: { ...headers, ...(options.body ? { "content-type": "application/json" } : {}) }, cache: "no-store" });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new KeyNeeded(body.error?.message ?? "a key is needed");
  if (!answer.ok) throw new Error(body.error?.message ?? `The server answered ${answer.status}.`);
  return body;
}

const say = (text) => { $("said").textContent = text; };

function options(id, names, first) {
  const value = $(id).value;
  if ([...$(id).options].slice(1).map((each) => each.value).join("\n") === names.join("\n")) return;
  $(id).replaceChildren(h("option", { value: "" }, first), ...names.map((name) => h("option", { value: name }, name)));
  $(id).value = names.includes(value) ? value : "";
}

let reading = 0;
async function refresh() {
  const mine = ++reading, period = encodeURIComponent($("period").value), baseline = encodeURIComponent($("baseline").value);
  try {
    const [status, figures, decisions] = await Promise.all([read("status"), read(`figures?period=${period}`),
      read(`decisions?last=${Math.min(MOST_LISTED, PAGE * olderPages)}&model=${encodeURIComponent($("model").value)}`)]);
    if (mine !== reading) return;
    $("key-form").hidden = true;
    shown = { ...shown, status, figures, decisions: decisions.decisions ?? [] };
    const { viewer } = status;
    $("who").hidden = false;
    $("who").textContent = `${viewer.is_admin ? "Admin" : `Read only, tenant ${viewer.tenant ?? "none"}`}${viewer.has_keys ? `, key ${viewer.key_id}` : ""}`;
    options("baseline", status.models.map((row) => row.model), "Best forecast");
    options("model", status.models.map((row) => row.model), "All");
    drawHealth(status);
    if (!figures.log) return say("This router keeps no decision log, so there are no figures. Set eccos.decision_log in the configuration.");
    draw();
    $("updated").textContent = new Date().toLocaleTimeString();
    if ($("said").dataset.error) { say(""); delete $("said").dataset.error; }
    const savings = await read(`savings?period=${period}&baseline=${baseline}`);
    if (mine !== reading) return;
    shown.savings = savings;
    draw();
    document.body.dataset.ready = "yes";
  } catch (error) {
    if (mine !== reading) return;
    if (error instanceof KeyNeeded) {
      $("key-form").hidden = false;
      if (key) say(error.message);
      key = "";
    } else { $("said").dataset.error = "yes"; say(`The figures could not be read: ${error.message}`); }
  }
}

function draw() {
  drawCards(shown);
  drawMoney(shown);
  drawQuality(shown);
  drawModels(shown);
  drawCalibration(shown);
  drawDecisions(shown.decisions);
}

// ---------------------------------------------------------------- events

const anew = async (text) => { shown.savings = null; await refresh(); if (text) say(text()); };
$("period").addEventListener("change", () => anew(() => `${$("period").selectedOptions[0].text}: ${count(shown.figures?.total?.decisions ?? 0)} decisions.`));
$("baseline").addEventListener("change", () => anew());
$("model").addEventListener("change", () => { olderPages = 1; anew(() => `${count(shown.decisions.length)} decisions are listed.`); });
$("older").addEventListener("click", () => { olderPages += 1; anew(() => `${count(shown.decisions.length)} decisions are listed.`); });
$("refresh").addEventListener("click", () => anew(() => "The figures are up to date."));
$("decisions").addEventListener("click", (event) => {
  const id = event.target.closest("button[data-id]")?.dataset.id;
  if (id) location.hash = `decision=${encodeURIComponent(id)}`;
});
$("why").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); key = $("key").value.trim(); $("key").value = ""; refresh(); });
const asked = new URLSearchParams(location.search).get("period");
if ([...$("period").options].some((each) => each.value === asked)) $("period").value = asked;
const followHash = () => { const found = /^#decision=(.+)$/.exec(location.hash); if (found) showWhy(decodeURIComponent(found[1])); };
window.addEventListener("hashchange", followHash);
let resized;
window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => shown.figures?.log && draw(), 150); });
setInterval(() => { if ($("auto").checked && !document.hidden && $("key-form").hidden) refresh(); }, REFRESH_MS);
refresh().then(followHash);
