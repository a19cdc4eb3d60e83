export { Lanes, concurrency } from "./lanes.js";
export { Pieces, kind } from "./pieces.js";
export { frame, series } from "./chart.js";
