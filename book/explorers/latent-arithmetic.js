/**
 * The view `arithmetic`: A − B + C with means of three samples, as vectors and, for comparison, as pictures.
 */
"use strict";

(explorers.latent ??= {}).makeArithmetic = (explorer, maker) => {
  const { element, select } = explorers;
  const { button } = explorers.controls;
  const { Picture, groupedSelect, sampleLatent, mean, sum, neighbours, length, linkedState, linkButton } = explorers.latent;
  const { dimension, factors, labels } = maker.generator;
  const GROUP = 3, AROUND = 9, NOISE = 0.25; // as in the paper's Figure 7
  const samples = labels.length / factors.length;

  /** Samples, in order, for which the reader found all of some values and none of others: [factor, value] pairs. */
  function rowsWith(wanted, but = []) {
    const found = [], read = (row, [factor, value]) => labels[row * factors.length + factor] === value;
    for (let row = 0; row < samples; row += 1) {
      if (wanted.every((pair) => read(row, pair)) && !but.some((pair) => read(row, pair))) found.push(row);
    }
    return found;
  }

  // --- what is added and subtracted ------------------------------------------------------------------------------------

  const alone = factors.length === 1;
  const place = (value) => {
    for (let factor = alone ? 0 : 1; factor < factors.length; factor += 1) {
      const at = factors[factor][1].indexOf(value);
      if (at >= 0) return [factor, at];
    }
    return null;
  };
  const first = (value) => factors[0][1].indexOf(value);
  const valueOf = ([factor, at]) => factors[factor][1][at];

  /** With several factors: what is brought, from whom, to whom; with one: A, B and C themselves. */
  const beginning = explorer.settings.sum;
  let chosen = { one: first(beginning[1]), other: first(beginning[2]), what: place(beginning[0]) };
  if (alone) chosen = { a: first(beginning[0]), b: first(beginning[1]), c: first(beginning[2]) };
  let turn = 0; // which three of each group

  function groups() {
    if (alone) {
      return ["a", "b", "c"].map((name) => ({ title: factors[0][1][chosen[name]], rows: rowsWith([[0, chosen[name]]]) }));
    }
    const { what, one, other } = chosen, [bodyA, bodyC] = [factors[0][1][one], factors[0][1][other]];
    return [
      { title: `${bodyA}, ${valueOf(what)}`, rows: rowsWith([[0, one], what]) },
      { title: `${bodyA}, without`, rows: rowsWith([[0, one]], [what]) },
      { title: `${bodyC}, without`, rows: rowsWith([[0, other]], [what]) },
    ];
  }

  // --- pictures --------------------------------------------------------------------------------------------------------

  const column = (sign, letter) => {
    const pictures = Array.from({ length: GROUP }, () => new Picture(maker));
    const average = new Picture(maker, "latent-mean"), title = element("p", { className: "latent-title" });
    return {
      pictures, average, title,
      element: element("div", { className: "latent-column" },
        element("span", { className: "latent-sign" }, sign), title,
        element("div", { className: "latent-three" }, ...pictures.map((one) => one.element)),
        average.element, element("p", { className: "latent-small" }, `mean ${letter}`)),
    };
  };
  const columns = [column("", "A"), column("−", "B"), column("+", "C")];
  const around = Array.from({ length: AROUND }, () => new Picture(maker));
  const result = around[Math.floor(AROUND / 2)], control = new Picture(maker);
  const problem = element("p", { className: "latent-problem" });
  const words = element("p", { className: "latent-small latent-method" });

  function describe(found) {
    const parts = found.map(({ title }) => title);
    return `mean of “${parts[0]}” − mean of “${parts[1]}” + mean of “${parts[2]}”`;
  }

  /** Show the sum of now; what it is waiting for is the result. */
  function update() {
    const found = groups();
    const short = found.filter(({ rows }) => rows.length < GROUP);
    view.classList.toggle("latent-impossible", short.length > 0);
    problem.textContent = short.length
      ? `Among the first ${samples} samples of seed 0 there are fewer than ${GROUP} for: ${short.map(({ title }) => title).join("; ")}. Choose another.`
      : "";
    if (short.length) {
      explorer.announce(problem.textContent);
      return Promise.resolve();
    }
    const chosenRows = found.map(({ rows }) => Array.from({ length: GROUP }, (_, i) => rows[(turn * GROUP + i) % rows.length]));
    const vectors = chosenRows.map((rows) => rows.map((row) => sampleLatent(0, row, dimension)));
    const means = vectors.map(mean), z = sum(...means);
    const [a, b, c] = means.map((vector) => Float32Array.from(vector));
    words.textContent = `Length of z: ${length(z).toFixed(1)}. Of ${samples} samples that a reader has read, the ${turn
      ? `${turn * GROUP + 1}th to ${turn * GROUP + GROUP}th` : "first three"} of each kind.`;
    const done = new Promise((resolve) => { result.ask(Float32Array.from(z), true, resolve); });
    result.label(`A − B + C: ${describe(found)}`);
    const images = vectors.map(() => []);
    columns.forEach((one, g) => {
      one.title.textContent = found[g].title;
      one.pictures.forEach((picture, i) => {
        picture.label(`${found[g].title}: sample ${chosenRows[g][i]} of seed 0`);
        picture.ask(vectors[g][i], true, (image) => {
          images[g][i] = image;
          // The control: the same sum of the nine pictures, cut off where it leaves the range.
          if (images.every((group) => group.length === GROUP && !group.includes(undefined))) control.show(sum(...images.map(mean)));
        });
      });
      one.average.ask([a, b, c][g], true);
      one.average.label(`The picture of the mean of “${found[g].title}”`);
    });
    control.label("The same sum of pictures instead of vectors");
    neighbours(Float32Array.from(z), AROUND, NOISE).forEach((near, i) => {
      if (around[i] === result) return;
      around[i].ask(near);
      around[i].label(`A − B + C with a little noise, ${i < AROUND / 2 ? i + 1 : i} of ${AROUND - 1}`);
    });
    explorer.announce(describe(found));
    return done;
  }

  // --- controls --------------------------------------------------------------------------------------------------------

  const options = factors[0][1].map((value, i) => [i, value]);
  const choose = (name) => (value) => {
    chosen = { ...chosen, [name]: Number(value) };
    turn = 0;
    update();
  };
  const boxes = alone
    ? ["a", "b", "c"].map((name) => select(name.toUpperCase(), options, chosen[name], choose(name)))
    : [
      groupedSelect("Bring", factors.slice(1).map(([factor, values], f) => [factor, values.map((value, i) => [`${f + 1}.${i}`, value])]),
        chosen.what.join("."), (value) => {
          chosen = { ...chosen, what: value.split(".").map(Number) };
          turn = 0;
          update();
        }),
      select(`From`, options, chosen.one, choose("one")),
      select(`To`, options, chosen.other, choose("other")),
    ];
  const others = button("Other samples", () => { turn += 1; update(); });

  const linked = linkedState(explorer);
  const written = () => ({
    sum: (alone ? [chosen.a, chosen.b, chosen.c].map((i) => factors[0][1][i])
      : [valueOf(chosen.what), factors[0][1][chosen.one], factors[0][1][chosen.other]]).join("|"),
    turn,
  });
  function readLink() {
    const values = (linked.sum ?? "").split("|");
    const places = alone ? values.map(first) : [place(values[0]), first(values[1]), first(values[2])];
    if (places.length !== 3 || places.includes(-1) || places.includes(null)) return;
    chosen = alone ? { a: places[0], b: places[1], c: places[2] } : { what: places[0], one: places[1], other: places[2] };
    turn = Number.isInteger(Number(linked.turn)) ? Math.abs(Number(linked.turn)) : 0;
    const shown = alone ? places : [places[0].join("."), places[1], places[2]];
    boxes.forEach((box, i) => { box.querySelector("select").value = shown[i]; });
  }
  readLink();

  const view = element("div", { className: "latent-arithmetic" },
    element("div", { className: "latent-fields" }, ...boxes, others, linkButton(explorer, "Copy link", written)),
    problem,
    element("div", { className: "latent-sum" },
      ...columns.map((one) => one.element),
      element("div", { className: "latent-column latent-result" }, element("span", { className: "latent-sign" }, "="),
        element("p", { className: "latent-title" }, "A − B + C of vectors"),
        element("div", { className: "latent-nine" }, ...around.map((one) => one.element)),
        element("p", { className: "latent-small" }, "in the middle; around it, with a little noise")),
      element("div", { className: "latent-column latent-control" }, element("span", { className: "latent-sign" }, "or"),
        element("p", { className: "latent-title" }, "of pictures"), control.element,
        element("p", { className: "latent-small" }, "the control: no generator"))),
    words);
  result.element.classList.add("latent-middle");

  return { element: view, first: update };
};
