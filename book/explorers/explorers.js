/**
 * What every in-page explorer of this book shares.
 *
 * The directive `{explorer}` (book/_ext/explorers.py) leaves `<div class="explorer" data-kind="...">` with a still
 * picture in a page. When the reader comes near it, this script loads its data, hands it to the kind's own script, and
 * shows what that builds instead of the picture. A kind registers itself:
 *
 *     explorers.define("scrubber", (explorer, data) => { explorer.stage.append(...); });
 *
 * These are classic scripts: modules and fetch do not work in a page that was opened from the disk.
 */
"use strict";

window.explorers = (() => {
  /** @typedef {(explorer: Explorer, data: any) => (void | Promise<void>)} Build */

  /** Where this script and the data lie. */
  const home = new URL(".", document.currentScript.src);
  /** @type {Map<string, Build>} */
  const kinds = new Map();
  /** @type {Map<string, any>} What data scripts have brought. */
  const received = new Map();
  /** @type {Map<string, Promise<any>>} */
  const loads = new Map();
  /** @type {Set<Explorer>} */
  const living = new Set();

  /** What is said, beneath the still picture, when an explorer cannot be shown; other errors are our mistakes. */
  class Unable extends Error {}

  // --- data ----------------------------------------------------------------------------------------------------------

  /** Load a data file once, as a script: `explorers.receive(name, value)` is all that it does. */
  function load(name, version) {
    if (!loads.has(name)) {
      loads.set(name, new Promise((resolve, reject) => {
        const script = element("script", { src: new URL(`${name}.data.js?v=${version}`, home).href });
        script.onload = () => resolve(received.get(name));
        script.onerror = () => reject(new Unable("The data of this figure could not be loaded."));
        document.head.append(script);
      }));
    }
    return loads.get(name);
  }

  /** Bytes from base64. @returns {Uint8Array} */
  function bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  /** Bytes from base64 of a zlib stream. @returns {Promise<Uint8Array>} */
  async function inflate(base64) {
    if (!window.DecompressionStream) {
      throw new Unable("This browser is too old for the interactive version of this figure.");
    }
    const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // --- elements ------------------------------------------------------------------------------------------------------

  /** Make an element; a property that is no property of it becomes an attribute. */
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /** Draw a 24 x 24 icon from an SVG path. */
  function icon(path) {
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("viewBox", "0 0 24 24");
    picture.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    shape.setAttribute("d", path);
    picture.append(shape);
    return picture;
  }

  /** A check box with its label; `swatch`, a class, puts a sample of what it switches before the text. */
  function toggle(text, checked, onChange, swatch) {
    const box = element("input", { type: "checkbox", checked });
    box.addEventListener("change", () => onChange(box.checked));
    const sample = swatch ? [element("span", { className: `explorer-swatch ${swatch}` })] : [];
    return element("label", { className: "explorer-toggle" }, box, ...sample, text);
  }

  /** A labelled select. `options` are [value, text] pairs. */
  function select(text, options, value, onChange) {
    const box = element("select", {}, ...options.map(([key, shown]) => element("option", { value: key }, shown)));
    box.value = value;
    box.addEventListener("change", () => onChange(box.value));
    return element("label", { className: "explorer-select" }, element("span", {}, text), box);
  }

  /** Give a canvas a bitmap of the screen's resolution, and a pen that counts in CSS pixels. */
  function sharpen(canvas, pen, width, height) {
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    pen.scale(ratio, ratio);
  }

  /** Call back with the place of a pressed mouse, pen or finger, as shares of width and height, while it moves. */
  function onDrag(target, callback) {
    const report = (event) => {
      const box = target.getBoundingClientRect();
      callback((event.clientX - box.left) / box.width, box.width, (event.clientY - box.top) / box.height);
    };
    target.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      target.setPointerCapture(event.pointerId);
      report(event);
    });
    target.addEventListener("pointermove", (event) => {
      if (target.hasPointerCapture(event.pointerId)) report(event);
    });
  }

  // --- one explorer --------------------------------------------------------------------------------------------------

  /** One explorer on a page: what a kind's script is handed. */
  class Explorer {
    /** @param {HTMLElement} box */
    constructor(box) {
      this.box = box;
      this.settings = JSON.parse(box.dataset.settings || "{}");
      /** Where the kind builds. */
      this.stage = element("div", { className: "explorer-stage", role: "group", "aria-label": box.dataset.label });
      this.voice = element("p", { className: "explorer-voice", "aria-live": "polite" });
      /** @type {(() => void)[]} */
      this.redraws = [];
      /** @type {Map<string, string>} */
      this.known = new Map();
      this.visible = false;
      this.saying = 0;
    }

    /** A colour by its name in the style sheet, `--explorer-NAME`, in the theme of now. */
    colour(name) {
      if (!this.known.has(name)) {
        this.known.set(name, getComputedStyle(this.stage).getPropertyValue(`--explorer-${name}`).trim());
      }
      return this.known.get(name);
    }

    /** The same as [red, green, blue], each 0 to 255. */
    rgb(name) {
      const pen = document.createElement("canvas").getContext("2d");
      pen.fillStyle = this.colour(name);
      return [1, 3, 5].map((start) => parseInt(pen.fillStyle.slice(start, start + 2), 16));
    }

    /** Call back whenever the theme changes, and once when the explorer is shown. */
    onRedraw(callback) {
      this.redraws.push(callback);
    }

    redraw() {
      this.known.clear();
      for (const callback of this.redraws) callback();
    }

    /** Tell a screen reader, half a second after the last change, so that dragging is not a flood. */
    announce(text) {
      clearTimeout(this.saying);
      this.saying = setTimeout(() => { this.voice.textContent = text; }, 500);
    }

    /**
     * A canvas whose bitmap is as sharp as the screen and follows the size that the style sheet gives it.
     *
     * @param {string} name Its class.
     * @param {(pen: CanvasRenderingContext2D, width: number, height: number) => void} draw In CSS pixels.
     * @param {(width: number, height: number) => void} [prepare] Called before, when size or theme have changed.
     * @returns {{element: HTMLCanvasElement, draw: () => void}}
     */
    canvas(name, draw, prepare = () => {}) {
      const canvas = element("canvas", { className: `explorer-canvas ${name}` });
      const pen = canvas.getContext("2d");
      let width = 0, height = 0;
      const redraw = () => { if (width) draw(pen, width, height); };
      const fit = () => {
        [width, height] = [canvas.clientWidth, canvas.clientHeight];
        if (!width) return;
        prepare(width, height);
        sharpen(canvas, pen, width, height);
        redraw();
      };
      new ResizeObserver(fit).observe(canvas);
      this.onRedraw(fit);
      return { element: canvas, draw: redraw };
    }

    /** A picture drawn once, to be copied often: `pen.drawImage(picture, x, y, width, height)`. */
    picture(width, height, draw) {
      const canvas = element("canvas");
      const pen = canvas.getContext("2d");
      sharpen(canvas, pen, width, height);
      draw(pen);
      return canvas;
    }

    /**
     * A timeline: buttons, speed, a slider that says where one is, and room for what shares its axis.
     *
     * @param {{count: number, label: string, rate: number, describe: (index: number) => string,
     *   onChange: (index: number) => void}} options `rate`: frames a second at speed 1.
     */
    timeline(options) {
      return new Timeline(this, options);
    }
  }

  const ICONS = {
    back: "M7 5h2v14H7zM19 5v14l-9-7z",
    play: "M8 5v14l11-7z",
    pause: "M7 5h4v14H7zM13 5h4v14h-4z",
    forward: "M15 5h2v14h-2zM5 5v14l9-7z",
  };
  const reduced = window.matchMedia("(prefers-reduced-motion: reduce)");

  /** See `Explorer.timeline`. Never plays by itself. */
  class Timeline {
    constructor(explorer, { count, label, rate, describe, onChange }) {
      Object.assign(this, { explorer, count, rate, describe, onChange });
      this.index = 0;
      this.speed = 1;
      this.timer = 0;
      this.range = element("input", { type: "range", min: 0, max: count - 1, step: 1, value: 0, "aria-label": label });
      this.now = element("span", { className: "explorer-now" });
      this.playButton = this.button("play", "Play", () => (this.playing ? this.pause() : this.play()));
      this.range.addEventListener("input", () => this.go(this.range.valueAsNumber));
      this.range.addEventListener("keydown", (event) => {
        if (event.key !== " ") return;
        event.preventDefault();
        this.playButton.click();
      });
      const speeds = [[0.5, "½×"], [1, "1×"], [2, "2×"], [4, "4×"]];
      this.element = element("div", { className: "explorer-timeline" },
        element("div", { className: "explorer-row" },
          this.button("back", "One frame back", () => this.go(this.index - 1)),
          this.playButton,
          this.button("forward", "One frame on", () => this.go(this.index + 1)),
          this.now,
          select("Speed", speeds, "1", (value) => { this.speed = Number(value); })),
        this.range);
      this.show();
    }

    get playing() {
      return this.timer !== 0;
    }

    button(name, label, onClick) {
      const made = element("button", { type: "button", className: "explorer-button", title: label }, icon(ICONS[name]));
      made.setAttribute("aria-label", label);
      made.addEventListener("click", onClick);
      return made;
    }

    /** Go to a frame, as the reader asked: that stops playing. */
    go(index) {
      this.pause();
      this.move(index);
    }

    move(index) {
      const next = Math.min(Math.max(Math.round(index), 0), this.count - 1);
      if (next === this.index) return;
      this.index = next;
      this.show();
      this.onChange(next);
    }

    show() {
      const text = this.describe(this.index);
      this.range.value = this.index;
      this.range.setAttribute("aria-valuetext", text);
      this.range.style.setProperty("--explorer-share", this.index / Math.max(this.count - 1, 1));
      this.now.replaceChildren(...text.split(/(?=of )/).map((part) => element("span", {}, part)));
    }

    /** Play from here, or from the start if this is the end. With reduced motion: some twenty stills, one a second. */
    play() {
      if (this.index === this.count - 1) this.move(0);
      let last = performance.now(), due = 0; // frames that should have been shown since the last one that was
      const tick = (now) => {
        const stride = reduced.matches ? Math.ceil(this.count / 20) : 1;
        const rate = reduced.matches ? stride : this.rate;
        // The first tick may bear the time at which its frame began, before the button was pressed.
        due += Math.min(Math.max(now - last, 0), 1000) / 1000 * rate * this.speed;
        last = Math.max(now, last);
        const forward = stride * Math.floor(due / stride);
        due -= forward;
        this.move(this.index + forward);
        if (this.index === this.count - 1 || !this.explorer.visible) this.pause();
        else this.timer = requestAnimationFrame(tick);
      };
      this.timer = requestAnimationFrame(tick);
      this.label("pause", "Pause");
    }

    pause() {
      if (!this.playing) return;
      cancelAnimationFrame(this.timer);
      this.timer = 0;
      this.label("play", "Play");
    }

    label(name, text) {
      this.playButton.replaceChildren(icon(ICONS[name]));
      this.playButton.setAttribute("aria-label", text);
      this.playButton.title = text;
    }
  }

  // --- life ----------------------------------------------------------------------------------------------------------

  async function start(box) {
    const explorer = new Explorer(box);
    try {
      const { kind, data, version } = box.dataset;
      await kinds.get(kind)(explorer, data ? await load(data, version) : null);
      box.append(explorer.stage, explorer.voice);
      box.classList.add("explorer-live");
      living.add(explorer);
      explorer.redraw();
      new IntersectionObserver((entries) => {
        explorer.visible = entries.at(-1).isIntersecting;
        box.classList.toggle("explorer-in-sight", explorer.visible);
      }).observe(box);
    } catch (error) {
      const text = error instanceof Unable ? error.message : "The interactive version of this figure does not work here.";
      box.append(element("p", { className: "explorer-note" }, text));
      if (!(error instanceof Unable)) console.error(error);
    }
  }

  /** Start each explorer of the page when it is less than a screen away. */
  function watch() {
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        start(entry.target);
      }
    }, { rootMargin: "100% 0px" });
    for (const box of document.querySelectorAll(".explorer")) near.observe(box);
    new MutationObserver(() => { for (const explorer of living) explorer.redraw(); })
      .observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  }

  // The kinds' scripts come after this one, and all before this event.
  document.addEventListener("DOMContentLoaded", watch);

  return {
    /** Register a kind. @param {string} kind @param {Build} build */
    define: (kind, build) => { kinds.set(kind, build); },
    /** Called by data scripts. */
    receive: (name, value) => { received.set(name, value); },
    Unable, bytes, inflate, element, toggle, select, onDrag,
  };
})();
