/**
 * The latent explorer: a trained generator in the page, seen in one of four views.
 *
 * latent-file.js reads the generator, latent-engine.js runs it, latent-random.js makes its z; a view is in the file of
 * its name.
 */
"use strict";

explorers.define("latent", async (explorer, data) => {
  const { makerOf, makeExplore, makeWalk, makeArithmetic, makeGrid } = explorers.latent;
  const views = { explore: makeExplore, walk: makeWalk, arithmetic: makeArithmetic, grid: makeGrid };
  const view = views[explorer.settings.view](explorer, await makerOf(data));
  explorer.stage.append(view.element);
  await view.first(); // so that no empty picture takes the place of the still one
});
