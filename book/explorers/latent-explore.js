/**
 * The view `explore`: one z, moved along directions with names, along principal ones, or number by number.
 */
"use strict";

(explorers.latent ??= {}).makeExplore = (explorer, maker) => {
  const { element, select } = explorers;
  const { choice, slider, button } = explorers.controls;
  const { Picture, numberField, sampleLatent, length, anySeed, MOST_SEED, MOST_ROW, oncePerFrame, linkedState, linkButton } = explorers.latent;
  const { directions, dimension } = maker.generator;
  const FAR = 5; // of a direction's slider, in standard deviations of the samples
  const named = directions.map((_, i) => i).filter((i) => directions[i].factor);
  const principal = directions.map((_, i) => i).filter((i) => !directions[i].factor);
  const signed = (t) => (t > 0 ? "+" : t < 0 ? "−" : "") + Math.abs(t).toFixed(1);
  const nameOf = (i) => directions[i].value || `principal ${principal.indexOf(i) + 1}`;

  // --- the state -------------------------------------------------------------------------------------------------------

  let base = { seed: 0, row: 0 };
  /** Direction -> how far along it; place -> number of z. What is not in them is as in the sample. */
  const moves = new Map(), numbers = new Map();

  function current() {
    const z = Float32Array.from(sampleLatent(base.seed, base.row, dimension));
    for (const [i, t] of moves) directions[i].vector.forEach((part, k) => { z[k] += t * part; });
    for (const [k, value] of numbers) z[k] = value;
    return z;
  }

  /** For a link: names of directions and not their places, since another training finds others. */
  function written() {
    const state = { z: `${base.seed}.${base.row}` };
    if (moves.size) state.move = [...moves].map(([i, t]) => `${nameOf(i)}:${t}`).join(",");
    if (numbers.size) state.set = [...numbers].map(([k, value]) => `${k}:${value}`).join(",");
    return state;
  }

  function read({ z = "", move = "", set = "" }) {
    const [seed, row] = z.split(".").map(Number);
    if (Number.isInteger(seed) && Number.isInteger(row) && seed >= 0 && seed <= MOST_SEED && row >= 0 && row <= MOST_ROW) base = { seed, row };
    const pairs = (text) => text.split(",").map((pair) => pair.split(":")).filter(([, value]) => Number.isFinite(Number(value)));
    for (const [name, t] of pairs(move)) {
      const i = directions.findIndex((_, at) => nameOf(at) === name);
      if (i >= 0) moves.set(i, Math.min(Math.max(Number(t), -FAR), FAR));
    }
    for (const [k, value] of pairs(set)) {
      if (Number.isInteger(Number(k)) && k >= 0 && k < dimension) numbers.set(Number(k), Math.min(Math.max(Number(value), -4), 4));
    }
  }

  // --- pictures and words ----------------------------------------------------------------------------------------------

  const picture = new Picture(maker, "latent-large"), start = new Picture(maker, "latent-start");
  const recipe = element("p", { className: "latent-recipe" });
  const lengthLine = element("p", { className: "latent-length" });

  function describe() {
    const parts = [...moves].map(([i, t]) => ` ${t < 0 ? "−" : "+"} ${Math.abs(t).toFixed(1)} ${nameOf(i)}`);
    const places = numbers.size ? `, ${numbers.size} of its numbers set by hand` : "";
    return `z = sample ${base.row} of seed ${base.seed}${parts.join("")}${places}`;
  }

  /** Show the z of now; the sample it started from only when that is another. */
  function update(fresh = false) {
    const z = current(), text = describe();
    recipe.textContent = text;
    lengthLine.textContent = `Length of z: ${length(z).toFixed(1)}. Samples: ${Math.sqrt(dimension - 0.5).toFixed(1)} ± 0.7.`;
    bars?.draw();
    const done = new Promise((resolve) => { picture.ask(z, true, resolve); });
    picture.label(`Generated picture. ${text}`);
    if (fresh) {
      start.ask(sampleLatent(base.seed, base.row, dimension), true);
      start.label(`The sample it started from: ${base.row} of seed ${base.seed}`);
    }
    explorer.announce(`${text}. ${lengthLine.textContent}`);
    return done;
  }
  const soon = oncePerFrame(() => update());

  // --- the sample it starts from ---------------------------------------------------------------------------------------

  const seedField = numberField("Seed", 0, MOST_SEED, (seed) => begin({ ...base, seed }));
  const rowField = numberField("Sample", 0, MOST_ROW, (row) => begin({ ...base, row }));

  /** Start from another sample; what has been moved stays moved. */
  function begin(sample) {
    base = sample;
    seedField.set(base.seed);
    rowField.set(base.row);
    showNumbers();
    return update(true);
  }

  function reset() {
    moves.clear();
    numbers.clear();
    showMoves();
    showNumbers();
    return update();
  }

  // --- directions ------------------------------------------------------------------------------------------------------

  /** Rows of sliders, each of which stands for one of several directions. */
  const rows = [];

  function move(i, t) {
    if (t) moves.set(i, t);
    else moves.delete(i);
    soon();
  }

  /** A row that lets one choose among directions; the effect of the chosen one beneath. */
  function chooser(label, choices, chosen) {
    const effect = element("p", { className: "latent-effect" });
    const control = slider("", [-FAR, FAR], (t) => move(row.direction, t), 0.1, signed);
    const box = select(label, choices.map((i) => [i, directions[i].value]), chosen, (value) => {
      row.direction = Number(value);
      row.show();
    });
    const row = {
      direction: chosen,
      element: element("div", { className: "latent-direction" }, box, control.element, effect),
      show() {
        const { value, before, after } = directions[this.direction];
        control.set(moves.get(this.direction) ?? 0);
        control.range.setAttribute("aria-label", `${label}: ${value}`);
        effect.textContent = `${before} % → ${after} % at +3`;
        box.querySelector("select").value = this.direction;
      },
    };
    rows.push(row);
    return row.element;
  }

  function plain(i) {
    const control = slider(nameOf(i)[0].toUpperCase() + nameOf(i).slice(1), [-FAR, FAR], (t) => move(i, t), 0.1, signed);
    rows.push({ direction: i, show: () => control.set(moves.get(i) ?? 0) });
    return element("div", { className: "latent-direction" }, control.element);
  }

  function namedRows() {
    const factors = [...new Set(named.map((i) => directions[i].factor))];
    const capital = (text) => text[0].toUpperCase() + text.slice(1);
    if (factors.length > 1) {
      return factors.map((factor) => {
        const own = named.filter((i) => directions[i].factor === factor);
        return chooser(capital(factor), own, own[0]);
      });
    }
    return named.slice(0, 5).map((i, at) => chooser(`${capital(factors[0])} ${at + 1}`, named, i));
  }

  function showMoves() {
    for (const [i] of moves) { // a link may name a direction that no row stands for yet
      if (rows.some((row) => row.direction === i)) continue;
      const row = rows.find((one) => one.element && directions[one.direction].factor === directions[i].factor && !moves.has(one.direction));
      if (row) row.direction = i;
    }
    for (const row of rows) row.show();
  }

  // --- the numbers of z ------------------------------------------------------------------------------------------------

  const REACH = 4; // of a number's slider and bar
  let place = 0;
  const numberSlider = slider("Number", [-REACH, REACH], (value) => setNumber(value), 0.05, (value) => value.toFixed(2).replace("-", "−"));
  const placeField = numberField("Number of z", 0, dimension - 1, (k) => { place = k; showNumbers(); bars.draw(); });

  function setNumber(value) {
    numbers.set(place, value);
    soon();
  }

  function showNumbers() {
    const z = current();
    placeField.set(place);
    numberSlider.range.setAttribute("aria-label", `Number ${place} of z`);
    numberSlider.set(Math.min(Math.max(z[place], -REACH), REACH));
  }

  const bars = explorer.canvas("latent-bars", (pen, width, height) => {
    const z = current(), each = width / dimension, middle = height / 2;
    pen.clearRect(0, 0, width, height);
    z.forEach((value, k) => {
      const tall = Math.min(Math.max(value / REACH, -1), 1) * middle;
      pen.fillStyle = explorer.colour(k === place ? "accent" : numbers.has(k) ? "fake" : "bar");
      pen.fillRect(k * each, middle - Math.max(tall, 0), Math.max(each - 1, 1), Math.max(Math.abs(tall), 1));
    });
    pen.fillStyle = explorer.colour("text");
    pen.fillRect(0, middle - 0.5, width, 1);
  });
  bars.element.setAttribute("aria-hidden", "true"); // the field and the slider do the same
  explorers.onDrag(bars.element, (share, width, downwards) => {
    place = Math.min(Math.max(Math.floor(share * dimension), 0), dimension - 1);
    setNumber(Math.min(Math.max((1 - 2 * downwards) * REACH, -REACH), REACH));
    showNumbers();
  });

  // --- all together ----------------------------------------------------------------------------------------------------

  const panels = new Map();
  const note = element("p", { className: "latent-small" }, "Per cent of samples in which a reader finds the value, as they are and moved by +3.");
  if (named.length) panels.set("Named", element("div", { className: "latent-panel" }, ...namedRows(), note));
  if (principal.length) panels.set("Principal", element("div", { className: "latent-panel latent-two" }, ...principal.map(plain)));
  panels.set("Numbers", element("div", { className: "latent-panel" },
    bars.element, element("div", { className: "latent-fields" }, placeField.element, numberSlider.element)));
  const tabs = choice("Directions", [...panels.keys()].map((name) => [name, name]), open);

  function open(name) {
    for (const [key, panel] of panels) panel.hidden = key !== name;
    tabs.set(name);
    showNumbers();
  }

  read(linkedState(explorer));
  showMoves();
  open(numbers.size ? "Numbers" : [...moves].some(([i]) => !directions[i].factor) ? "Principal" : panels.keys().next().value);

  const view = element("div", { className: "latent-explore" },
    element("div", { className: "latent-shown" }, picture.element,
      element("div", { className: "latent-beside" }, start.element, element("p", { className: "latent-small" }, "where it started")),
      element("div", { className: "latent-words" }, recipe, lengthLine)),
    element("div", { className: "latent-controls" },
      element("div", { className: "latent-fields" }, seedField.element, rowField.element,
        button("Shuffle", () => begin({ seed: anySeed(), row: 0 })), button("Reset", reset)),
      tabs.element, ...panels.values(), linkButton(explorer, "Copy link to this z", written)));

  return { element: view, begin, first: () => begin(base) };
};
