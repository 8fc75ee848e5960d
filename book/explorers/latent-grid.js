/**
 * The view `grid`: a wall of samples; the chosen one can be explored beneath.
 */
"use strict";

(explorers.latent ??= {}).makeGrid = (explorer, maker) => {
  const { element } = explorers;
  const { button } = explorers.controls;
  const { Picture, numberField, sampleLatent, anySeed, MOST_SEED, MOST_ROW, makeExplore, linkedState, linkButton } = explorers.latent;
  const { dimension } = maker.generator;
  const COUNT = 32, COLUMNS = 8;

  const linked = linkedState(explorer);
  const whole = (text, most) => (Number.isInteger(Number(text)) ? Math.min(Math.max(Number(text), 0), most) : 0);
  let seed = whole(linked.seed, MOST_SEED), from = whole(linked.from, MOST_ROW + 1 - COUNT), focused = 0, chosen = null;

  const tiles = Array.from({ length: COUNT }, (_, i) => {
    const picture = new Picture(maker);
    picture.element.setAttribute("aria-hidden", "true"); // the button has a name
    const tile = element("button", { type: "button", className: "latent-tile" }, picture.element);
    tile.addEventListener("click", () => choose(i));
    tile.addEventListener("focus", () => { focused = i; lead(); });
    return { element: tile, picture };
  });
  const wall = element("div", { className: "latent-wall", role: "group", "aria-label": "Samples; arrow keys go from one to the next" },
    ...tiles.map((tile) => tile.element));

  /** The tab key leads to one of them. */
  function lead() {
    tiles.forEach((tile, i) => { tile.element.tabIndex = i === focused ? 0 : -1; });
  }

  wall.addEventListener("keydown", (event) => {
    const columns = Math.round(wall.clientWidth / tiles[0].element.offsetWidth) || COLUMNS;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -COUNT, End: COUNT };
    if (!(event.key in steps)) return;
    const to = focused + steps[event.key];
    const next = event.key === "Home" ? 0 : event.key === "End" ? COUNT - 1 : to;
    if (next >= 0 && next < COUNT) tiles[next].element.focus();
    event.preventDefault();
  });

  function choose(i) {
    chosen = { seed, row: from + i };
    mark();
    below.hidden = false;
    explored.begin(chosen);
  }

  function mark() {
    tiles.forEach((tile, i) => {
      tile.element.setAttribute("aria-pressed", String(chosen?.seed === seed && chosen?.row === from + i));
    });
  }

  /** Show the wall of now; what it is waiting for is its first picture. */
  function update() {
    field.set(seed);
    range.textContent = `Samples ${from} to ${from + COUNT - 1}`;
    before.disabled = from === 0;
    after.disabled = from + 2 * COUNT > MOST_ROW + 1;
    mark();
    const done = tiles.map(({ element: tile, picture }, i) => {
      tile.setAttribute("aria-label", `Sample ${from + i} of seed ${seed}`);
      return new Promise((resolve) => { picture.ask(sampleLatent(seed, from + i, dimension), false, resolve); });
    });
    explorer.announce(`${range.textContent} of seed ${seed}`);
    return done[0];
  }

  const field = numberField("Seed", seed, MOST_SEED, (now) => { [seed, from] = [now, 0]; update(); });
  const range = element("span", { className: "latent-range" });
  const before = button("Previous", () => { from = Math.max(from - COUNT, 0); update(); });
  const after = button("Next", () => { from += COUNT; update(); });
  const shuffle = button("Shuffle", () => { [seed, from] = [anySeed(), 0]; update(); });
  const explored = makeExplore(explorer, maker);
  const below = element("div", { className: "latent-below", hidden: true }, explored.element);
  lead();

  const view = element("div", { className: "latent-grid" },
    element("div", { className: "latent-fields" }, field.element, before, after, range, shuffle,
      linkButton(explorer, "Copy link", () => ({ seed, from }))),
    wall, element("p", { className: "latent-small latent-hint" }, "Choose a picture to move its z."), below);

  return { element: view, first: update };
};
