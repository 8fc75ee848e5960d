/**
 * The convolution explorer: a convolution or transposed convolution of small numbers, cell by cell.
 *
 * One cell is active, of the input or of the output; everything shows what it meets. The arithmetic comes from
 * convolution-arithmetic.js, the drawing from convolution-views.js and convolution-matrix.js.
 */
"use strict";

explorers.define("convolution", (explorer) => {
  const { element, toggle, select } = explorers;
  const { LIMITS, FORMULAS, explainImpossible, Example, pytorchLine, makeViews } = explorers.convolution;
  const { makeCopyButton, button, choice, slider } = explorers.controls;
  const NAMES = {
    size: "Input size", kernel: "Kernel", stride: "Stride",
    padding: "Padding", dilation: "Dilation", output_padding: "Output padding",
  };

  // --- the setting -----------------------------------------------------------------------------------------------------

  // The directive's options, over its defaults; both come from book/_ext/convolution_kind.py.
  const { direction, show, ...chosen } = explorer.settings;
  const beginning = {
    size: 4, kernel: 4, stride: 2, padding: 1, dilation: 1, output_padding: 0, axes: 2, seed: 1,
    ...chosen, transposed: direction !== "convolution",
  };
  let given = { ...beginning };

  /** What is shown; `example` stays the last possible one while the sliders stand at something impossible. */
  const model = {
    example: null, side: "input", index: 0, weight: null, pinned: false, overlap: show === "overlap", partial: false,
    products: [], lit: [], frame: null, sums: null,
    shown(name) {
      if (name === "input") return { values: this.example.input, most: 5, hot: false };
      if (this.overlap) return { values: this.example.overlaps, most: this.mostOverlaps, hot: true };
      return { values: this.sums ?? this.example.output, most: this.mostOutput, hot: false };
    },
  };

  /** Find out what the active cell meets. */
  function follow() {
    const { example, side, index } = model, { setting, axes } = example;
    const other = side === "input" ? "output" : "input";
    const width = setting.sizeOf(other), k = setting.kernel;
    model.products = example.products(side, index);
    const noteOf = ({ value, weight }) => (other === "input" ? `×${weight}` : `+${value * weight}`);
    model.lit = model.products.map((found) => ({
      row: Math.floor(found.cell / width), column: found.cell % width, place: found.place, note: noteOf(found),
    }));
    model.frame = null;
    if (side === setting.coarse) {
      // The window or stamp as a whole, also where it lies on the padding.
      const [row, column] = axes === 1 ? [null, index] : example.position(side, index);
      const down = row === null ? [[0, 0]] : setting.stamp(row), across = setting.stamp(column);
      for (const [high, up] of down) {
        for (const [wide, along] of across) {
          if (high < 0 || high >= (axes === 1 ? 1 : width) || wide < 0 || wide >= width) {
            model.lit.push({ row: high, column: wide, place: up * k + along, note: "" });
          }
        }
      }
      model.frame = [down[0][0], across[0][0], axes === 1 ? 1 : setting.span, setting.span];
    }
    model.sums = null;
    if (model.partial) {
      model.sums = side === "input" ? example.sumUpTo(index) : example.output.map((value, cell) => (cell <= index ? value : null));
    }
    if (model.partial) views.output.renew();
  }

  /** Light a cell up. */
  function activate(side, index) {
    if (side === model.side && index === model.index) return;
    if (side !== model.side) setSide(side);
    model.index = index;
    timeline.index = index;
    timeline.show();
    follow();
    views.paint();
    tell();
  }

  /** The timeline goes over the cells of the active side. */
  function setSide(side) {
    model.side = side;
    timeline.count = model.example.count(side);
    timeline.range.max = timeline.count - 1;
    timeline.range.setAttribute("aria-label", side === "input" ? "Input cell" : "Output cell");
    sideBox.querySelector("select").value = side;
  }

  /** The default cell: the second along each axis, which is no corner. */
  function inner(side) {
    const size = model.example.setting.sizeOf(side), at = Math.min(1, size - 1);
    return model.example.axes === 1 ? at : at * size + at;
  }

  /** Show a changed setting, or why it is impossible. */
  function change(values) {
    const before = model.example && { position: model.example.position(model.side, model.index), axes: model.example.axes };
    const turned = "transposed" in values && values.transposed !== given.transposed;
    given = { ...given, ...values };
    timeline?.pause();
    const problem = explainImpossible(given);
    explorer.stage.classList.toggle("convolution-impossible", Boolean(problem));
    board.inert = matrixPart.inert = steps.inert = Boolean(problem);
    showWords(problem);
    if (problem) {
      explorer.announce(`Impossible: ${problem}.`);
      return;
    }
    model.example = new Example(given, given.axes, given.seed);
    model.mostOutput = Math.max(...model.example.output, 1);
    model.mostOverlaps = Math.max(...model.example.overlaps, 1);
    model.weight = null;
    explorer.stage.classList.toggle("convolution-line", given.axes === 1);
    explorer.stage.classList.toggle("convolution-forwards", !given.transposed);
    arrange();
    const side = turned || !before ? model.example.setting.coarse : model.side;
    setSide(side);
    const size = model.example.setting.sizeOf(side);
    model.index = turned || !before || before.axes !== given.axes ? inner(side)
      : before.position.reduce((sum, part) => sum * size + Math.min(part, size - 1), 0);
    timeline.index = model.index;
    timeline.show();
    label();
    follow();
    views.refresh();
    tell();
  }

  // --- words -----------------------------------------------------------------------------------------------------------

  const formula = element("p", { className: "convolution-formula" });
  const letters = element("p", { className: "convolution-letters" });
  const problemLine = element("p", { className: "convolution-problem" });
  const code = element("code", { className: "convolution-code" });
  const sentence = element("p", { className: "convolution-sentence" });
  const titles = Object.fromEntries(["input", "kernel", "output"].map((name) => [name, element("span")]));

  /** A formula that breaks between its terms, but not inside of parentheses. */
  const whole = (text) => text.replace(/\([^()]*\)/g, (term) => term.replaceAll(" ", "\u00a0"));

  function showWords(problem) {
    problemLine.replaceChildren(...(problem ? [element("b", {}, "Impossible: "), problem, "."] : []));
    code.textContent = pytorchLine(given, given.axes);
    const [words, letter] = FORMULAS[given.transposed];
    formula.replaceChildren(element("span", {}, "Output size = "), whole(words));
    letters.replaceChildren(element("span", {}, "In the letters of Dumoulin and Visin: "), whole(letter));
  }

  /** The names that change with the setting. */
  function label() {
    const { setting, axes } = model.example;
    const size = (n) => (axes === 1 ? `${n}` : `${n} × ${n}`);
    numbers.replaceChildren(whole(setting.sizeFormula));
    titles.input.textContent = size(setting.size) + (!setting.transposed && setting.padding ? ", padded" : "");
    titles.kernel.textContent = size(setting.kernel);
    titles.output.textContent = size(setting.outputSize) + (setting.transposed && setting.padding ? ", rim cut off" : "");
    for (const [name, n] of [["input", setting.size], ["kernel", setting.kernel], ["output", setting.outputSize]]) {
      const cells = axes === 1 ? `${n} cells` : `${n} by ${n} cells`;
      views[name].element.setAttribute("aria-label", `${name[0].toUpperCase()}${name.slice(1)}, ${cells}. Arrow keys move from cell to cell.`);
    }
  }

  /** The arithmetic of the active cell, as text and for screen readers. */
  function tell() {
    const { example, side, index, weight, overlap } = model;
    const { before, terms, between, after } = example.sentence(side, index);
    sentence.replaceChildren(before, ...terms.flatMap(([place, text], i) => [
      ...(i ? [between] : []), element("span", { className: place === weight ? "convolution-term" : "" }, text)]), after);
    const all = [before, terms.map(([, text]) => text).join(between), after].join("");
    const said = terms.length > 9 ? `${before.replace(/( = | adds).*$/, "")}, ${terms.length} products${after}` : all;
    const count = side === "output" && overlap ? `. ${example.overlaps[index]} products` : "";
    explorer.announce(said + count + (model.pinned ? ". Pinned" : ""));
    const shape = `${example.output.length} rows, the outputs, and ${example.input.length} columns, the inputs`;
    const which = `${side === "output" ? "row" : "column"} ${index}`;
    views.matrix.element.setAttribute("aria-label", `Matrix of ${shape}; ${which} is lit`);
  }

  // --- controls --------------------------------------------------------------------------------------------------------

  const controls = {
    transposed: choice("Direction", [[false, "Convolution"], [true, "Transposed"]], (transposed) => change({ transposed })),
    axes: choice("Axes", [[1, "1-D"], [2, "2-D"]], (axes) => change({ axes })),
    ...Object.fromEntries(Object.entries(NAMES).map(([key, name]) => [key, slider(name, LIMITS[key], (value) => change({ [key]: value }))])),
  };
  const seeds = [[0, "all 1"], ...Array.from({ length: 9 }, (_, i) => [i + 1, `set ${i + 1}`])];
  const seedBox = select("Numbers", seeds, String(given.seed), (value) => change({ seed: Number(value) }));
  const sideBox = select("Step through", [["input", "inputs"], ["output", "outputs"]], "input", (side) => {
    timeline.pause();
    activate(side, side === model.side ? model.index : inner(side));
  });
  const overlapBox = toggle("Overlap map", model.overlap, (on) => {
    model.overlap = on;
    views.output.renew();
    views.paint();
    tell();
  }, "convolution-heat");
  const partialBox = toggle("Only what is done so far", false, (on) => {
    model.partial = on;
    follow();
    views.output.renew();
    views.paint();
  });
  function setControls() {
    for (const [key, control] of Object.entries(controls)) control.set(given[key]);
    seedBox.querySelector("select").value = given.seed;
    overlapBox.querySelector("input").checked = model.overlap;
    partialBox.querySelector("input").checked = model.partial;
  }

  function reset() {
    Object.assign(model, { example: null, pinned: false, partial: false, overlap: show === "overlap" });
    given = { ...beginning };
    setControls();
    change({});
  }

  const copyButton = makeCopyButton(code, explorer);

  // --- pointing at cells -------------------------------------------------------------------------------------------------

  const offset = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  /** Whether the pointer alone may move the lit cell; pressed, it always may. */
  const follows = (event) => event.buttons > 0 || !(model.pinned || timeline.playing);

  function pin(on) {
    model.pinned = on;
    views.paint();
    tell();
  }

  function watchGrid(name) {
    const { element: canvas } = views[name];
    let wasPinned = false;
    canvas.addEventListener("pointermove", (event) => {
      const cell = views[name].find(...offset(event));
      if (cell >= 0 && follows(event)) activate(name, cell);
    });
    canvas.addEventListener("pointerdown", (event) => {
      wasPinned = model.pinned && model.side === name && views[name].find(...offset(event)) === model.index;
    });
    canvas.addEventListener("click", (event) => {
      const cell = views[name].find(...offset(event));
      if (cell < 0) return;
      timeline.pause();
      activate(name, cell);
      pin(!wasPinned);
    });
    canvas.addEventListener("keydown", (event) => {
      const size = model.example.setting.sizeOf(name), here = model.side === name ? model.index : inner(name);
      if (event.key === "Enter" || event.key === " ") pin(!model.pinned);
      else if (event.key === "Escape" && model.pinned) pin(false);
      else {
        const next = moved(event.key, here, size);
        if (next === null) return;
        timeline.pause();
        activate(name, model.side === name ? next : here);
      }
      event.preventDefault();
    });
  }

  /** The cell that a key leads to from another, or null if the key is none of ours. */
  function moved(key, cell, size) {
    const rows = model.example.axes === 1 ? 1 : size;
    let [row, column] = [Math.floor(cell / size), cell % size];
    if (key === "ArrowLeft") column -= 1;
    else if (key === "ArrowRight") column += 1;
    else if (key === "ArrowUp" && rows > 1) row -= 1;
    else if (key === "ArrowDown" && rows > 1) row += 1;
    else if (key === "Home") column = 0;
    else if (key === "End") column = size - 1;
    else if (key === "PageUp" && rows > 1) row = 0;
    else if (key === "PageDown" && rows > 1) row = rows - 1;
    else return null;
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    return within(row, rows) * size + within(column, size);
  }

  function choosePlace(place) {
    if (place === model.weight) return;
    model.weight = place;
    views.paint();
    tell();
  }

  function watchKernel() {
    const { element: canvas } = views.kernel;
    const point = (event) => {
      const place = views.kernel.find(...offset(event));
      choosePlace(place < 0 ? null : place);
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("click", point);
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") choosePlace(null); });
    canvas.addEventListener("blur", () => choosePlace(null));
    canvas.addEventListener("keydown", (event) => {
      const next = event.key === "Escape" ? null : moved(event.key, model.weight ?? 0, model.example.setting.kernel);
      if (next === null && event.key !== "Escape") return;
      choosePlace(model.weight === null && next !== null ? 0 : next);
      event.preventDefault();
    });
  }

  function watchMatrix() {
    const point = (event) => {
      const found = views.matrix.find(...offset(event));
      if (found && (event.type === "click" || follows(event))) activate(model.side, found[model.side === "output" ? 0 : 1]);
    };
    views.matrix.element.addEventListener("pointermove", point);
    views.matrix.element.addEventListener("click", point);
  }

  // --- all together ------------------------------------------------------------------------------------------------------

  const views = makeViews(explorer, model);
  const numbers = element("p", { className: "convolution-numbers" });
  for (const name of ["input", "kernel", "output"]) {
    Object.assign(views[name].element, { tabIndex: 0 }).setAttribute("role", "application");
  }
  views.matrix.element.setAttribute("role", "img");
  const part = (name, title, ...children) => element("div", { className: `convolution-part part-${name}` },
    element("p", { className: "convolution-title" }, element("b", {}, title), ...children.slice(0, 1)), ...children.slice(1));
  const kernelPart = part("kernel", "Kernel", titles.kernel, views.kernel.element);
  const inputPart = part("input", "Input", titles.input, views.input.element);
  const board = element("div", { className: "convolution-board" }, kernelPart, inputPart,
    views.links, part("output", "Output", titles.output, views.output.element));
  const matrixPart = part("matrix", "Matrix", element("span", {}, "output = matrix · input; the active row or column is lit"), views.matrix.element);

  /** The input comes before the kernel where it needs a line of its own, also for the tab key and screen readers. */
  const narrow = window.matchMedia("(max-width: 576px)"); // as in convolution.css
  function arrange() {
    const { setting, axes } = model.example;
    const first = narrow.matches && !setting.transposed && axes === 2 ? inputPart : kernelPart;
    if (board.firstElementChild === first) return;
    const focused = document.activeElement;
    board.prepend(first);
    if (first.contains(focused)) focused.focus({ preventScroll: true });
  }
  narrow.addEventListener("change", arrange);

  // The timeline describes a cell when it is made, so an example comes first.
  model.example = new Example(given, given.axes, given.seed);
  const timeline = explorer.timeline({
    count: 2,
    label: "Cell",
    rate: 2,
    describe: (index) => {
      const { example, side } = model;
      return `${side === "input" ? "Input" : "Output"} ${example.nameOf(side, index)}, ${index + 1} of ${example.count(side)}`;
    },
    onChange: (index) => {
      model.index = index;
      follow();
      views.paint();
      tell();
    },
  });
  const steps = element("div", {}, timeline.element);

  explorer.stage.append(
    element("div", { className: "convolution-head" }, controls.transposed.element, controls.axes.element, seedBox, button("Reset", reset)),
    element("div", { className: "convolution-sliders" }, ...Object.keys(NAMES).map((key) => controls[key].element)),
    element("div", { className: "convolution-words" },
      formula, numbers, problemLine, letters, element("div", { className: "convolution-copy" }, code, copyButton)),
    board, steps,
    element("div", { className: "convolution-options" }, sideBox, overlapBox, partialBox,
      element("span", { className: "convolution-hint" }, "Point at a cell or use the arrow keys; a click pins it.")),
    sentence, matrixPart);
  for (const name of ["input", "output"]) watchGrid(name);
  watchKernel();
  watchMatrix();
  reset();
});
