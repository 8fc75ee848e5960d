/**
 * What the views of the latent explorer share: pictures, numbers to type, ways between vectors, links.
 */
"use strict";

Object.assign(explorers.latent ??= {}, (() => {
  const { element } = explorers;

  // --- vectors -------------------------------------------------------------------------------------------------------

  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const length = (z) => Math.sqrt(dot(z, z));
  const mean = (vectors) => vectors[0].map((_, i) => vectors.reduce((sum, z) => sum + z[i], 0) / vectors.length);
  /** a - b + c, of vectors or of images. */
  const sum = (a, b, c) => a.map((value, i) => value - b[i] + c[i]);

  const lerp = (a, b, t) => a.map((value, i) => (1 - t) * value + t * b[i]);

  /** As `dcgan_lib.latent.slerp`: the direction turns evenly, the length goes evenly from one to the other. */
  function slerp(a, b, t) {
    const [from, to] = [length(a), length(b)];
    if (!from || !to) return lerp(a, b, t);
    const cosine = Math.min(Math.max(dot(a, b) / (from * to), -1), 1), angle = Math.acos(cosine);
    const between = Math.sin(angle);
    if (between < 1e-6) return lerp(a, b, t);
    const scale = (1 - t) * from + t * to;
    const [u, v] = [Math.sin((1 - t) * angle) / between / from, Math.sin(t * angle) / between / to];
    return a.map((value, i) => scale * (u * value + v * b[i]));
  }

  // --- pictures ------------------------------------------------------------------------------------------------------

  /** Draw an image (C, S, S) in [-1, 1], cut off at both ends, pixel for pixel. */
  function paint(pen, image, size, channels) {
    const pixels = new ImageData(size, size), area = size * size, { data } = pixels;
    for (let i = 0; i < area; i += 1) {
      for (let c = 0; c < 3; c += 1) data[4 * i + c] = (image[(c % channels) * area + i] + 1) * 127.5; // rounded, and clamped
      data[4 * i + 3] = 255;
    }
    pen.putImageData(pixels, 0, 0);
  }

  /** A picture of a generator: `show` an image, or `ask` for that of a z. */
  class Picture {
    constructor(maker, name = "") {
      const { size } = maker.generator;
      this.maker = maker;
      this.element = element("canvas", { className: `latent-picture ${name}`, width: size, height: size });
      this.pen = this.element.getContext("2d");
      if (!this.pen) throw new explorers.Unable("This browser cannot draw, so only the still picture can be shown.");
      this.element.setAttribute("role", "img");
    }

    label(text) {
      this.element.setAttribute("aria-label", text);
    }

    show(image) {
      const { size, channels } = this.maker.generator;
      this.image = image;
      paint(this.pen, image, size, channels);
    }

    /** Ask for the image of z; `shown` is called when it is there, unless a later one has taken its place. */
    ask(z, urgent = false, shown = () => {}) {
      this.element.setAttribute("aria-busy", "true");
      this.maker.request(this, z, (image) => {
        this.show(image);
        if (!this.maker.waiting.has(this)) this.element.removeAttribute("aria-busy");
        shown(image);
      }, urgent);
    }
  }

  // --- controls ------------------------------------------------------------------------------------------------------

  /** A whole number to type, with its name. */
  function numberField(name, value, most, onChange) {
    const box = element("input", { type: "number", min: 0, max: most, step: 1, value, inputMode: "numeric" });
    box.addEventListener("input", () => {
      if (box.checkValidity() && box.value !== "") onChange(box.valueAsNumber);
    });
    box.addEventListener("change", () => {
      if (box.checkValidity() && box.value !== "") return;
      box.value = Math.min(Math.max(Math.round(box.valueAsNumber) || 0, 0), most);
      onChange(box.valueAsNumber);
    });
    return { element: element("label", { className: "latent-number" }, element("span", {}, name), box), box, set: (now) => { box.value = now; } };
  }

  /** Options in groups: [name of the group, [[value, text], ...]]. */
  function groupedSelect(name, groups, value, onChange) {
    const box = element("select", {}, ...groups.map(([label, options]) => element("optgroup", { label },
      ...options.map(([key, text]) => element("option", { value: key }, text)))));
    box.value = value;
    box.addEventListener("change", () => onChange(box.value));
    return element("label", { className: "explorer-select latent-select" }, element("span", {}, name), box);
  }

  const MOST_SEED = 2 ** 32 - 1, MOST_ROW = 9999;
  /** A seed that nobody chose. */
  const anySeed = () => Math.floor(Math.random() * 10000);

  /** Call back at once where nothing is in the way, and then again at most once for each picture of the screen. */
  function oncePerFrame(callback) {
    let asked = 0;
    return () => {
      cancelAnimationFrame(asked);
      asked = requestAnimationFrame(callback);
    };
  }

  // --- links ---------------------------------------------------------------------------------------------------------

  const idOf = (explorer) => explorer.box.closest("figure")?.id ?? "";

  /** The address of this page, of this figure, in this state. */
  function linkTo(explorer, state) {
    const address = new URL(location.href), id = idOf(explorer);
    address.search = new URLSearchParams({ figure: id, ...state });
    address.hash = id;
    return address.href;
  }

  /** What the page's address says about this figure, as strings. */
  function linkedState(explorer) {
    const found = Object.fromEntries(new URLSearchParams(location.search));
    return found.figure && found.figure === idOf(explorer) ? found : {};
  }

  /** A button that copies a link; `state` is asked for when it is pressed. */
  function linkButton(explorer, text, state) {
    const place = element("span", { className: "latent-link" });
    const copy = explorers.controls.makeCopyButton(place, explorer, text);
    copy.addEventListener("click", () => { place.textContent = linkTo(explorer, state()); }, { capture: true });
    return element("span", { className: "latent-copy" }, copy, place);
  }

  return {
    length, mean, sum, lerp, slerp, Picture, numberField, groupedSelect, anySeed, MOST_SEED, MOST_ROW, oncePerFrame,
    linkedState, linkButton,
  };
})());
