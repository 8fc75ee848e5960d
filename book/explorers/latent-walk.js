/**
 * The view `walk`: from one sample to the next, on the straight line or on the sphere.
 */
"use strict";

(explorers.latent ??= {}).makeWalk = (explorer, maker) => {
  const { element } = explorers;
  const { choice, button } = explorers.controls;
  const { Picture, numberField, sampleLatent, lerp, slerp, length, anySeed, MOST_SEED, oncePerFrame, linkedState, linkButton } = explorers.latent;
  const { dimension } = maker.generator;
  const STEPS = 60; // from one sample to the next
  const FEWEST = 2, MOST = 5;
  const WAYS = { slerp, lerp };

  const linked = linkedState(explorer);
  let seeds = (linked.seeds ?? "").split(".").map(Number).filter((seed) => Number.isInteger(seed) && seed >= 0 && seed <= MOST_SEED).slice(0, MOST);
  if (!linked.seeds || seeds.length < FEWEST) seeds = [0, 1, 2];
  let way = linked.way === "lerp" ? "lerp" : "slerp";
  let keys = [];

  /** The vector at a step of the walk. */
  function at(step, method = way) {
    const leg = Math.min(Math.floor(step / STEPS), keys.length - 2);
    return WAYS[method](keys[leg], keys[leg + 1], step / STEPS - leg);
  }

  // --- the picture, and a strip of what is on the way -------------------------------------------------------------------

  const picture = new Picture(maker, "latent-large");
  const strip = element("div", { className: "latent-strip", "aria-hidden": "true" }); // the slider does the same
  const words = element("p", { className: "latent-length" });
  const last = () => (keys.length - 1) * STEPS;

  function describe(step) {
    const leg = Math.min(Math.floor(step / STEPS), keys.length - 2), share = step / STEPS - leg;
    if (share === 0) return `Seed ${seeds[leg]}`;
    if (share === 1) return `Seed ${seeds[leg + 1]}`;
    return `Seed ${seeds[leg]} to ${seeds[leg + 1]}, ${Math.round(100 * share)} %`;
  }

  function show(step) {
    const z = at(step);
    words.textContent = `Length of z: ${length(z).toFixed(1)}`;
    picture.label(`Generated picture. ${describe(step)}, ${way}`);
    explorer.announce(`${describe(step)}. ${words.textContent}`);
    chart.draw();
    return new Promise((resolve) => { picture.ask(z, true, resolve); });
  }
  const soon = oncePerFrame(() => show(timeline.index));

  const timeline = explorer.timeline({ count: 2, label: "Place on the walk", rate: 30, describe: (step) => (keys.length ? describe(step) : ""), onChange: soon });

  function showStrip() {
    const count = Math.max(9, 4 * (keys.length - 1) + 1);
    if (strip.childElementCount !== count) {
      strip.replaceChildren(...Array.from({ length: count }, () => {
        const one = new Picture(maker);
        one.element.picture = one;
        return one.element;
      }));
    }
    [...strip.children].forEach((canvas, i) => canvas.picture.ask(at(i / (count - 1) * last())));
  }
  explorers.onDrag(strip, (share) => timeline.go(share * last()));

  // --- how long z is on the way ------------------------------------------------------------------------------------------

  const MARGIN = 11; // half the slider's thumb
  const chart = explorer.canvas("latent-chart", (pen, width, height) => {
    const x = (step) => MARGIN + step / last() * (width - 2 * MARGIN);
    const typical = Math.sqrt(dimension - 0.5), low = typical * 0.6, high = typical * 1.25;
    const y = (value) => height - 16 - (value - low) / (high - low) * (height - 20);
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = explorer.colour("shell");
    pen.fillRect(MARGIN, y(typical + 1.42), width - 2 * MARGIN, y(typical - 1.42) - y(typical + 1.42)); // two deviations
    for (const method of way === "slerp" ? ["lerp", "slerp"] : ["slerp", "lerp"]) {
      pen.beginPath();
      for (let step = 0; step <= last(); step += 2) pen.lineTo(x(step), y(length(at(step, method))));
      pen.strokeStyle = explorer.colour(method === way ? "accent" : "faint");
      pen.lineWidth = method === way ? 2 : 1.25;
      pen.setLineDash(method === way ? [] : [4, 3]);
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.fillStyle = explorer.colour("text");
    pen.fillRect(x(timeline.index) - 0.625, 0, 1.25, height - 16);
    pen.beginPath();
    pen.arc(x(timeline.index), y(length(at(timeline.index))), 3.5, 0, 2 * Math.PI);
    pen.fillStyle = explorer.colour("accent");
    pen.fill();
    pen.font = explorer.colour("font");
    pen.fillStyle = explorer.colour("muted");
    pen.fillText("length of z; shaded: where samples are", MARGIN, height - 3);
  });
  chart.element.setAttribute("aria-hidden", "true");
  explorers.onDrag(chart.element, (share, width) => timeline.go((share * width - MARGIN) / (width - 2 * MARGIN) * last()));

  // --- the samples it passes -----------------------------------------------------------------------------------------------

  const stops = element("div", { className: "latent-stops" });

  function renew() {
    timeline.pause();
    keys = seeds.map((seed) => sampleLatent(seed, 0, dimension));
    timeline.count = last() + 1;
    timeline.range.max = last();
    timeline.index = Math.min(timeline.index, last());
    timeline.show();
    [...stops.children].forEach((stop, i) => {
      stop.field.set(seeds[i]);
      stop.field.box.setAttribute("aria-label", `Seed ${i + 1} of ${seeds.length}`);
      stop.picture.ask(keys[i]);
      stop.picture.label(`The picture of seed ${seeds[i]}`);
    });
    fewer.disabled = seeds.length === FEWEST;
    more.disabled = seeds.length === MOST;
    const done = show(timeline.index);
    showStrip();
    return done;
  }

  function showStops() {
    stops.style.gridTemplateColumns = `repeat(${seeds.length}, minmax(0, 5.5rem))`;
    stops.replaceChildren(...seeds.map((seed, i) => {
      const one = new Picture(maker);
      const field = numberField("Seed", seed, MOST_SEED, (now) => { seeds[i] = now; renew(); });
      return Object.assign(element("div", { className: "latent-stop" }, one.element, field.element), { picture: one, field });
    }));
    return renew();
  }

  const more = button("Add a seed", () => { seeds.push(seeds.at(-1) + 1); showStops(); });
  const fewer = button("Remove the last", () => { seeds.pop(); showStops(); });
  const shuffle = button("Shuffle", () => { seeds = seeds.map(anySeed); renew(); });
  const ways = choice("Way", [["slerp", "slerp"], ["lerp", "lerp"]], (name) => { way = name; renew(); });
  ways.set(way);

  const view = element("div", { className: "latent-walk" },
    element("div", { className: "latent-fields" }, ways.element, more, fewer, shuffle,
      linkButton(explorer, "Copy link", () => ({ seeds: seeds.join("."), way, step: timeline.index }))),
    stops,
    element("div", { className: "latent-stage" }, picture.element, words),
    timeline.element, strip, chart.element);

  return {
    element: view,
    first() {
      timeline.index = Math.max(Math.round(Number(linked.step)) || 0, 0); // not further than to the end: see renew
      return showStops();
    },
  };
};
