// The page: panels of the heads, which the reader chooses, at the length that the reader gives.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const {shades, patterns} = PICTURE;
  const state = {pattern: 0, head: "all", view: PICTURE.view};
  const LONGEST = 2 ** 26, EDGE = 20, SCROLLBAR = 16;

  const html = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };
  const svg = (tag, attributes, text = "") => {
    const made = document.createElementNS(SVG, tag);
    made.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };
  const level = share => {
    if (share <= 0) return 0;
    if (share >= 1 - 1e-9) return shades.limits.length + 2;
    const place = shades.limits.findIndex(limit => share <= limit);
    return (place < 0 ? shades.limits.length : place) + 1;
  };
  const position = (n, span) => {
    if (span < 4096) return `${n}`;
    if (n && n % 2 ** 20 === 0) return `${n / 2 ** 20}M`;
    return n && n % 1024 === 0 ? `${n / 1024}k` : `${n}`;
  };
  const percent = share => `${Number((100 * share).toPrecision(3))}%`;
  const about = found => (found.exact ? "" : "about ");
  const shareOf = (found, view) => found.total / Math.max(found.causal ? causalPairs(view) : allPairs(view), 1);

  function ticks(first, stop) {
    let step = 1;
    while (stop - first > 4 * step) step *= 2;
    const found = [first];
    for (let x = (div(first, step) + 1) * step; x < stop; x += step) if (stop - x >= step / 2) found.push(x);
    return stop - first > 1 ? [...found, stop] : found;
  }

  // Positions, as written, and where they lie in so many units; those that would meet another are left out.
  const LETTER = 7;
  function tickPlaces([first, stop], size, across) {
    const found = ticks(first, stop).map(at => {
      const text = position(at, stop - first), place = (at - first) * size / (stop - first);
      const half = across ? (LETTER * text.length + 6) / 2 : 6.5;
      return {text, place, start: place - half, end: place + half};
    });
    const last = found[found.length - 1];
    let free = -Infinity;
    return found.filter((each, n) => {
      const kept = each.start >= free && (n === 0 || each === last || each.end <= last.start);
      if (kept) free = each.end;
      return kept;
    });
  }
  const namePlace = view => {
    const written = ticks(...view.rows).map(at => LETTER * position(at, view.rows[1] - view.rows[0]).length);
    return Math.max(38, 10 + Math.max(...written));
  };

  // A closed rectangle for each run of cells of one level in a row of them.
  function paths(found) {
    const parts = {};
    const {rows, columns} = found;
    found.live.forEach((row, n) => {
      for (let start = 0; start < row.length;) {
        const shade = level(row[start]);
        let stop = start + 1;
        while (stop < row.length && level(row[stop]) === shade) stop++;
        const x = columns[start] - columns[0], y = rows[n] - rows[0];
        const width = columns[stop] - columns[start], height = rows[n + 1] - rows[n];
        if (shade) (parts[shade] = parts[shade] || []).push(`M${x} ${y}h${width}v${height}h${-width}z`);
        start = stop;
      }
    });
    return Object.entries(parts).map(([shade, runs]) => [Number(shade), runs.join("")]);
  }

  function panel(head, found, side) {
    const view = state.view, down = view.rows[1] - view.rows[0], right = view.columns[1] - view.columns[0];
    const height = Math.max(Math.min(Math.round(side * down / right), 2 * side), 14);
    const named = namePlace(view), left = named + 8;
    const figure = html("figure"), caption = html("figcaption", head.name, {style: `padding-left: ${left}px`});
    caption.append(html("span", `${about(found)}${percent(shareOf(found, view))} live`));
    const image = svg("svg", {class: "panel", width: side + left + EDGE, height: height + 34, role: "img"});
    const plot = svg("g", {transform: `translate(${left} 4)`});
    plot.append(svg("rect", {class: "none", width: side, height}));
    const cells = svg("g", {transform: `scale(${side / right} ${height / down})`, "shape-rendering": "crispEdges"});
    for (const [shade, path] of paths(found)) {
      cells.append(svg("path", {class: "ink", "fill-opacity": shades.opacity[shade - 1], d: path}));
    }
    const mark = svg("rect", {class: "mark", visibility: "hidden"}), over = svg("rect", {class: "plot", width: side, height});
    plot.append(cells, svg("rect", {class: "frame", width: side, height}), mark);
    for (const {text, place: x} of tickPlaces(view.columns, side, true)) {
      plot.append(svg("text", {x, y: height + 15, "text-anchor": "middle"}, text));
      plot.append(svg("path", {class: "frame", d: `M${x} ${height}v4`}));
    }
    for (const {text, place: y} of tickPlaces(view.rows, height, false)) {
      plot.append(svg("text", {x: -7, y: y + 4, "text-anchor": "end"}, text));
      plot.append(svg("path", {class: "frame", d: `M0 ${y}h-4`}));
    }
    plot.append(svg("text", {x: side / 2, y: height + 28, "text-anchor": "middle"}, "key j →"));
    if (height > 80) {
      const turned = `rotate(-90 ${-named} ${height / 2})`;
      plot.append(svg("text", {x: -named, y: height / 2, "text-anchor": "middle", transform: turned}, "← query i"));
    }
    plot.append(over);
    const place = event => {
      const box = over.getBoundingClientRect();
      const within = (x, size) => Math.max(0, Math.min(size - 1, Math.floor(x * size)));
      return {
        query: view.rows[0] + within((event.clientY - box.top) / box.height, down),
        key: view.columns[0] + within((event.clientX - box.left) / box.width, right),
      };
    };
    over.addEventListener("pointermove", event => {
      const {query, key} = place(event);
      hover.textContent = describe(head, found, query, key);
      const row = cellOf(found.rows, query), column = cellOf(found.columns, key);
      mark.setAttribute("visibility", "visible");
      mark.setAttribute("x", (found.columns[column] - view.columns[0]) * side / right);
      mark.setAttribute("y", (found.rows[row] - view.rows[0]) * height / down);
      mark.setAttribute("width", (found.columns[column + 1] - found.columns[column]) * side / right);
      mark.setAttribute("height", (found.rows[row + 1] - found.rows[row]) * height / down);
    });
    over.addEventListener("pointerleave", () => {
      mark.setAttribute("visibility", "hidden");
      hover.textContent = HELP;
    });
    over.addEventListener("click", event => {
      const {query, key} = place(event);
      const near = (at, [first, stop]) => {
        const size = Math.max(Math.min(stop - first, 8), Math.ceil((stop - first) / 4));
        const start = Math.max(first, Math.min(at - div(size, 2), stop - size));
        return [start, start + size];
      };
      state.view = {...view, rows: near(query, view.rows), columns: near(key, view.columns)};
      draw();
    });
    image.append(plot);
    figure.append(caption, image);
    return figure;
  }

  const cellOf = (edges, at) => {
    let cell = 0;
    while (cell + 2 < edges.length && edges[cell + 1] <= at) cell++;
    return cell;
  };

  // The live share of a rectangle of pairs, counted row by row.
  function shareWithin(bands, view, rows, columns) {
    const sum = [0];
    for (let at = rows[0]; at < rows[1]; at++) keysSeen(bands, rowOf(view, at), columns, sum, 1);
    return sum[0] / ((rows[1] - rows[0]) * (columns[1] - columns[0]));
  }

  const HELP = "Point at a pair to see who sees whom; click to come closer.";
  function describe(head, found, query, key) {
    const view = state.view, row = rowOf(view, query), sees = holdsAt(head.bands, row, key);
    const pattern = patterns[state.pattern].about;
    const terms = head.terms.filter(term => holdsAt(term.bands, row, key))
      .map(term => (term.asks ? `${term.text} (if its input says so)` : term.text));
    const [height, width] = pattern.tile, queryTile = div(query, height), keyTile = div(key, width);
    const bounds = (at, size, last) => [at * size, Math.min((at + 1) * size, last)];
    const lastQuery = Math.max(view.keys, view.rows[1]);
    const share = shareWithin(head.bands, view, bounds(queryTile, height, lastQuery), bounds(keyTile, width, view.keys));
    const kind = share === 0 ? "skipped" : share === 1 ? "full: no pair is tested" : `masked, ${percent(share)} live`;
    const y = cellOf(found.rows, query), x = cellOf(found.columns, key);
    const size = `${found.rows[y + 1] - found.rows[y]} x ${found.columns[x + 1] - found.columns[x]}`;
    const may = pattern.inputs ? "may see" : "sees";
    return [
      `${head.name}: query ${query} ${sees ? may : "does not see"} key ${key}`,
      `terms that hold: ${terms.length ? terms.join(" · ") : "none"}`,
      `tile (${queryTile}, ${keyTile}) of ${height} x ${width}: ${kind}`,
      `cell of ${size} pairs: ${percent(found.live[y][x])} live`,
      `${head.name}, all that is shown: ${about(found)}${percent(shareOf(found, view))} of ` +
        `${found.causal ? "the causal pairs" : "all pairs"}`,
    ].join("\n");
  }

  const title = html("h1"), details = html("p", "", {id: "details"}), controls = html("div", "", {class: "controls"});
  const panels = html("div", "", {class: "panels"}), hover = html("div", HELP, {id: "hover"});
  const labelled = (text, control) => {
    const made = html("label", `${text} `);
    made.append(control);
    controls.append(made);
    return control;
  };
  const patternChoice = html("select", "", {id: "pattern"}), headChoice = html("select", "", {id: "head"});
  patterns.forEach((pattern, n) => patternChoice.append(html("option", pattern.about.name, {value: n})));
  if (patterns.length > 1) labelled("pattern", patternChoice);
  labelled("heads", headChoice);
  const length = html("input", "", {id: "length", type: "number", min: 1, max: LONGEST, step: 1, list: "lengths"});
  const lengths = html("datalist", "", {id: "lengths"});
  for (let n = 64; n <= 2 ** 20; n *= 2) lengths.append(html("option", "", {value: n}));
  controls.append(lengths);
  if (!PICTURE.view.documents.length) labelled("tokens", length);
  const whole = html("button", "all pairs", {id: "whole", type: "button"});
  controls.append(whole);

  function fillHeads() {
    headChoice.replaceChildren(html("option", "all", {value: "all"}));
    patterns[state.pattern].heads.forEach((head, n) => headChoice.append(html("option", head.name, {value: n})));
    headChoice.value = state.head;
  }
  patternChoice.addEventListener("change", () => {
    state.pattern = Number(patternChoice.value);
    state.head = "all";
    fillHeads();
    draw();
  });
  headChoice.addEventListener("change", () => {
    state.head = headChoice.value;
    draw();
  });
  length.addEventListener("change", () => {
    const keys = Math.trunc(Number(length.value));
    if (!(keys >= 1 && keys <= LONGEST)) {
      length.value = state.view.keys;
      return;
    }
    state.view = {...state.view, keys, rows: [0, keys], columns: [0, keys]};
    draw();
  });
  whole.addEventListener("click", () => {
    state.view = {...state.view, rows: [0, state.view.keys], columns: [0, state.view.keys]};
    draw();
  });

  let room = 0; // the width that panels have
  window.addEventListener("resize", () => {
    if (panels.clientWidth !== room) draw();
  });

  function draw() {
    const {about: of, heads} = patterns[state.pattern], view = state.view;
    const chosen = state.head === "all" ? heads : [heads[Number(state.head)]];
    const cells = chosen.length <= 2 ? 128 : chosen.length <= 16 ? 64 : 32;
    const found = chosen.map(head => coverageOf(head.bands, view, cells, chosen.length, head.causal));
    const causal = found.every(each => each.causal), pairs = causal ? causalPairs(view) : allPairs(view);
    const weight = chosen.reduce((sum, head) => sum + head.heads.length, 0);
    const live = found.reduce((sum, each, n) => sum + each.total * chosen[n].heads.length, 0);
    const all = view.rows.concat(view.columns).join() === [0, view.keys, 0, view.keys].join();
    const part = all ? "" : `, queries ${view.rows.join("..")} and keys ${view.columns.join("..")}`;
    title.textContent = `${of.name}: ${view.keys} token${view.keys === 1 ? "" : "s"}${part}`;
    details.textContent = `${of.details}; tiles of ${of.tile.join(" x ")}; live: ${found.every(each => each.exact) ? "" : "about "}` +
      `${percent(live / Math.max(pairs * weight, 1))} of ${causal ? "the causal pairs" : "all pairs"}` +
      (of.more > 0 ? `; ${of.more} more distinct heads are not drawn` : "") +
      (of.inputs ? "; inputs as if they named every pair that they may" : "");
    length.value = view.keys;
    hover.textContent = HELP;
    room = panels.clientWidth;
    const most = Math.max(Math.min((room || Infinity) - namePlace(view) - 8 - EDGE - SCROLLBAR, 512), 128);
    // Whole units for each of 128, 64 or 32 cells, so that equal cells are drawn equally wide.
    const side = chosen.length === 1 ? div(most, 128) * 128 : Math.min(chosen.length <= 8 ? 256 : 192, div(most, 64) * 64);
    panels.replaceChildren(...chosen.map((head, n) => panel(head, found[n], side)));
    const drawn = `${of.name} ${state.head} ${view.keys}`;
    document.body.dataset.drawn = drawn;
    if (window.parent !== window) window.parent.postMessage({drawn}, "*"); // in a frame: the page around it may wait
  }

  const legend = html("div", "", {class: "legend", "aria-label": "share of a cell's pairs that are live"});
  shades.texts.forEach((text, n) => {
    const box = html("div"), colour = html(n ? "b" : "i");
    if (n) colour.style.opacity = shades.opacity[n - 1];
    box.append(colour, text);
    legend.append(box);
  });
  const note = html("p", "share of a cell's pairs that are live, up to:");
  document.getElementById("static").replaceWith(title, details, controls, panels, hover, note, legend);
  fillHeads();
  draw();
})();
