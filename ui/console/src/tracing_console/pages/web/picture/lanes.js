// Interval packing: each interval is put into the lowest lane that is free for all of its time.

export class Lanes {
  constructor() {
    this.lanes = []; // of each lane: its intervals [start, end, item, lane], by start
  }

  // Place an interval and return it. One that is newer than all others of a lane needs a single comparison.
  place(start, end, item) {
    for (let number = 0; number < this.lanes.length; number++) {
      const lane = this.lanes[number];
      const at = lane[lane.length - 1][0] < start ? lane.length : after(lane, start);
      if ((at === 0 || lane[at - 1][1] <= start) && (at === lane.length || lane[at][0] >= end)) {
        const placed = [start, end, item, number];
        lane.splice(at, 0, placed);
        return placed;
      }
    }
    const placed = [start, end, item, this.lanes.length];
    this.lanes.push([placed]);
    return placed;
  }

  // The item of a lane at a moment, or one at most `reach` ms beside it.
  at(number, time, reach = 0) {
    const lane = this.lanes[number];
    if (!lane) return null;
    const index = after(lane, time + reach) - 1;
    return index >= 0 && lane[index][1] + reach >= time ? lane[index][2] : null;
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
  const starts = Float64Array.from(intervals, (interval) => interval[0]).toSorted();
  const ends = Float64Array.from(intervals, (interval) => interval[1]).toSorted();
  const steps = [];
  let [count, peak, s, e] = [0, 0, 0, 0];
  while (s < starts.length) {
    const time = Math.min(starts[s], ends[e]);
    for (; ends[e] === time; e++) count--;
    for (; starts[s] === time; s++) count++;
    peak = Math.max(peak, count);
    steps.push([time, count]);
  }
  for (; e < ends.length; e++) steps.push([ends[e], --count]);
  return { steps, peak };
}
