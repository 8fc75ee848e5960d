/**
 * Controls of the convolution explorer: radio buttons side by side, sliders that say their number, buttons.
 */
"use strict";

Object.assign(explorers.convolution, (() => {
  const { element } = explorers;
  let groups = 0;

  /** Radio buttons side by side. `options` are [value, text] pairs. */
  function choice(legend, options, onChange) {
    const name = `convolution-${groups += 1}`; // a group of its own, on a page with several explorers
    const boxes = options.map(([value, text]) => {
      const box = element("input", { type: "radio", name, value: String(value) });
      box.addEventListener("change", () => onChange(value));
      return [value, box, element("label", {}, box, element("span", {}, text))];
    });
    return {
      element: element("fieldset", { className: "convolution-choice" }, element("legend", {}, legend), ...boxes.map(([, , label]) => label)),
      set: (now) => { for (const [value, box] of boxes) box.checked = value === now; },
    };
  }

  /** A slider over whole numbers, with its name and its value above it. */
  function slider(name, [min, max], onChange) {
    const shown = element("output");
    const range = element("input", { type: "range", min, max, step: 1, "aria-label": name });
    range.addEventListener("input", () => {
      shown.textContent = range.value;
      onChange(range.valueAsNumber);
    });
    return {
      element: element("label", { className: "convolution-slider" }, element("span", {}, name, shown), range),
      set: (value) => { range.value = shown.textContent = value; },
    };
  }

  function button(text, onClick) {
    const made = element("button", { type: "button", className: "explorer-button convolution-button" }, text);
    made.addEventListener("click", onClick);
    return made;
  }

  /** A button that copies what stands in an element, or selects it where nothing may be copied. */
  function makeCopyButton(source, explorer) {
    const made = button("Copy", async () => {
      let done = "Copied";
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        getSelection().selectAllChildren(source);
        done = document.execCommand("copy") ? "Copied" : "Selected";
      }
      made.textContent = done;
      explorer.announce(`${done}: ${source.textContent}`);
      setTimeout(() => { made.textContent = "Copy"; }, 2000);
    });
    return made;
  }

  return { choice, slider, button, makeCopyButton };
})());
