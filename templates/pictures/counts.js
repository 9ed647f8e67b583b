// Bands of one head -> how many keys of each range of columns some rows see. What sparsec/analysis/rows.py and
// sparsec/analysis/coverage.py compute, number for number; bounds are the functions that a page was printed with.
"use strict";

const div = (a, b) => Math.floor(a / b);
const mod = (a, b) => a - b * Math.floor(a / b);
const GOLDEN = 0.618034;
const LIMITS = {
  table: 4096, points: 64, rowsACell: 16, rowsATotal: 1024, fewRows: 2, gridWork: 2 ** 22, totalWork: 2 ** 21, several: 16,
};
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const lcm = (a, b) => a / gcd(a, b) * b;

const MASK = (1n << 64n) - 1n;
function splitMix(seed, lane, block, t) {
  let z = BigInt(seed) * 0x9E3779B97F4A7C15n + BigInt(lane) * 0xBF58476D1CE4E5B9n + BigInt(block) * 0x94D049BB133111EBn;
  z = (z + BigInt(t) + 1n) & MASK;
  z = ((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94D049BB133111EBn) & MASK;
  return z ^ (z >> 31n);
}

const drawnBefore = new Map();
function drawnBlocks(list, block) {
  const key = `${list.count} ${list.seed} ${list.lane} ${block}`;
  if (!drawnBefore.has(key)) {
    if (drawnBefore.size > 100000) drawnBefore.clear();
    const found = [];
    for (let t = 0; block >= 0 && t < list.count; t++) {
      found.push(Number(splitMix(list.seed, list.lane, block, t) % BigInt(block + 1)));
    }
    drawnBefore.set(key, found);
  }
  return drawnBefore.get(key);
}

const phaseAt = (c, i) => c.phase + (c.moving ? div(i, c.unit) : 0);
const inside = (c, i, j) => mod(div(j, c.unit) - phaseAt(c, i), c.period) < c.width;
const rowInside = (band, i, nk) =>
  (!band.firstRow || i >= band.firstRow(i, nk)) && (!band.lastRow || i < band.lastRow(i, nk));

// Whether a band has the pair; `row` says where its query stands, as `rowsOf` gives it.
function bandHolds(band, row, key) {
  const i = row.at - row.origin, j = key - row.origin;
  if (key < row.begin || key >= row.end || !rowInside(band, i, row.keys)) return false;
  if (j < band.lower(i, row.keys) || j >= band.upper(i, row.keys)) return false;
  if (!band.residues.every(c => inside(c, i, j))) return false;
  return band.lists.every(list => drawnBlocks(list, div(i, list.block)).includes(div(j, list.block)) !== list.not);
}
const holdsAt = (bands, row, key) => bands.some(band => bandHolds(band, row, key));

// Where the query positions stand: in which document, and how many keys its positions count.
function rowOf(view, at) {
  const bounds = view.documents;
  if (!bounds.length) return {at, begin: 0, end: view.keys, origin: 0, keys: view.keys};
  let low = 0, high = bounds.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (bounds[middle] <= at) low = middle; else high = middle;
  }
  while (low < bounds.length - 2 && bounds[low + 1] <= at) low++;
  const begin = bounds[low], end = bounds[low + 1];
  return view.restart ? {at, begin, end, origin: begin, keys: end - begin} : {at, begin, end, origin: 0, keys: view.keys};
}

const names = new Map();
function nameOf(band) {
  if (!names.has(band)) names.set(band, JSON.stringify(band.residues));
  return names.get(band);
}

const tables = new Map();
function periodicBelow(residues, groups, i, key) {
  const unit = residues.map(c => c.unit).reduce(gcd), period = residues.map(c => c.unit * c.period).reduce(lcm);
  const length = period / unit;
  if (!(length <= LIMITS.table)) return null;
  const phases = residues.filter(c => c.moving).map(c => mod(div(i, c.unit), c.period));
  const name = `${key} ${phases}`;
  if (!tables.has(name)) {
    if (tables.size > 2000) tables.clear();
    const sums = [0], held = [];
    for (let n = 0; n < length; n++) {
      held.push(groups.some(group => group.every(c => inside(c, i, n * unit))));
      sums.push(sums[n] + (held[n] ? 1 : 0));
    }
    tables.set(name, {sums, held});
  }
  const {sums, held} = tables.get(name);
  return j => {
    const at = div(mod(j, period), unit);
    return (div(j, period) * sums[length] + sums[at]) * unit + (held[at] ? mod(j, unit) : 0);
  };
}

// The keys start <= j < stop that the residues of some band hold, and whether that is a count.
function periodic(bands, i, start, stop) {
  const residues = bands.flatMap(band => band.residues);
  if (residues.length === 1) {
    const c = residues[0], period = c.unit * c.period, run = c.unit * c.width;
    const below = j => {
      const at = j - phaseAt(c, i) * c.unit;
      return div(at, period) * run + Math.min(mod(at, period), run);
    };
    return [below(stop) - below(start), true];
  }
  const groups = bands.map(band => band.residues);
  const below = periodicBelow(residues, groups, i, bands.map(nameOf).join());
  if (below) return [below(stop) - below(start), true];
  const width = stop - start, every = width <= LIMITS.points;
  let hits = 0;
  for (let n = 0; n < Math.min(width, LIMITS.points); n++) {
    const place = every ? n : Math.trunc((n + (n + 1) * GOLDEN % 1) * width / LIMITS.points);
    if (groups.some(group => group.every(c => inside(c, i, start + place)))) hits++;
  }
  return [every ? hits : Math.floor(hits * width / LIMITS.points + 0.5), every];
}

// Of one row, the live keys between two of the ascending edges, into `into` with a weight.
function keysSeen(bands, row, edges, into, weight) {
  const first = edges[0], last = edges[edges.length - 1], i = row.at - row.origin;
  const clip = x => Math.max(first, Math.min(x, last));
  const spans = bands.map(band => [
    Math.max(band.lower(i, row.keys) + row.origin, row.begin), Math.min(band.upper(i, row.keys) + row.origin, row.end),
  ]);
  const held = bands.map(band => rowInside(band, i, row.keys));
  const drawn = bands.map(band => band.lists.map(list => drawnBlocks(list, div(i, list.block))));
  const points = [clip(row.at + 1), ...spans.flat().map(clip)];
  bands.forEach((band, n) => band.lists.forEach((list, m) => {
    for (const block of drawn[n][m]) {
      points.push(clip(block * list.block + row.origin), clip((block + 1) * list.block + row.origin));
    }
  }));
  points.sort((a, b) => a - b);
  let column = 0, next = 0, ahead = false, exact = true;
  for (let start = first; start < last;) {
    while (next < points.length && points[next] <= start) next++;
    const stop = Math.min(next < points.length ? points[next] : last, edges[column + 1]);
    let live = 0;
    const some = [];
    for (let n = 0; n < bands.length; n++) {
      if (!held[n] || start < spans[n][0] || start >= spans[n][1]) continue;
      const lists = bands[n].lists;
      if (!lists.every((list, m) => drawn[n][m].includes(div(start - row.origin, list.block)) !== list.not)) continue;
      if (!bands[n].residues.length) {
        live = stop - start;
        break;
      }
      some.push(bands[n]);
    }
    if (!live && some.length) {
      let counted;
      [live, counted] = periodic(some, i, start - row.origin, stop - row.origin);
      exact = exact && counted;
    }
    if (live) {
      into[column] += weight * live;
      ahead = ahead || start > row.at;
    }
    if (stop === edges[column + 1]) column++;
    start = stop;
  }
  return {ahead, exact};
}

function cellEdges(first, stop, cells) {
  let step = 1;
  while (Math.ceil((stop - first) / step) > cells) step *= 2;
  const edges = [first];
  for (let x = (div(first, step) + 1) * step; x < stop; x += step) edges.push(x);
  return [...edges, stop];
}

function rowEdges(bands, view) {
  const of = keys => bands.flatMap(b => [b.firstRow, b.lastRow].filter(f => f).map(f => f(0, keys)));
  const found = new Set(view.documents);
  if (!view.documents.length || !view.restart) of(view.keys).forEach(edge => found.add(edge));
  else {
    for (let n = 0; n + 1 < view.documents.length; n++) {
      const begin = view.documents[n], size = view.documents[n + 1] - begin;
      of(size).filter(edge => 0 < edge && edge < size).forEach(edge => found.add(begin + edge));
    }
  }
  return [...found].sort((a, b) => a - b);
}

// Rows and their weights: all, if they are no more than `most`; or an equal share of `most` of each part between two of
// `edges`, and at least `each` while there are at most four.
function sampled(first, stop, edges, most, each) {
  const inner = [first, ...edges.filter(edge => first < edge && edge < stop), stop], found = [];
  const parts = inner.length - 1, least = Math.max(Math.min(div(4 * each, parts), each), LIMITS.fewRows);
  let limit = Math.max(most, each);
  if (stop - first > limit) limit = Math.max(div(limit, parts), least);
  for (let part = 0; part < parts; part++) {
    const begin = inner[part], size = inner[part + 1] - begin, number = Math.min(size, limit), before = found.length;
    for (let n = 0; n < number; n++) {
      const at = size <= limit ? n : Math.trunc((n + (before + n + 1) * GOLDEN % 1) * size / limit);
      found.push([begin + at, size / number]);
    }
  }
  return found;
}

const causalPairs = view => {
  const [first, stop] = view.rows, [left, right] = view.columns;
  const start = Math.max(first, left), full = Math.max(first, right - 1);
  const rising = Math.max(Math.min(stop, full) - start, 0);
  return div(rising * (2 * (start - left) + rising + 1), 2) + Math.max(stop - Math.max(full, first), 0) * (right - left);
};
const allPairs = view => (view.rows[1] - view.rows[0]) * (view.columns[1] - view.columns[0]);

// The coverage of a head's bands in a view: shares by cell, live pairs, whether causal, whether exact.
function coverageOf(bands, view, cells, share, causal) {
  const rows = cellEdges(...view.rows, cells), columns = cellEdges(...view.columns, cells);
  const edges = rowEdges(bands, view), height = rows.length - 1, across = columns.length;
  const own = bands.reduce((sum, b) => sum + 2 + b.lists.reduce((s, l) => s + 2 * l.count, 0), 0);
  const factor = bands.flatMap(band => band.residues).length > 1 ? LIMITS.several : 1;
  const width = across + 1 + own, cost = Math.max(width * Math.max(bands.length, 1) * share * factor, 1);
  const narrow = width - across + 2, totalCost = Math.max(div(cost * narrow, width), 1);
  const work = across === 2 ? LIMITS.totalWork : LIMITS.gridWork;
  const most = div(work, cost * height);
  const live = [];
  let exact = true, ahead = false, total = 0, looked = 0;
  for (let cell = 0; cell < height; cell++) {
    const counts = new Array(across - 1).fill(0);
    for (const [at, weight] of sampled(rows[cell], rows[cell + 1], edges, most, LIMITS.rowsACell)) {
      const said = keysSeen(bands, rowOf(view, at), columns, counts, weight);
      exact = exact && said.exact;
      ahead = ahead || said.ahead;
      looked++;
    }
    total += counts.reduce((a, b) => a + b, 0);
    live.push(counts.map((n, column) => n / ((rows[cell + 1] - rows[cell]) * (columns[column + 1] - columns[column]))));
  }
  exact = exact && looked === view.rows[1] - view.rows[0];
  if (!exact && across > 2) {
    const chosen = sampled(...view.rows, edges, div(LIMITS.totalWork, totalCost), LIMITS.rowsATotal);
    const sum = [0];
    exact = chosen.length === view.rows[1] - view.rows[0];
    ahead = false;
    for (const [at, weight] of chosen) {
      const said = keysSeen(bands, rowOf(view, at), view.columns, sum, weight);
      exact = exact && said.exact;
      ahead = ahead || said.ahead;
    }
    total = sum[0];
  }
  return {rows, columns, live, total, causal: causal || !ahead, exact};
}
