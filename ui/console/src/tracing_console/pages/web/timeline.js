// The timeline: tasks as bars in packed lanes, their requests as dots, and a curve of how many tasks ran at once.
// The data comes from /data/timeline, only what is new each time.

import { echarts } from "nicegui-echart";
import { Pieces, concurrency, frame, kind, series } from "console-picture";

const REFRESH_MS = 1500;
const LATEST = 8;
const BELOW_PIXELS = 186; // of the chart's height: what is not lanes
const WORDS = { running: "running", failed: "failed", crashed: "crashed", recovered: "succeeded after a retry", ok: "succeeded" };
const TONES = { running: "info", failed: "bad", crashed: "bad", recovered: "warn", ok: "good" };
const KEYS = { ArrowLeft: [-0.2, 1], ArrowRight: [0.2, 1], "+": [0, 0.7], "=": [0, 0.7], "-": [0, 1 / 0.7], "−": [0, 1 / 0.7] };

const format = new Intl.NumberFormat("en-US");
const number = (value) => format.format(Math.round(value));
const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
const length = (ms) => (ms < 1 ? "less than 1 ms" : ms < 1000 ? `${number(ms)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`);
const middle = (values) => (values.length ? values.toSorted((a, b) => a - b)[values.length >> 1] : null);
const lasted = (piece) => piece.end - piece.start;

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
          <option value="failed">failed</option><option value="crashed">crashed</option><option value="running">running</option></select></label>
        <button type="button" class="button" v-if="zoomed" @click="reset">Reset zoom</button>
      </div>
      <div class="legend" v-if="tasks.length">
        <button type="button" v-for="item in tasks" class="chip" :aria-pressed="String(task === item.name)"
          @click="task = task === item.name ? '' : item.name; repack()"
          ><i :style="{ background: 'var(--series-' + item.colour + ')' }"></i>{{ item.name }} <small>{{ item.count }}</small></button>
        <span class="key"><i style="background: var(--bad)"></i>failed or crashed</span>
        <span class="key"><i class="dot"></i>request</span>
        <span class="key"><i class="running"></i>still running</span>
      </div>
      <div class="plot" ref="plot" tabindex="0" role="img" :aria-label="summary" @keydown="key"></div>
      <div class="empty" v-if="loaded && !count && !error">
        <strong>No request and no task in the last {{ minutes }} minutes.</strong>
        <span>Send a request: <a href="/try">Try it</a>, or <code>curl {{ service }}/test</code></span>
      </div>
      <div class="empty" v-if="!loaded">{{ error ? "OAP does not answer yet." : "Reading the last minutes from OAP." }}</div>
      <div class="tip" ref="tip" v-show="hover" v-if="count">
        <template v-if="hover">
          <strong>{{ hover.label }}</strong>
          <span v-if="hover.request">{{ length(hover.end - hover.start) }}, answered at {{ clock(hover.end) }}</span>
          <span v-else-if="hover.open">running since {{ clock(hover.start) }}</span>
          <span v-else>{{ length(hover.end - hover.start) }} from {{ clock(hover.start) }}: {{ outcomeOf(hover) }}</span>
          <span v-if="pieces.cause(hover)">after {{ pieces.cause(hover).label }}, answered in {{ length(pieces.cause(hover).end - pieces.cause(hover).start) }}</span>
          <small>{{ hover.service }} · click opens the trace</small>
        </template>
      </div>
    </div>
    <p class="note" v-if="error">{{ error }}. The timeline is not updated meanwhile.</p>
    <p class="note">A task's span reaches OAP when the task ends. Tasks that still run are striped bars, from their start reports:
      <a href="/running">what runs now</a>.
      <template v-if="limited">Only the newest {{ number(all) }} segments are drawn.</template>
      Wheel or <kbd>+</kbd> <kbd>−</kbd> zooms, dragging or <kbd>←</kbd> <kbd>→</kbd> pans, <kbd>Shift</kbd> with the wheel zooms the lanes, <kbd>0</kbd> shows all again.</p>
    <h2>Latest tasks in view</h2>
    <div class="card"><table class="grid" v-if="latest.length">
      <thead><tr><th scope="col">Ended</th><th scope="col">Task</th><th scope="col">Request</th><th scope="col" class="right">Duration</th><th scope="col">Outcome</th></tr></thead>
      <tbody><tr v-for="item in latest" :key="item.number">
        <td data-label="Ended">{{ clock(item.end) }}</td>
        <td data-label="Task"><a :href="'/data/trace/' + item.trace">{{ item.label }}</a></td>
        <td data-label="Request">{{ pieces.cause(item)?.label ?? "" }}</td>
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
    Object.assign(this, { length, clock, number, pieces: new Pieces(), skew: 0, drawing: 0 });
  },
  mounted() {
    this.chart = echarts.init(this.$refs.plot, null, { renderer: "canvas" });
    this.resizing = new ResizeObserver(() => {
      this.chart.resize();
      this.draw();
    });
    this.resizing.observe(this.$refs.plot);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.paint);
    this.chart.on("datazoom", this.zoom);
    const surface = this.chart.getZr();
    surface.on("mousemove", this.point);
    surface.on("globalout", () => (this.hover = null));
    surface.on("mousedown", (event) => (this.pressed = [event.offsetX, event.offsetY]));
    surface.on("click", this.open);
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
    async refresh() {
      const began = performance.now();
      let pause = REFRESH_MS;
      if (!document.hidden && (this.live || !this.loaded)) {
        try {
          const response = await fetch(`/data/timeline?epoch=${this.pieces.epoch}&after=${this.pieces.after}`);
          const data = await response.json();
          this.error = data.error ?? "";
          if (!data.error) this.add(data);
          if (data.more) pause = 0; // earlier minutes follow one by one
        } catch (problem) {
          console.error(problem);
          this.error = "The console does not answer";
        }
      }
      this.timer = setTimeout(this.refresh, Math.max(50, pause - (performance.now() - began)));
    },

    add(data) {
      if (data.epoch !== this.pieces.epoch) this.pieces = new Pieces(data.epoch);
      Object.assign(this, { running: data.running, limited: data.limited, skew: data.now - Date.now(), loaded: true });
      this.pieces.add(data, this.wanted, this.gap());
      this.survey();
      this.draw();
    },
    repack() {
      this.pieces.repack(this.wanted, this.gap());
      this.survey();
      this.draw();
    },
    gap() {
      return (this.minutes * 60000) / 600; // some pixels between two bars of a lane
    },

    wanted(piece) {
      const { request, tasks } = this.pieces.groups.get(piece.trace);
      if (this.endpoint && request?.label !== this.endpoint) return false;
      if (piece.request) return !(this.task || this.outcome) || tasks.some(this.wanted);
      return (!this.task || piece.label === this.task) && (!this.outcome || kind(piece) === this.outcome);
    },
    outcomeOf: (piece) => WORDS[kind(piece)],
    tone: (piece) => TONES[kind(piece)],

    now() {
      return Date.now() + this.skew;
    },
    // The time on the axis, and the part of it that is in view.
    range() {
      const end = this.live ? this.now() : this.stopped;
      const all = [end - this.minutes * 60000, end + this.minutes * 300];
      const zoom = this.chart.getOption()?.dataZoom?.[0] ?? { start: 0, end: 100 };
      return { all, view: [zoom.start, zoom.end].map((percent) => all[0] + ((all[1] - all[0]) * percent) / 100) };
    },

    // The numbers and texts of the page.
    survey() {
      const { view } = this.range();
      const shown = this.pieces.all.filter((piece) => piece.end >= view[0] && piece.start <= view[1] && this.wanted(piece));
      const bars = shown.filter((piece) => !piece.request);
      const ended = bars.filter((piece) => !piece.open);
      const now = this.now();
      this.curve = concurrency(bars.map((piece) => [piece.start, Math.min(piece.end, now)]));
      const [failed, crashed] = ["failed", "crashed"].map((outcome) => bars.filter((piece) => kind(piece) === outcome).length);
      // A blocking request is slow on purpose and would distort the median.
      const answer = middle(shown.filter((piece) => piece.request && !piece.label.endsWith("/blocking")).map(lasted));
      const task = middle(ended.map(lasted));
      this.tiles = [
        { label: "tasks in view", value: number(bars.length) },
        { label: "at once, at the peak", value: number(this.curve.peak), tone: "accent" },
        ...(this.running === null ? [] : [{ label: "run right now", value: number(this.running) }]),
        { label: crashed ? `failed (${number(crashed)} crashed)` : "failed", value: number(failed + crashed), tone: failed + crashed ? "bad" : "" },
        { label: "median task", value: task === null ? "–" : length(task) },
        { label: "median answer time", value: answer === null ? "–" : answer < 1 ? "< 1 ms" : length(answer), tone: "good" },
      ];
      const counts = new Map();
      for (const piece of this.pieces.all) if (!piece.request) counts.set(piece.label, (counts.get(piece.label) ?? 0) + 1);
      this.tasks = [...counts].toSorted().map(([name, count]) => ({ name, count: number(count), colour: this.pieces.colours.get(name) }));
      this.endpoints = [...new Set(this.pieces.all.filter((piece) => piece.request).map((piece) => piece.label))].toSorted();
      this.latest = ended.toSorted((a, b) => b.end - a.end).slice(0, LATEST);
      this.count = shown.length;
      this.all = this.pieces.all.length;
      this.summary = `${number(bars.length)} tasks in view, ${number(this.curve.peak)} at once at the peak, ${failed + crashed} failed. Arrow keys pan, plus and minus zoom, 0 shows all.`;
    },

    token(name) {
      return getComputedStyle(this.$el).getPropertyValue(name).trim();
    },
    paint() {
      this.chart.setOption(frame(this.token, getComputedStyle(this.$el).fontFamily, matchMedia("(pointer: coarse)").matches));
      this.draw();
    },
    draw() {
      if (!this.loaded) return;
      const { all } = this.range();
      let lanes = 4;
      for (const { slot, end, start } of this.pieces.all) if (slot && end >= all[0] && start <= all[1]) lanes = Math.max(lanes, slot[3] + 1);
      const vertical = this.vertical();
      const visible = lanes * (vertical ? (vertical.end - vertical.start) / 100 : 1);
      const width = Math.min(14, Math.max(0.75, ((this.$refs.plot.clientHeight - BELOW_PIXELS) / visible) * 0.7));
      this.drawing += 1;
      const drawn = series(this.pieces, { token: this.token, all, now: this.now(), width, curve: this.curve.steps, drawing: this.drawing });
      const axis = { min: all[0], max: all[1] };
      this.chart.setOption({ xAxis: [axis, axis], yAxis: [{ max: lanes - 0.4 }, {}], series: drawn.series }, { replaceMerge: ["series"] });
      requestAnimationFrame(() => (this.$el.dataset.bars = drawn.bars)); // tests wait for it
    },

    vertical() {
      return this.chart.getOption().dataZoom.find((item) => item.yAxisIndex?.length);
    },
    zoom() {
      this.zoomed = this.chart.getOption().dataZoom.some((item) => item.start > 0.01 || item.end < 99.99);
      if (this.zoomed && this.live) this.pause();
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => {
        const vertical = this.vertical();
        const height = vertical ? vertical.end - vertical.start : 100;
        if (height !== (this.height ?? 100)) {
          this.height = height; // bars are as thick as their lanes
          this.draw();
        }
      });
      clearTimeout(this.surveying);
      this.surveying = setTimeout(this.survey, 150);
    },
    pause() {
      this.stopped = this.now();
      this.live = false;
    },
    toggle() {
      if (this.live) return this.pause();
      this.live = true;
      this.reset();
      clearTimeout(this.timer);
      return this.refresh();
    },
    reset() {
      for (const at of this.chart.getOption().dataZoom.keys()) {
        this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: at, start: 0, end: 100 });
      }
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
      const [move, factor] = KEYS[event.key] ?? [];
      if (event.key === "0") this.reset();
      else if (move === undefined) return;
      else {
        const wide = Math.min(100, Math.max(0.2, span * factor));
        const start = Math.min(100 - wide, Math.max(0, zoom.start + span * move + (span - wide) / 2));
        this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, start, end: start + wide });
      }
      event.preventDefault();
    },

    // The piece at a place of the chart. Found by the lanes themselves, as a path of thousands of bars is one to ECharts.
    find(event) {
      const at = [event.offsetX, event.offsetY];
      if (!this.chart.containPixel({ gridIndex: 0 }, at)) return null;
      const [time, lane] = this.chart.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, at);
      const { view } = this.range();
      const reach = ((view[1] - view[0]) / this.$refs.plot.clientWidth) * 5;
      const piece = this.pieces.lanes.at(Math.round(lane), time, reach);
      return piece && this.wanted(piece) && time <= Math.min(piece.end, this.now()) + reach ? piece : null;
    },
    point(event) {
      this.hover = this.find(event);
      this.chart.getZr().setCursorStyle(this.hover ? "pointer" : "default");
      if (!this.hover || !this.$refs.tip) return;
      const { style } = this.$refs.tip;
      style.left = `${Math.min(event.offsetX + 14, this.$refs.plot.clientWidth - 260)}px`;
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
