// Greedy interval packing: each interval goes into the lowest lane that is free while it lasts.

export class Lanes {
  constructor() {
    this.lanes = []; // per lane: intervals [start, end, what, lane], by start
  }

  // Place an interval and return it. One that is newer than all others of a lane costs a single comparison.
  place(start, end, what) {
    for (let number = 0; number < this.lanes.length; number++) {
      const lane = this.lanes[number];
      const at = lane[lane.length - 1][0] < start ? lane.length : after(lane, start);
      if ((at === 0 || lane[at - 1][1] <= start) && (at === lane.length || lane[at][0] >= end)) {
        const placed = [start, end, what, number];
        lane.splice(at, 0, placed);
        return placed;
      }
    }
    const placed = [start, end, what, this.lanes.length];
    this.lanes.push([placed]);
    return placed;
  }

  // What lies in a lane at a moment; `reach` is how far beside it still counts.
  at(number, time, reach = 0) {
    const lane = this.lanes[number];
    if (!lane) return undefined;
    const index = after(lane, time + reach) - 1;
    return index >= 0 && lane[index][1] + reach >= time ? lane[index][2] : undefined;
  }
}

// The first index whose interval starts after a moment.
function after(lane, time) {
  let low = 0;
  let high = lane.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane[middle][0] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

// How many intervals [start, end) overlap, as steps [time, count], and the most at once.
export function concurrency(intervals) {
  const starts = Float64Array.from(intervals, (interval) => interval[0]).sort();
  const ends = Float64Array.from(intervals, (interval) => interval[1]).sort();
  const steps = [];
  let [count, peak, s, e] = [0, 0, 0, 0];
  while (s < starts.length) {
    const time = Math.min(starts[s], ends[e]);
    while (e < ends.length && ends[e] === time) (count--, e++);
    while (s < starts.length && starts[s] === time) (count++, s++);
    peak = Math.max(peak, count);
    steps.push([time, count]);
  }
  for (; e < ends.length; e++) steps.push([ends[e], --count]);
  return { steps, peak };
}
