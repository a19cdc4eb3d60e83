// What the timeline draws: requests and tasks, grouped by trace, each with its place in a lane.

import { Lanes } from "./lanes.js";

const FAILED = 1;
const RECOVERED = 2;
const CRASHED = 4;
const FOREVER_MS = 8e15; // the end of a task that still runs
const COLOURS = 8;

export class Pieces {
  constructor(epoch = "") {
    this.epoch = epoch;
    this.after = 0; // the number of the last segment that arrived
    this.all = [];
    this.groups = new Map(); // by trace: its request and its tasks
    this.known = []; // names, by the console's numbers
    this.colours = new Map(); // by task
    this.typical = new Map(); // by endpoint: from a request's start to its task's end, the longest so far
    this.repack(() => true, 0);
  }

  // Add an answer of /data/timeline.
  add(data, wanted, gap) {
    this.after = data.after;
    this.wanted = wanted;
    this.gap = gap;
    for (const [label, service, request] of data.names.slice(this.known.length)) {
      if (!request && !this.colours.has(label)) this.colours.set(label, this.colours.size % COLOURS);
      this.known.push({ label, service, request });
    }
    const fresh = data.start.map((start, at) => ({
      ...this.known[data.name[at]], start: data.base + start, end: data.base + start + data.duration[at],
      trace: data.trace[at], flags: data.flags[at], number: data.after - data.start.length + at, open: false, slot: null,
    }));
    for (const piece of fresh) this.#join(piece);
    this.#showRunning(data.open, data.now);
    this.#drop(data.now - data.keep);
    this.#place(fresh);
  }

  // Pack all lanes again, for another filter or another gap (ms) between two bars.
  repack(wanted, gap) {
    Object.assign(this, { wanted, gap, lanes: new Lanes(), dropped: 0 });
    for (const piece of this.all) piece.slot = null;
    this.#place(this.all);
  }

  // The request that a task came from.
  cause(piece) {
    return piece.request ? null : this.groups.get(piece.trace)?.request;
  }

  // Where a piece is drawn. A request shares the place of its first task.
  slot(piece) {
    return piece.slot ?? (piece.request ? this.groups.get(piece.trace).tasks.find((task) => task.slot)?.slot : null);
  }

  // Add a segment to its trace. A task that was drawn as running keeps its lane.
  #join(piece) {
    const group = this.#group(piece.trace);
    this.all.push(piece);
    if (piece.request) {
      group.request ??= piece;
      return;
    }
    const at = group.tasks.findIndex((other) => other.open && other.label === piece.label);
    if (at >= 0) {
      const [open] = group.tasks.splice(at, 1);
      this.all.splice(this.all.indexOf(open), 1);
      piece.slot = open.slot;
    } else if (group.request?.slot) {
      piece.slot = group.request.slot;
      group.request.slot = null;
    }
    if (piece.slot) Object.assign(piece.slot, [Math.min(piece.slot[0], piece.start), piece.end, piece]);
    group.tasks.push(piece);
    if (group.request && !piece.open) {
      const { label, start } = group.request;
      this.typical.set(label, Math.max(this.typical.get(label) ?? 0, piece.end - start));
    }
  }

  #group(trace) {
    const group = this.groups.get(trace) ?? { request: null, tasks: [] };
    this.groups.set(trace, group);
    return group;
  }

  // Draw the tasks that run now, and remove those that no longer run.
  #showRunning(open, now) {
    const news = new Map(open.map((item) => [item[3], item]));
    const over = new Set(this.all.filter((piece) => piece.open && !news.delete(piece.key)));
    for (const piece of over) {
      const { tasks } = this.groups.get(piece.trace);
      tasks.splice(tasks.indexOf(piece), 1);
      if (piece.slot) piece.slot[1] = now;
    }
    if (over.size) this.all = this.all.filter((piece) => !over.has(piece));
    const fresh = [...news].map(([key, [start, name, trace]]) => ({
      ...this.known[name], start, end: FOREVER_MS, trace, flags: 0, number: key, open: true, slot: null, key,
    }));
    for (const piece of fresh) this.#join(piece);
    this.#place(fresh);
  }

  // Remove what ended before the longest time shown.
  #drop(oldest) {
    const kept = this.all.filter((piece) => piece.end >= oldest);
    if (kept.length === this.all.length) return;
    this.dropped += this.all.length - kept.length;
    this.all = kept;
    this.groups = new Map();
    for (const piece of kept) {
      const group = this.#group(piece.trace);
      if (piece.request) group.request ??= piece;
      else group.tasks.push(piece);
    }
    if (this.dropped > kept.length) this.repack(this.wanted, this.gap); // or unused lanes would stay
  }

  #place(pieces) {
    for (const piece of pieces.filter((item) => !item.slot && this.wanted(item)).toSorted((a, b) => a.start - b.start)) {
      const { request, tasks } = this.groups.get(piece.trace);
      if (piece.request && (tasks.length || request !== piece)) continue; // it is drawn with its first task
      const start = request && tasks[0] === piece ? Math.min(piece.start, request.start) : piece.start;
      // A request whose task has not arrived yet keeps a place for it.
      const end = piece.request ? Math.max(piece.end, piece.start + (this.typical.get(piece.label) ?? 0)) : piece.end;
      piece.slot = this.lanes.place(start, Math.max(end, start) + this.gap, piece);
    }
  }
}

export function kind(piece) {
  if (piece.open) return "running";
  if (piece.flags & CRASHED) return "crashed";
  if (piece.flags & FAILED) return "failed";
  return piece.flags & RECOVERED ? "recovered" : "ok";
}
