// The timeline: tasks as bars in packed lanes, their requests as dots, and how many tasks ran at once.
// Data comes from /data/timeline, only what is new each time. All bars of one colour are one "lines" series in ECharts'
// large mode, that is one path on the canvas: 10 000 bars cost about as much as ten.

import { echarts } from "nicegui-echart";
import { Lanes, concurrency } from "console-lanes";

const REFRESH = 1500; // ms
const ERROR = 1;
const RECOVERED = 2;
const FOREVER = 8e15;
const CURVE_POINTS = 1200;
const LATEST = 8;
const PALETTE = 8;

const format = new Intl.NumberFormat("en-US");
const number = (value) => format.format(Math.round(value));
const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
const length = (ms) => (ms < 1 ? "less than 1 ms" : ms < 1000 ? `${number(ms)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`);
const middle = (values) => (values.length ? values.sort((a, b) => a - b)[values.length >> 1] : null);

export default {
  template: `
  <section class="timeline" aria-label="Timeline of background tasks">
    <div class="tiles" aria-live="off">
      <div class="tile" v-for="tile in tiles" :class="tile.tone"><b>{{ tile.value }}</b><span>{{ tile.label }}</span></div>
    </div>
    <div class="card chart-card">
      <div class="tools">
        <button type="button" class="button live" :aria-pressed="String(live)" @click="toggle"
          :title="live ? 'Stop following' : 'Follow what happens now'"><i></i>{{ live ? "Live" : "Paused" }}</button>
        <div class="segmented" role="group" aria-label="Time shown">
          <button type="button" v-for="m in [1, 5, 15]" :aria-pressed="String(minutes === m)" @click="show(m)">{{ m }} min</button>
        </div>
        <label>Endpoint<select v-model="endpoint" aria-label="Endpoint" @change="repack">
          <option value="">all</option><option v-for="name in endpoints">{{ name }}</option></select></label>
        <label>Task<select v-model="task" aria-label="Task" @change="repack">
          <option value="">all</option><option v-for="item in tasks">{{ item.name }}</option></select></label>
        <label>Outcome<select v-model="outcome" aria-label="Outcome" @change="repack">
          <option value="">all</option><option value="ok">succeeded</option><option value="recovered">succeeded after a retry</option>
          <option value="failed">failed</option><option value="running">running</option></select></label>
        <button type="button" class="button" v-if="zoomed" @click="reset">Reset zoom</button>
      </div>
      <div class="legend" v-if="tasks.length">
        <button type="button" v-for="item in tasks" class="chip" :aria-pressed="String(task === item.name)"
          @click="task = task === item.name ? '' : item.name; repack()"
          ><i :style="{ background: 'var(--series-' + item.colour + ')' }"></i>{{ item.name }} <small>{{ item.count }}</small></button>
        <span class="key"><i style="background: var(--bad)"></i>failed</span>
        <span class="key"><i class="dot"></i>request</span>
        <span class="key" v-if="running !== null"><i class="running"></i>still running</span>
      </div>
      <div class="plot" ref="plot" tabindex="0" role="img" :aria-label="summary" @keydown="key"></div>
      <div class="empty" v-if="loaded && !count && !error">
        <strong>Nothing has happened in the last {{ minutes }} minutes.</strong>
        <span>Send something to look at: <a href="/try">Try it</a>, or <code>curl {{ service }}/test</code></span>
      </div>
      <div class="empty" v-if="!loaded">{{ error ? "Waiting for OAP" : "Reading the last minutes from OAP" }}</div>
      <div class="tip" ref="tip" v-show="hover" v-if="count">
        <template v-if="hover">
          <strong>{{ hover.label }}</strong>
          <span v-if="hover.request">{{ length(hover.end - hover.start) }}, answered at {{ clock(hover.end) }}</span>
          <span v-else-if="hover.open">running since {{ clock(hover.start) }}</span>
          <span v-else>{{ length(hover.end - hover.start) }} from {{ clock(hover.start) }}: {{ outcomeOf(hover) }}</span>
          <span v-if="cause(hover)">after {{ cause(hover).label }}, answered in {{ length(cause(hover).end - cause(hover).start) }}</span>
          <small>{{ hover.service }} · click opens the trace</small>
        </template>
      </div>
    </div>
    <p class="note" v-if="error">{{ error }}; the picture stands still until it does.</p>
    <p class="note">A segment reaches OAP when it ends, so {{ running === null
      ? "a task that still runs is not there yet: its request is a dot without a bar."
      : "the tasks that still run (striped out to now) are the service's own word, from GET /tasks." }}
      <template v-if="limited">Only the newest {{ number(all) }} segments are drawn.</template>
      Wheel or <kbd>+</kbd> <kbd>−</kbd> zooms, dragging or <kbd>←</kbd> <kbd>→</kbd> pans, <kbd>Shift</kbd> with the wheel zooms the lanes, <kbd>0</kbd> shows all again.</p>
    <h2>Latest tasks in view</h2>
    <div class="card"><table class="grid" v-if="latest.length">
      <thead><tr><th scope="col">Ended</th><th scope="col">Task</th><th scope="col">Request</th><th scope="col" class="right">Duration</th><th scope="col">Outcome</th></tr></thead>
      <tbody><tr v-for="item in latest" :key="item.number">
        <td data-label="Ended">{{ clock(item.end) }}</td>
        <td data-label="Task"><a :href="'/data/trace/' + item.trace">{{ item.label }}</a></td>
        <td data-label="Request">{{ cause(item)?.label ?? "" }}</td>
        <td data-label="Duration" class="right">{{ length(item.end - item.start) }}</td>
        <td data-label="Outcome"><span class="badge" :class="tone(item)">{{ outcomeOf(item) }}</span></td>
      </tr></tbody></table>
      <div class="empty small" v-else>No task has ended in view.</div></div>
  </section>`,
  props: { service: String },
  data: () => ({
    live: true, minutes: 5, endpoint: "", task: "", outcome: "", zoomed: false, hover: null, loaded: false, error: "",
    running: null, limited: false, count: 0, all: 0, endpoints: [], tasks: [], tiles: [], latest: [], summary: "Timeline",
  }),
  created() {
    // Not reactive: Vue would wrap each of thousands of bars.
    this.forget("");
    Object.assign(this, { length, clock, number, skew: 0, drawn: 0 });
  },
  mounted() {
    this.chart = echarts.init(this.$refs.plot, null, { renderer: "canvas" });
    this.resizing = new ResizeObserver(() => (this.chart.resize(), this.draw()));
    this.resizing.observe(this.$refs.plot);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.paint);
    this.chart.on("datazoom", this.zoom);
    const surface = this.chart.getZr();
    surface.on("mousemove", (event) => this.point(event));
    surface.on("globalout", () => (this.hover = null));
    surface.on("mousedown", (event) => (this.pressed = [event.offsetX, event.offsetY]));
    surface.on("click", (event) => this.open(event));
    this.paint();
    this.refresh();
  },
  beforeUnmount() {
    clearTimeout(this.timer);
    this.resizing.disconnect();
    this.scheme.removeEventListener("change", this.paint);
    this.chart.dispose();
  },
  methods: {
    forget(epoch) {
      Object.assign(this, { epoch, after: 0, pieces: [], groups: new Map(), known: [], colours: new Map(), lanes: new Lanes(), typical: new Map() });
    },

    async refresh() {
      const began = performance.now();
      if (!document.hidden && (this.live || !this.loaded)) {
        try {
          const response = await fetch(`/data/timeline?epoch=${this.epoch}&after=${this.after}`);
          const data = await response.json();
          this.error = data.error ?? "";
          if (!data.error) this.take(data);
        } catch (problem) {
          console.error(problem);
          this.error = "The console does not answer";
        }
      }
      this.timer = setTimeout(this.refresh, Math.max(300, REFRESH - (performance.now() - began)));
    },

    take(data) {
      if (data.epoch !== this.epoch) this.forget(data.epoch);
      Object.assign(this, { after: data.after, running: data.running, limited: data.limited, skew: data.now - Date.now(), keep: data.keep });
      for (const [label, service, request] of data.names.slice(this.known.length)) {
        if (!request && !this.colours.has(label)) this.colours.set(label, this.colours.size % PALETTE);
        this.known.push({ label, service, request });
      }
      const fresh = data.start.map((start, at) => ({
        ...this.known[data.name[at]], start: data.base + start, end: data.base + start + data.duration[at],
        trace: data.trace[at], flags: data.flags[at], number: data.after - data.start.length + at, open: false, slot: null,
      }));
      for (const piece of fresh) this.join(piece);
      this.showRunning(data.open);
      this.drop();
      this.place(fresh);
      this.loaded = true;
      this.survey();
      this.draw();
    },

    // Put a segment to the others of its trace; a bar that was drawn as running keeps its lane.
    join(piece) {
      const group = this.groups.get(piece.trace) ?? { request: null, tasks: [] };
      this.groups.set(piece.trace, group);
      if (piece.request) {
        group.request ??= piece;
      } else {
        const at = group.tasks.findIndex((other) => other.open && other.label === piece.label);
        if (at >= 0) {
          piece.slot = group.tasks[at].slot;
          this.pieces.splice(this.pieces.indexOf(group.tasks[at]), 1);
          group.tasks.splice(at, 1);
        } else if (group.request?.slot) {
          piece.slot = group.request.slot;
          group.request.slot = null;
        }
        if (piece.slot) Object.assign(piece.slot, [Math.min(piece.slot[0], piece.start), piece.end, piece]);
        group.tasks.push(piece);
        if (group.request) this.typical.set(group.request.label, Math.max(this.typical.get(group.request.label) ?? 0, piece.end - group.request.start));
      }
      this.pieces.push(piece);
    },

    showRunning(open) {
      const wanted = new Map(open.map((item) => [`${item[2]} ${item[1]}`, item]));
      const fresh = [];
      this.pieces = this.pieces.filter((piece) => {
        if (!piece.open || wanted.delete(piece.key)) return true;
        const { tasks } = this.groups.get(piece.trace);
        tasks.splice(tasks.indexOf(piece), 1);
        if (piece.slot) piece.slot[1] = this.now();
        return false;
      });
      for (const [key, [start, name, trace]] of wanted) {
        const piece = { ...this.known[name], start, end: FOREVER, trace, flags: 0, number: -1, open: true, slot: null, key };
        this.join(piece);
        fresh.push(piece);
      }
      this.place(fresh);
    },

    // Forget what has left the longest window.
    drop() {
      const oldest = this.now() - this.keep;
      const before = this.pieces.length;
      this.pieces = this.pieces.filter((piece) => piece.end >= oldest);
      if (this.pieces.length === before) return;
      this.groups = new Map();
      for (const piece of this.pieces) {
        const group = this.groups.get(piece.trace) ?? { request: null, tasks: [] };
        if (piece.request) group.request ??= piece;
        else group.tasks.push(piece);
        this.groups.set(piece.trace, group);
      }
      this.dropped = (this.dropped ?? 0) + before - this.pieces.length;
      if (this.dropped > this.pieces.length) this.repack();
    },

    place(fresh) {
      const gap = (this.minutes * 60000) / 600; // some pixels between two bars of a lane
      for (const piece of fresh.filter((item) => !item.slot && this.wanted(item)).sort((a, b) => a.start - b.start)) {
        const group = this.groups.get(piece.trace);
        if (piece.request && (group.tasks.length || group.request !== piece)) continue; // drawn with its first task
        const first = !piece.request && group.tasks[0] === piece && group.request;
        const start = first ? Math.min(piece.start, group.request.start) : piece.start;
        // A request whose task is still to come keeps the place for it.
        const end = piece.request ? Math.max(piece.end, piece.start + (this.typical.get(piece.label) ?? 0)) : piece.end;
        piece.slot = this.lanes.place(start, Math.max(end, start) + gap, piece);
      }
    },

    repack() {
      this.lanes = new Lanes();
      this.dropped = 0;
      for (const piece of this.pieces) piece.slot = null;
      this.place(this.pieces);
      this.survey();
      this.draw();
    },

    wanted(piece) {
      const { request, tasks } = this.groups.get(piece.trace);
      if (this.endpoint && request?.label !== this.endpoint) return false;
      if (piece.request) return !(this.task || this.outcome) || tasks.some((item) => this.wanted(item));
      return (!this.task || piece.label === this.task) && (!this.outcome || this.kind(piece) === this.outcome);
    },

    kind: (piece) => (piece.open ? "running" : piece.flags & ERROR ? "failed" : piece.flags & RECOVERED ? "recovered" : "ok"),
    outcomeOf(piece) {
      return { running: "running", failed: "failed", recovered: "succeeded after a retry", ok: "succeeded" }[this.kind(piece)];
    },
    tone(piece) {
      return { running: "info", failed: "bad", recovered: "warn", ok: "good" }[this.kind(piece)];
    },
    cause(piece) {
      return piece.request ? null : this.groups.get(piece.trace)?.request;
    },
    now() {
      return Date.now() + this.skew;
    },

    // The time on the axis, and the part of it that is in view.
    range() {
      const end = this.live || !this.stopped ? this.now() : this.stopped;
      const all = [end - this.minutes * 60000, end + this.minutes * 300];
      const zoom = this.chart.getOption()?.dataZoom?.[0];
      const span = all[1] - all[0];
      const view = zoom ? [all[0] + (span * zoom.start) / 100, all[0] + (span * zoom.end) / 100] : all;
      return { all, view };
    },

    // What the page says in words and numbers.
    survey() {
      const { view } = this.range();
      const shown = this.pieces.filter((piece) => piece.end >= view[0] && piece.start <= view[1] && this.wanted(piece));
      const bars = shown.filter((piece) => !piece.request);
      const answered = shown.filter((piece) => piece.request && !this.slow(piece)).map((piece) => piece.end - piece.start);
      const now = this.now();
      this.curve = concurrency(bars.map((piece) => [piece.start, Math.min(piece.end, now)]));
      const failed = bars.filter((piece) => this.kind(piece) === "failed").length;
      const running = this.running ?? null;
      const response = middle(answered);
      this.tiles = [
        { label: "tasks in view", value: number(bars.length) },
        { label: "at once, at the peak", value: number(this.curve.peak), tone: "accent" },
        ...(running === null ? [] : [{ label: "run right now", value: number(running) }]),
        { label: "failed", value: number(failed), tone: failed ? "bad" : "" },
        { label: "median task", value: bars.length ? length(middle(bars.filter((piece) => !piece.open).map((piece) => piece.end - piece.start)) ?? 0) : "–" },
        { label: "median answer time", value: response === null ? "–" : response < 1 ? "< 1 ms" : length(response), tone: "good" },
      ];
      const counts = new Map();
      for (const piece of this.pieces) if (!piece.request) counts.set(piece.label, (counts.get(piece.label) ?? 0) + 1);
      this.tasks = [...counts].sort().map(([name, count]) => ({ name, count: number(count), colour: this.colours.get(name) }));
      this.endpoints = [...new Set(this.pieces.filter((piece) => piece.request).map((piece) => piece.label))].sort();
      this.latest = bars.filter((piece) => !piece.open).sort((a, b) => b.end - a.end).slice(0, LATEST);
      this.count = shown.length;
      this.all = this.pieces.length;
      this.summary = `${number(bars.length)} tasks in view, ${number(this.curve.peak)} at once at the peak, ${failed} failed. Arrow keys pan, plus and minus zoom, 0 shows all.`;
    },
    slow: (piece) => piece.label.endsWith("/blocking"),

    colour(name) {
      return getComputedStyle(this.$el).getPropertyValue(name).trim();
    },

    paint() {
      const [ink, muted, line, accent] = ["--ink", "--muted", "--line", "--accent"].map(this.colour);
      const time = { type: "time", axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, splitLine: { show: true, lineStyle: { color: line, opacity: 0.6 } } };
      const label = { color: muted, hideOverlap: true, fontSize: 11 };
      const hours = { hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}", millisecond: "{HH}:{mm}:{ss}.{SSS}" };
      const coarse = matchMedia("(pointer: coarse)").matches;
      const side = { left: 44, right: 14 };
      this.chart.setOption({
        animation: false,
        grid: [{ ...side, top: 8, bottom: 178 }, { ...side, height: 74, bottom: 78 }],
        xAxis: [
          { ...time, gridIndex: 0, axisLabel: { show: false } },
          { ...time, gridIndex: 1, axisLabel: { ...label, formatter: hours } },
        ],
        yAxis: [
          { gridIndex: 0, inverse: true, min: -0.6, axisLabel: { ...label, showMinLabel: false, formatter: (value) => (Number.isInteger(value) && value >= 0 ? value + 1 : "") }, minInterval: 1, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false } },
          { gridIndex: 1, min: 0, splitNumber: 2, minInterval: 1, axisLabel: label, splitLine: { lineStyle: { color: line, opacity: 0.6 } }, name: "tasks at once", nameGap: 6, nameTextStyle: { color: muted, align: "left", fontSize: 11, padding: [0, 0, 0, -34] } },
        ],
        dataZoom: [
          { type: "slider", xAxisIndex: [0, 1], filterMode: "none", bottom: 12, height: 26, ...side, showDataShadow: false, showDetail: false, brushSelect: true, borderColor: line, fillerColor: accent + "22", backgroundColor: "transparent", handleStyle: { color: accent, borderColor: accent }, moveHandleStyle: { color: accent, opacity: 0.5 }, emphasis: { handleStyle: { color: accent }, moveHandleStyle: { color: accent } }, dataBackground: { lineStyle: { opacity: 0 } } },
          ...(coarse ? [] : [
            { type: "inside", xAxisIndex: [0, 1], filterMode: "none", zoomOnMouseWheel: true, moveOnMouseMove: true },
            { type: "inside", yAxisIndex: [0], filterMode: "none", zoomOnMouseWheel: "shift", moveOnMouseMove: false, moveOnMouseWheel: false },
          ]),
        ],
        textStyle: { color: ink, fontFamily: getComputedStyle(this.$el).fontFamily },
      });
      this.draw();
    },

    draw() {
      if (!this.loaded) return;
      const { all } = this.range();
      const used = this.pieces.filter((piece) => piece.slot && piece.end >= all[0] && piece.start <= all[1]);
      const count = used.reduce((most, piece) => Math.max(most, piece.slot[3] + 1), 4);
      const zoom = this.chart.getOption().dataZoom.find((item) => item.yAxisIndex?.length);
      const visible = count * (zoom ? (zoom.end - zoom.start) / 100 : 1);
      const height = this.$refs.plot.clientHeight - 186;
      const width = Math.min(14, Math.max(0.75, (height / visible) * 0.7));
      const shortest = (all[1] - all[0]) / 1500; // a bar of less than a pixel could not be seen
      const now = this.now();
      this.drawn += 1;
      const bars = new Map();
      const dots = { ok: [], bad: [] };
      for (const piece of this.pieces) {
        if (!this.wanted(piece)) continue;
        if (piece.request) {
          const group = this.groups.get(piece.trace);
          const slot = piece.slot ?? group.tasks.find((task) => task.slot)?.slot;
          if (!slot) continue;
          dots[piece.flags & ERROR ? "bad" : "ok"].push(piece.start, slot[3]);
          if (piece.end - piece.start < shortest || group.tasks.length) continue;
        }
        if (!piece.slot) continue;
        const bucket = piece.flags & ERROR ? "bad" : piece.request ? "request" : (piece.open ? "open " : "") + (this.colours.get(piece.label) ?? 0);
        if (!bars.has(bucket)) bars.set(bucket, []);
        const end = piece.open ? now : Math.max(piece.end, piece.start + shortest);
        bars.get(bucket).push(2, piece.start, piece.slot[3], end, piece.slot[3]);
      }
      const buckets = ["request", ...Array.from({ length: PALETTE }, (_, at) => [String(at), `open ${at}`]).flat(), "bad"];
      const [muted, bad, ink, accent] = ["--muted", "--bad", "--ink", "--accent"].map(this.colour);
      const series = buckets.filter((bucket) => bars.has(bucket)).map((bucket) => ({
        id: `${bucket} ${this.drawn}`, type: "lines", coordinateSystem: "cartesian2d", xAxisIndex: 0, yAxisIndex: 0, polyline: true,
        large: true, largeThreshold: 0, progressive: 0, silent: true, clip: true, z: bucket === "bad" ? 4 : 3,
        data: Float64Array.from(bars.get(bucket) ?? []),
        lineStyle: {
          width, cap: "butt", curveness: 0, opacity: bucket.startsWith("open") ? 0.75 : 1, type: bucket.startsWith("open") ? [6, 4] : "solid",
          color: bucket === "bad" ? bad : bucket === "request" ? muted : this.colour(`--series-${bucket.replace("open ", "")}`),
        },
      }));
      const size = Math.min(8, Math.max(2.5, width * 0.75));
      const dot = { type: "scatter", xAxisIndex: 0, yAxisIndex: 0, large: true, largeThreshold: 0, progressive: 0, silent: true, clip: true, symbolSize: size, z: 5 };
      for (const [id, data, color] of [["dots", dots.ok, ink], ["bad dots", dots.bad, bad]]) {
        if (data.length) series.push({ ...dot, id, data: Float64Array.from(data), itemStyle: { color } });
      }
      series.push({
        id: "curve", type: "line", xAxisIndex: 1, yAxisIndex: 1, step: "end", symbol: "none", silent: true, data: thin(this.curve.steps, all),
        lineStyle: { width: 1.5, color: accent }, areaStyle: { color: accent, opacity: 0.14 },
      });
      const axis = { min: all[0], max: all[1] };
      // Replaced, never merged: ECharts can't draw a large series that became empty, and misplaces the merged data of one.
      this.chart.setOption({ xAxis: [axis, axis], yAxis: [{ max: count - 0.4 }, {}], series }, { replaceMerge: ["series"] });
      const drawn = [...bars.values()].reduce((sum, points) => sum + points.length / 5, 0);
      requestAnimationFrame(() => (this.$el.dataset.bars = drawn)); // for those who wait for the picture
    },

    zoom() {
      const [zoom] = this.chart.getOption().dataZoom;
      this.zoomed = this.chart.getOption().dataZoom.some((item) => item.start > 0.01 || item.end < 99.99);
      if (this.zoomed && this.live && zoom) this.pause();
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => {
        const vertical = this.chart.getOption().dataZoom.find((item) => item.yAxisIndex?.length);
        if (vertical && vertical.end - vertical.start !== this.vertical) {
          this.vertical = vertical.end - vertical.start;
          this.draw();
        }
      });
      clearTimeout(this.surveying);
      this.surveying = setTimeout(this.survey, 150);
    },

    pause() {
      this.live = false;
      this.stopped = this.now();
    },
    toggle() {
      if (this.live) return this.pause();
      this.live = true;
      this.reset();
      clearTimeout(this.timer);
      return this.refresh();
    },
    reset() {
      this.chart.getOption().dataZoom.forEach((_, at) => this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: at, start: 0, end: 100 }));
      this.zoomed = false;
      this.survey();
      this.draw();
    },
    show(minutes) {
      this.minutes = minutes;
      this.repack();
    },

    key(event) {
      const [zoom] = this.chart.getOption().dataZoom;
      const span = zoom.end - zoom.start;
      const [move, factor] = { ArrowLeft: [-0.2, 1], ArrowRight: [0.2, 1], "+": [0, 0.7], "=": [0, 0.7], "-": [0, 1 / 0.7], "−": [0, 1 / 0.7] }[event.key] ?? [];
      if (event.key === "0") this.reset();
      else if (move === undefined) return;
      else {
        const wide = Math.min(100, Math.max(0.2, span * factor));
        const start = Math.min(100 - wide, Math.max(0, zoom.start + span * move + (span - wide) / 2));
        this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, start, end: start + wide });
      }
      event.preventDefault();
    },

    find(event) {
      const at = [event.offsetX, event.offsetY];
      if (!this.chart.containPixel({ gridIndex: 0 }, at)) return null;
      const [time, lane] = this.chart.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, at);
      const { view } = this.range();
      const reach = ((view[1] - view[0]) / this.$refs.plot.clientWidth) * 5;
      const piece = this.lanes.at(Math.round(lane), time, reach);
      return piece && this.wanted(piece) && time <= Math.min(piece.end, this.now()) + reach ? piece : null;
    },
    point(event) {
      this.hover = this.find(event);
      this.$refs.plot.style.setProperty("--cursor", this.hover ? "pointer" : "default");
      this.chart.getZr().setCursorStyle(this.hover ? "pointer" : "default");
      if (!this.hover || !this.$refs.tip) return;
      const { style } = this.$refs.tip;
      const room = this.$refs.plot.clientWidth;
      style.left = `${Math.min(event.offsetX + 14, room - 260)}px`;
      style.top = `${this.$refs.plot.offsetTop + event.offsetY + 16}px`;
    },
    open(event) {
      const [x, y] = this.pressed ?? [0, 0];
      if (Math.hypot(event.offsetX - x, event.offsetY - y) > 4) return; // the end of a drag
      const piece = this.find(event);
      if (!piece) return;
      const url = `/data/trace/${piece.trace}`;
      if (event.event.ctrlKey || event.event.metaKey) window.open(url, "_blank", "noopener");
      else location.href = url;
    },
  },
};

// Keep the highest step of each of many small times: a curve of 20 000 points has no more pixels than that.
function thin(steps, [begin, end]) {
  const width = (end - begin) / CURVE_POINTS;
  const kept = [];
  let bucket = NaN;
  for (const [time, count] of steps) {
    const at = Math.floor((time - begin) / width);
    const last = kept[kept.length - 1];
    if (at !== bucket || kept.length < 1) kept.push([time, count]);
    else if (count > last[1]) last[1] = count;
    bucket = at;
  }
  if (steps.length) kept.push(steps[steps.length - 1]);
  return kept;
}
