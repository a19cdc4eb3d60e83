// The timeline as ECharts draws it. All bars of one colour are one "lines" series in large mode, which is one path on
// the canvas: 10 000 bars cost about as much as ten.

import { kind } from "./pieces.js";

const CURVE_POINTS = 1200;
const MAX_PIXELS = 1500; // across; a bar shorter than one of them could not be seen
const BAD = new Set(["failed", "crashed"]);
const LARGE = { xAxisIndex: 0, yAxisIndex: 0, large: true, largeThreshold: 0, progressive: 0, silent: true, clip: true };
const HOURS = { hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}", millisecond: "{HH}:{mm}:{ss}.{SSS}" };

// The options that stay: axes, zoom, colours. `token` reads a colour of the page.
export function frame(token, fontFamily, touch) {
  const [ink, muted, line, accent] = ["--ink", "--muted", "--line", "--accent"].map(token);
  const faint = { show: true, lineStyle: { color: line, opacity: 0.6 } };
  const time = { type: "time", axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, splitLine: faint };
  const label = { color: muted, hideOverlap: true, fontSize: 11 };
  const side = { left: 44, right: 14 };
  const handle = { color: accent, borderColor: accent };
  const inside = { type: "inside", filterMode: "none" };
  return {
    animation: false,
    textStyle: { color: ink, fontFamily },
    grid: [{ ...side, top: 8, bottom: 178 }, { ...side, height: 74, bottom: 78 }],
    xAxis: [
      { ...time, gridIndex: 0, axisLabel: { show: false } },
      { ...time, gridIndex: 1, axisLabel: { ...label, formatter: HOURS } },
    ],
    yAxis: [
      {
        gridIndex: 0, inverse: true, min: -0.6, minInterval: 1, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { ...label, formatter: (value) => (Number.isInteger(value) && value >= 0 ? value + 1 : "") },
      },
      {
        gridIndex: 1, min: 0, splitNumber: 2, minInterval: 1, axisLabel: label, splitLine: faint,
        name: "tasks at once", nameGap: 8, nameTextStyle: { color: muted, align: "left", fontSize: 11, padding: [0, 0, 0, 6] },
      },
    ],
    dataZoom: [
      {
        type: "slider", xAxisIndex: [0, 1], filterMode: "none", bottom: 12, height: 26, ...side, showDataShadow: false, showDetail: false, brushSelect: true,
        borderColor: line, fillerColor: `${accent}22`, backgroundColor: "transparent", handleStyle: handle,
        moveHandleStyle: { color: accent, opacity: 0.5 }, emphasis: { handleStyle: handle, moveHandleStyle: { color: accent } },
      },
      // On a touch screen a finger on the chart scrolls the page. The slider zooms there.
      ...(touch ? [] : [
        { ...inside, xAxisIndex: [0, 1], zoomOnMouseWheel: true, moveOnMouseMove: true },
        { ...inside, yAxisIndex: [0], zoomOnMouseWheel: "shift", moveOnMouseMove: false, moveOnMouseWheel: false },
      ]),
    ],
  };
}

// The options that change: bars, dots and the curve. ECharts can't draw a large series that became empty and misplaces
// merged data, so each drawing has new series, numbered `drawing`.
export function series(pieces, { token, all, now, width, curve, drawing }) {
  const shortest = (all[1] - all[0]) / MAX_PIXELS;
  const bars = new Map();
  const dots = { "--ink": [], "--bad": [] };
  let count = 0;
  for (const piece of pieces.all) {
    if (!pieces.wanted(piece)) continue;
    const slot = pieces.slot(piece);
    if (!slot) continue;
    const bad = BAD.has(kind(piece));
    if (piece.request) dots[bad ? "--bad" : "--ink"].push(piece.start, slot[3]);
    if (piece.request && (!piece.slot || piece.end - piece.start < shortest)) continue;
    const colour = bad ? "--bad" : piece.request ? "--muted" : `--series-${pieces.colours.get(piece.label)}`;
    const bucket = piece.open ? `${colour} open` : colour;
    if (!bars.has(bucket)) bars.set(bucket, []);
    bars.get(bucket).push(2, piece.start, slot[3], piece.open ? now : Math.max(piece.end, piece.start + shortest), slot[3]);
    count += 1;
  }
  const accent = token("--accent");
  const drawn = [...bars].map(([bucket, points]) => {
    const [colour, open] = bucket.split(" ");
    return {
      ...LARGE, id: `${bucket} ${drawing}`, type: "lines", coordinateSystem: "cartesian2d", polyline: true, z: colour === "--bad" ? 4 : 3,
      data: Float64Array.from(points),
      lineStyle: { width, cap: "butt", curveness: 0, color: token(colour), opacity: open ? 0.75 : 1, type: open ? [5, 3] : "solid" },
    };
  });
  for (const [colour, points] of Object.entries(dots)) {
    if (!points.length) continue;
    const symbolSize = Math.min(8, Math.max(1.6, width * 0.75));
    drawn.push({ ...LARGE, id: `dots ${colour} ${drawing}`, type: "scatter", symbolSize, z: 5, data: Float64Array.from(points), itemStyle: { color: token(colour) } });
  }
  drawn.push({
    id: "curve", type: "line", xAxisIndex: 1, yAxisIndex: 1, step: "end", symbol: "none", silent: true, data: thin(curve, all),
    lineStyle: { width: 1.5, color: accent }, areaStyle: { color: accent, opacity: 0.14 },
  });
  return { series: drawn, bars: count };
}

// Keep the highest step of each short time: a curve has fewer pixels than 20 000 steps.
function thin(steps, [begin, end]) {
  const width = (end - begin) / CURVE_POINTS;
  const kept = [];
  let bucket = NaN;
  for (const [time, count] of steps) {
    const at = Math.floor((time - begin) / width);
    const last = kept[kept.length - 1];
    if (at !== bucket) kept.push([time, count]);
    else last[1] = Math.max(last[1], count);
    bucket = at;
  }
  if (steps.length) kept.push(steps[steps.length - 1]);
  return kept;
}
