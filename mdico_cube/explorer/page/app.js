// The facts of a cube in; a map with two sides, a swipe between them and the chosen pixel's panel out.
"use strict";

const HUES = ["#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#888888", "#a05bb0"];
const OWN = "own";
/** Labels of a time axis by the distance of its ticks: years, months, days, hours; a second line where the larger unit changes. */
const STAMPS = [
  [365 * 86400, "{YYYY}", null, null, null, null, null, null, 1],
  [28 * 86400, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [0.001, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
];
const state = { facts: null, days: [], day: 0, border: 0.5, pixel: null, sides: {}, charts: [], asked: 0, version: 0 };
const byId = (id) => document.getElementById(id);

/** An element with text and attributes; text is never read as HTML. */
function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function colored(element, color) {
  element.style.background = color;
  return element;
}

async function ask(address) {
  const answer = await fetch(address);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
}

function complain(error) {
  const busy = byId("busy");
  busy.textContent = error.message || String(error);
  busy.classList.add("error");
  setTimeout(() => { busy.textContent = ""; busy.classList.remove("error"); }, 8000);
}

const layerOf = (side) => state.facts.layers.find((layer) => layer.key === side.layer.value);

/** The step of a layer that holds the chosen day: its number, 0 without time, -1 where it has none then. */
function stepOf(layer) {
  if (!layer.steps || !layer.steps.length) return 0;
  const day = state.days[state.day];
  let found = -1;
  layer.steps.forEach((start, k) => {
    const stop = layer.stops[k] || layer.steps[k + 1] || "9999";
    if (start <= day && day < stop) found = k;
  });
  return found;
}

/** "rgb:B04,B03,B02" of a side. */
function lookOf(side) {
  if (side.look.value !== OWN) return side.look.value;
  return "rgb:" + side.bands.map((select) => select.value).join(",");
}

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value, text })));
}

/** The selects of one side. */
function makeSide(name, map) {
  const box = byId(name);
  const select = (label, kind) => make("select", { "aria-label": `${label}, ${name}`, class: kind });
  const side = {
    name,
    layer: select("Layer", "layer"),
    look: select("Picture", "look"),
    bands: ["Red", "Green", "Blue"].map((color) => select(color, "band")),
    pane: map.createPane(`side-${name}`),
    tiles: null,
  };
  side.pane.style.zIndex = name === "left" ? 210 : 220;
  side.row = make("div", { class: "bands" }, ...side.bands);
  box.append(side.layer, side.look, side.row);
  fill(side.layer, state.facts.layers.map((layer) => [layer.key, layer.title]));
  side.layer.addEventListener("change", () => { offerLooks(side); draw(side); });
  side.look.addEventListener("change", () => { showBands(side); draw(side); });
  side.bands.forEach((band) => band.addEventListener("change", () => draw(side)));
  return side;
}

function offerLooks(side) {
  const layer = layerOf(side);
  const looks = layer.looks || [];
  const own = !layer.coarse && (layer.bands || []).length >= 3 ? [[OWN, "bands of your choice"]] : [];
  fill(side.look, [...looks.map((look) => [look.key, look.title]), ...own]);
  const start = looks.find((look) => look.key.startsWith("rgb:"));
  side.bands.forEach((select, k) => {
    fill(select, (layer.bands || []).map((band) => [band.name, band.name]));
    if (start) select.value = start.key.slice(4).split(",")[k];
    else select.selectedIndex = Math.min(k, select.options.length - 1);
  });
  side.look.hidden = !looks.length;
  showBands(side);
}

function showBands(side) {
  side.row.hidden = side.look.value !== OWN;
}

/** Tiles and note of one side, anew. */
function draw(side) {
  const layer = layerOf(side);
  const step = stepOf(layer);
  const old = side.tiles;
  side.tiles = null;
  if (step < 0) {
    if (old) old.remove();
  } else {
    const query = new URLSearchParams(layer.kind === "sensor" ? { look: lookOf(side), step } : {});
    query.set("v", state.version);
    const [height, width] = state.facts.shape;
    side.tiles = L.tileLayer(`tiles/${encodeURIComponent(layer.key)}/{z}/{x}/{y}.png?${query}`, {
      pane: `side-${side.name}`,
      tileSize: state.facts.tile,
      minZoom: -state.facts.levels - 1,
      minNativeZoom: -state.facts.levels,
      maxNativeZoom: 0,
      maxZoom: 5,
      bounds: [[0, 0], [height - 0.01, width - 0.01]],
      noWrap: true,
    });
    side.tiles.on("loading", busy).on("load", busy);
    if (old) side.tiles.once("load remove", () => old.remove()); // no blank between two steps
    side.tiles.addTo(state.map);
  }
  note(side, layer, step).catch(complain);
}

function busy() {
  const box = byId("busy");
  if (box.classList.contains("error")) return;
  const loading = Object.values(state.sides).some((side) => side.tiles && side.tiles.isLoading());
  box.textContent = loading ? "reading\u2026" : state.making ? `making overviews, ${state.making} to go\u2026` : "";
  if (!loading && !state.asking && state.facts.levels >= 3) awaitOverviews().catch(complain);
}

/** Far views are rough until their overviews stand: wait for those under way, then draw anew. */
async function awaitOverviews() {
  state.asking = true;
  try {
    do {
      state.making = (await ask("api/overviews")).left;
      busy();
      if (state.making) {
        state.waited = true;
        await new Promise((done) => setTimeout(done, 1000));
      }
    } while (state.making);
  } finally {
    state.asking = false;
  }
  if (state.waited) {
    state.waited = false;
    state.version += 1;
    Object.values(state.sides).forEach(draw);
  }
}

/** What a side shows and what its colours mean. */
async function note(side, layer, step) {
  const box = byId(`note-${side.name}`);
  const day = layer.steps && layer.steps.length ? (step < 0 ? "no step at this time" : layer.steps[step]) : "";
  const head = [make("b", { text: layer.title })];
  const chosen = side.look.selectedOptions[0];
  const picture = chosen && (chosen.value === OWN ? side.bands.map((select) => select.value).join(", ") : chosen.textContent);
  const mixed = /^(radar|own)/.test(side.look.value) || (side.look.value.startsWith("rgb:") && picture !== "true colour");
  const under = [layer.kind === "sensor" && picture ? picture + (mixed ? " as red, green, blue" : "") : "", day].filter(Boolean).join(", ");
  if (under) head.push(make("span", { text: under }));
  box.replaceChildren(...head);
  const mark = (side.mark = Symbol(side.name));
  legendBelow();
  if (layer.kind === "classes") {
    box.append(classesOf(layer));
  } else if (layer.kind === "confidence") {
    box.append(...ramp(layer.ramp, layer.limits, "%"));
  } else if (step >= 0) {
    const query = new URLSearchParams({ look: lookOf(side), step });
    const legend = await ask(`api/legend/${encodeURIComponent(layer.key)}?${query}`);
    if (side.mark !== mark) return;
    if (legend.ramp.length) box.append(...ramp(legend.ramp, legend.limits[0], legend.unit));
  }
}

function classesOf(layer) {
  const entries = layer.legend.map((item) => make("span", {}, colored(make("i"), item.color), item.name));
  return make("div", { class: "classes" }, ...entries);
}

/** On a narrow screen the classes stand below the map, once where both sides have the same. */
function legendBelow() {
  const shown = Object.values(state.sides).map(layerOf).filter((layer) => layer.kind === "classes");
  const told = new Map(shown.map((layer) => [JSON.stringify(layer.legend), layer]));
  byId("key").replaceChildren(...[...told.values()].map(classesOf));
}

function ramp(colors, limits, unit) {
  const bar = make("div", { class: "ramp" });
  bar.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
  const suffix = unit && unit !== "1" ? ` ${unit}` : "";
  const text = (value) => `${Number(value.toPrecision(3))}${suffix}`;
  return [bar, make("div", { class: "ends" }, make("span", { text: text(limits[0]) }), make("span", { text: text(limits[1]) }))];
}

/** Left of the border one side is seen, right of it the other. */
function clip() {
  const { map, border } = state;
  const size = map.getSize();
  const corner = map.containerPointToLayerPoint([0, 0]);
  const end = map.containerPointToLayerPoint(size);
  const middle = corner.x + size.x * border;
  const rect = (left, right) => `rect(${corner.y}px, ${right}px, ${end.y}px, ${left}px)`;
  state.sides.left.pane.style.clip = rect(corner.x, middle);
  state.sides.right.pane.style.clip = rect(middle, end.x);
  const swipe = byId("swipe");
  swipe.style.left = `${100 * border}%`;
  swipe.setAttribute("aria-valuenow", Math.round(100 * border));
}

function moveBorder(share) {
  state.border = Math.min(1, Math.max(0, share));
  clip();
}

function swiping() {
  const swipe = byId("swipe");
  const follow = (event) => {
    const stage = byId("stage").getBoundingClientRect();
    moveBorder((event.clientX - stage.left) / stage.width);
  };
  swipe.addEventListener("pointerdown", (event) => {
    swipe.setPointerCapture(event.pointerId);
    swipe.addEventListener("pointermove", follow);
    event.preventDefault();
    swipe.focus({ focusVisible: false });
  });
  const end = () => swipe.removeEventListener("pointermove", follow);
  swipe.addEventListener("pointerup", end);
  swipe.addEventListener("pointercancel", end);
  swipe.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1 };
    if (event.key in steps) moveBorder(state.border + steps[event.key]);
    else if (event.key === "Home") moveBorder(0);
    else if (event.key === "End") moveBorder(1);
    else return;
    event.preventDefault();
  });
}

/** The slider over every day on which some sensor's step begins. */
function timing() {
  const slider = byId("time");
  state.days = [...new Set(state.facts.layers.flatMap((layer) => layer.steps || []))].sort();
  state.day = Math.floor(state.days.length / 2);
  slider.max = Math.max(0, state.days.length - 1);
  slider.disabled = state.days.length < 2;
  const show = () => {
    slider.value = state.day;
    const monthly = state.days.every((day) => day.endsWith("-01"));
    const text = state.days.length ? state.days[state.day].slice(0, monthly ? 7 : 10) : "no time";
    byId("day").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  const go = (day) => {
    state.day = Math.min(state.days.length - 1, Math.max(0, day));
    show();
    Object.values(state.sides).forEach((side) => { if ((layerOf(side).steps || []).length) draw(side); });
  };
  slider.addEventListener("input", () => { state.day = Number(slider.value); show(); });
  slider.addEventListener("change", () => go(Number(slider.value)));
  byId("before").addEventListener("click", () => go(state.day - 1));
  byId("after").addEventListener("click", () => go(state.day + 1));
  show();
}

function place(latlng) {
  const [a, b, c, d, e, f] = state.facts.transform;
  return [a * latlng.lng + b * latlng.lat + c, d * latlng.lng + e * latlng.lat + f];
}

async function choose(latlng) {
  const [height, width] = state.facts.shape;
  const [row, column] = [Math.floor(latlng.lat), Math.floor(latlng.lng)];
  if (row < 0 || column < 0 || row >= height || column >= width) return;
  const mine = ++state.asked;
  const corner = [[row, column], [row + 1, column + 1]];
  if (state.pixel) state.pixel.forEach((shape) => shape.remove());
  state.pixel = [
    L.circleMarker([row + 0.5, column + 0.5], { radius: 9, color: "#fff", weight: 4, fill: false, interactive: false }),
    L.circleMarker([row + 0.5, column + 0.5], { radius: 9, color: "#000", weight: 2, fill: false, interactive: false }),
    L.rectangle(corner, { color: "#000", weight: 1, fill: false, interactive: false }),
  ];
  state.pixel.forEach((shape) => shape.addTo(state.map));
  byId("panel").setAttribute("aria-busy", "true");
  try {
    const facts = await ask(`api/pixel/${row}/${column}`);
    if (mine === state.asked) tell(facts);
  } finally {
    if (mine === state.asked) byId("panel").removeAttribute("aria-busy");
  }
}

/** The panel of one pixel. */
function tell(facts) {
  const panel = byId("panel");
  state.charts.forEach((chart) => chart.destroy());
  state.charts = [];
  const round = (value, digits) => value.toFixed(digits);
  const digits = state.facts.metric ? 0 : 5;
  panel.replaceChildren(
    make("h2", { text: `x ${round(facts.x, digits)}, y ${round(facts.y, digits)}` }),
    make("p", { class: "facts", text: `${state.facts.crs}; ${round(facts.latitude, 5)}\u00b0 N, ${round(facts.longitude, 5)}\u00b0 E; row ${facts.row}, column ${facts.column}` }),
  );
  if (facts.label) panel.append(make("p", { class: "facts" }, "label: ", colored(make("span", { class: "swatch" }), facts.label.color), facts.label.name));
  facts.maps.forEach((map) => panel.append(...probabilities(map)));
  facts.series.forEach((series) => {
    panel.append(make("h3", { text: `${series.title} ` }, make("small", { text: series.unit })));
    const box = panel.appendChild(make("div", { class: "chart" }));
    state.charts.push(chart(box, series));
  });
  if (facts.fixed.length) {
    panel.append(make("h3", { text: "Terrain" }));
    const text = facts.fixed.map((one) => `${one.band} ${one.value === null ? "?" : Number(one.value.toPrecision(4))}${one.unit === "1" ? "" : " " + one.unit}`);
    panel.append(make("p", { class: "facts", text: text.join(", ") }));
  }
  panel.append(make("div", { class: "actions" },
    make("a", { class: "button", href: `download/series-${facts.row}-${facts.column}.csv`, download: "", text: "This pixel as CSV" }),
    ...["left", "right"].map(viewButton)));
}

/** The rectangle in view, as the values of one side. */
function viewButton(name) {
  const button = make("button", { type: "button", text: `View as GeoTIFF (${name})` });
  button.addEventListener("click", async () => {
    const side = state.sides[name];
    const layer = layerOf(side);
    const bounds = state.map.getBounds();
    const [rows, columns] = [[bounds.getSouth(), bounds.getNorth()], [bounds.getWest(), bounds.getEast()]];
    const query = new URLSearchParams({
      step: Math.max(0, stepOf(layer)),
      row0: Math.floor(Math.min(...rows)), row1: Math.ceil(Math.max(...rows)),
      column0: Math.floor(Math.min(...columns)), column1: Math.ceil(Math.max(...columns)),
    });
    try {
      const answer = await fetch(`download/${encodeURIComponent(layer.key)}.tif?${query}`);
      if (!answer.ok) throw new Error((await answer.json()).error);
      const link = make("a", { href: URL.createObjectURL(await answer.blob()), download: `${layer.key}.tif` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      complain(error);
    }
  });
  return button;
}

function probabilities(map) {
  const verdict = map.class ? map.class.name : "no prediction";
  const head = make("h3", { text: `${map.title}: ${verdict} ` });
  if (map.confidence !== null) head.append(make("small", { text: `${map.confidence} %` }));
  const extras = map.extras.length ? [make("p", { class: "facts", text: map.extras.join("; ") })] : [];
  if (!map.probabilities) return [head, ...extras, make("p", { class: "facts", text: map.class ? map.source : "the sensor never saw this pixel" })];
  const bars = make("div", { class: "bars" });
  const most = Math.max(...map.probabilities.map((one) => one.percent));
  map.probabilities.forEach((one) => {
    const bar = colored(make("div"), one.color);
    bar.style.width = `${one.percent}%`;
    const best = one.percent === most ? " best" : "";
    bars.append(make("span", { text: one.name, class: `name${best}` }), make("div", { class: "track" }, bar),
      make("span", { class: `percent${best}`, text: `${one.percent} %` }));
  });
  return [head, ...extras, bars];
}

/** One chart: a line per band, gaps where nothing was observed. */
function chart(box, series) {
  const width = Math.max(220, byId("panel").clientWidth - 28);
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { font: "11px sans-serif", stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const text = (_, value) => (value === null || value === undefined ? "\u2013" : String(Number(value.toPrecision(3))));
  const options = {
    width,
    height: 170,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: true } },
    axes: [{ ...axis, size: 40, values: STAMPS }, { ...axis, size: 48, space: 26 }],
    series: [
      { value: (_, value) => (value === null ? "" : new Date(value * 1000).toISOString().slice(0, 10)), label: "date" },
      ...series.bands.map((band, k) => ({ label: band.name, stroke: [...HUES, ink][k % (HUES.length + 1)], width: 1.5, spanGaps: false,
        points: { show: true, size: 4 }, value: text })),
    ],
  };
  return new uPlot(options, [series.times, ...series.bands.map((band) => band.values)], box);
}

function begin(facts) {
  state.facts = facts;
  const [height, width] = facts.shape;
  document.title = `${facts.title} - mdico explore`;
  byId("title").replaceChildren(facts.title, make("small", { text: `${width} \u00d7 ${height} pixels, ${facts.crs}; from ${facts.source}` }));
  const resolution = Math.abs(facts.transform[0]);
  const flat = L.extend({}, L.CRS.Simple, {
    transformation: new L.Transformation(1, 0, 1, 0),
    distance: (a, b) => Math.hypot(a.lat - b.lat, a.lng - b.lng) * resolution,
  });
  const map = (state.map = L.map("map", {
    crs: flat, minZoom: -facts.levels - 1, maxZoom: 5, zoomSnap: 0.25, zoomDelta: 0.5, attributionControl: false,
    zoomAnimation: false, fadeAnimation: false, maxBounds: [[-height, -width], [2 * height, 2 * width]],
  }));
  map.fitBounds([[0, 0], [height, width]]);
  if (facts.metric) L.control.scale({ imperial: false, position: "bottomleft" }).addTo(map);
  state.sides = { left: makeSide("left", map), right: makeSide("right", map) };
  timing();
  const keys = facts.layers.map((layer) => layer.key);
  const maps = facts.layers.filter((layer) => layer.kind === "classes" && layer.key !== "label").map((layer) => layer.key);
  const optical = facts.layers.find((layer) => (layer.looks || []).some((look) => look.title === "true colour"));
  state.sides.left.layer.value = maps.length > 1 ? maps[0] : optical ? optical.key : keys[0];
  state.sides.right.layer.value = maps.length ? maps[maps.length - 1] : keys.find((key) => key !== state.sides.left.layer.value) || keys[0];
  Object.values(state.sides).forEach((side) => { offerLooks(side); draw(side); });
  map.on("move zoom resize viewreset", clip);
  map.on("click", (event) => choose(event.latlng).catch(complain));
  map.on("mousemove", (event) => {
    const [x, y] = place(event.latlng);
    const digits = facts.metric ? 0 : 5;
    byId("where").textContent = `${x.toFixed(digits)}, ${y.toFixed(digits)}`;
  });
  map.on("mouseout", () => { byId("where").textContent = ""; });
  byId("map").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    choose(map.getCenter()).catch(complain);
    event.preventDefault();
  });
  byId("map").setAttribute("aria-label", "Map: arrows move, plus and minus zoom, Enter takes the pixel in the middle");
  byId("map").after(make("div", { class: "middle", "aria-hidden": "true" }));
  new ResizeObserver(() => { map.invalidateSize({ animate: false }); clip(); }).observe(byId("stage"));
  swiping();
  clip();
  document.body.dataset.ready = "yes";
}

ask("api/facts").then(begin).catch(complain);
