/**
 * Controls that several kinds of explorers share: radio buttons side by side, sliders that say their number, buttons.
 */
"use strict";

explorers.controls = (() => {
  const { element } = explorers;
  let groups = 0;

  /** Radio buttons side by side. `options` are [value, text] pairs. */
  function choice(legend, options, onChange) {
    const name = `explorer-choice-${groups += 1}`; // a group of its own, on a page with several explorers
    const boxes = options.map(([value, text]) => {
      const box = element("input", { type: "radio", name, value: String(value) });
      box.addEventListener("change", () => onChange(value));
      return [value, box, element("label", {}, box, element("span", {}, text))];
    });
    return {
      element: element("fieldset", { className: "explorer-choice" }, element("legend", {}, legend), ...boxes.map(([, , label]) => label)),
      set: (now) => { for (const [value, box] of boxes) box.checked = value === now; },
    };
  }

  /** A slider with its name and its value above it; over whole numbers, or with another step and way to write them. */
  function slider(name, [min, max], onChange, step = 1, written = String) {
    const shown = element("output");
    const range = element("input", { type: "range", min, max, step, "aria-label": name });
    const show = () => {
      shown.textContent = written(range.valueAsNumber);
      if (written !== String) range.setAttribute("aria-valuetext", shown.textContent);
    };
    range.addEventListener("input", () => {
      show();
      onChange(range.valueAsNumber);
    });
    return {
      element: element("label", { className: "explorer-slider" }, element("span", {}, name, shown), range),
      range,
      set: (value) => { range.value = value; show(); },
    };
  }

  function button(text, onClick) {
    const made = element("button", { type: "button", className: "explorer-button explorer-text-button" }, text);
    made.addEventListener("click", onClick);
    return made;
  }

  /** A button that copies what stands in an element, or selects it where nothing may be copied. */
  function makeCopyButton(source, explorer, name = "Copy") {
    const made = button(name, async () => {
      let done = "Copied";
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        getSelection().selectAllChildren(source);
        done = document.execCommand("copy") ? "Copied" : "Selected";
      }
      made.textContent = done;
      explorer.announce(`${done}: ${source.textContent}`);
      setTimeout(() => { made.textContent = name; }, 2000);
    });
    return made;
  }

  return { choice, slider, button, makeCopyButton };
})();
