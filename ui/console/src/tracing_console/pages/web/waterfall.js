// The spans of one trace. Each is a row with details that open. All that a service sent is shown as text, never as markup.

const format = new Intl.NumberFormat("en-US");
const TICK_MS = 500; // the bars of running tasks grow so often
const CONFIRM_MS = 4000;

export default {
  template: `
  <div class="card waterfall">
    <div class="services"><span v-for="(service, at) in services"><i :style="{ background: colour(at) }"></i>{{ service }}</span>
      <div class="end"><button type="button" class="button small" @click="all(true)">Open all</button>
      <button type="button" class="button small" @click="all(false)">Close all</button></div></div>
    <div class="axis" aria-hidden="true"><span>Span</span><div class="ticks"><span v-for="part in [0, 25, 50, 75, 100]" :style="{ left: part + '%' }">{{ length(total * part / 100) }}</span></div></div>
    <div class="span" v-for="row in rows" :key="row.key" :style="{ '--depth': Math.min(row.depth, 12) }">
      <button type="button" class="span-row" :aria-expanded="String(!!opened[row.key])" @click="opened[row.key] = !opened[row.key]">
        <span class="span-name"><span class="fold" :class="{ open: opened[row.key] }" aria-hidden="true">›</span>
          <span class="words"><span class="ref" v-if="row.refs.length" :title="row.refs[0].type">⇢ </span>{{ row.name }}
          <span v-if="row.badge" class="badge" :class="row.badge.tone">{{ row.badge.text }}</span>
          <small>{{ row.kind }}<template v-if="row.component"> · {{ row.component }}</template><template v-if="row.peer"> · {{ row.peer }}</template></small></span></span>
        <span class="lane"><i :class="[row.state, { bad: row.error }]" :style="bar(row)"></i>
          <span :style="{ left: right(row) + '%' }">{{ length(lasted(row)) }}</span></span>
      </button>
      <div class="span-actions" v-if="row.cancel || row.profile"><button type="button" class="button small danger" v-if="row.cancel" :disabled="pending === row.key"
        :aria-label="(asked === row.key ? 'Really cancel? ' : 'Cancel ') + row.name" @click="cancel(row)">{{ asked === row.key ? "Really cancel?" : "Cancel" }}</button>
        <a v-if="row.profile" :href="row.profile">What is it waiting for?</a></div>
      <div class="detail" v-if="opened[row.key]">
        <dl class="pairs">
          <dt>service</dt><dd>{{ row.service }}, instance <span class="mono">{{ row.instance }}</span></dd>
          <dt>time</dt><dd>{{ moment(row.start) }}, {{ length(row.start - begin) }} after the trace began; <template v-if="row.state">{{ row.note }}</template><template v-else>{{ length(row.duration) }} long</template></dd>
          <template v-for="ref in row.refs"><dt>came from</dt><dd>{{ ref.name || "a span that has not arrived" }} ({{ ref.type }}), <span class="mono">segment {{ ref.segment }}, span {{ ref.span }}</span></dd></template>
          <dt>segment</dt><dd class="mono">{{ row.segment }}, span {{ row.span }}</dd>
          <template v-if="row.links.length"><dt>see</dt><dd class="links"><a v-for="link in row.links" :href="link.href" :rel="link.outside ? 'noreferrer' : undefined">{{ link.text }}</a></dd></template>
        </dl>
        <div v-if="row.tags.length"><h3>Tags</h3><dl class="pairs"><template v-for="[key, value] in row.tags"><dt>{{ key }}</dt><dd class="mono">{{ value }}</dd></template></dl></div>
        <div v-for="log in row.logs"><h3>{{ log.event || "Log" }} after {{ length(log.time - begin) }}</h3>
          <template v-for="[key, value] in log.data"><pre v-if="value.includes('\\n')" tabindex="0">{{ value }}</pre>
          <dl class="pairs" v-else><dt>{{ key }}</dt><dd>{{ value }}</dd></dl></template></div>
      </div>
    </div>
  </div>`,
  props: { rows: { type: Array, default: () => [] }, services: { type: Array, default: () => [] }, now: { type: Number, default: 0 } },
  emits: ["cancel"],
  data: () => ({ opened: {}, time: 0, asked: "", pending: "" }),
  computed: {
    begin() {
      return Math.min(...this.rows.map((row) => row.start));
    },
    total() {
      return Math.max(1, Math.max(...this.rows.map((row) => row.start + this.lasted(row))) - this.begin);
    },
  },
  watch: {
    // Failed spans are open from the start, but not those within another failed span.
    rows: {
      immediate: true,
      handler(rows) {
        let outer = Infinity;
        for (const row of rows) {
          if (row.depth <= outer) outer = row.error ? row.depth : Infinity;
          if (row.error && row.depth === outer && row.logs.length) this.opened[row.key] ??= true;
        }
        this.follow();
      },
    },
  },
  beforeUnmount() {
    clearInterval(this.timer);
  },
  methods: {
    length: (ms) => (ms < 10000 ? `${format.format(Math.round(ms))} ms` : `${(ms / 1000).toFixed(2)} s`),
    moment: (time) => `${new Date(time).toLocaleTimeString("en-GB")}.${String(time % 1000).padStart(3, "0")}`,
    colour: (at) => `var(--series-${at % 8})`,
    // A running task has no end yet: it lasts until now, by the console's clock.
    lasted(row) {
      return row.state === "running" ? Math.max(0, this.time - row.start) : row.duration;
    },
    follow() {
      const skew = this.now ? this.now - Date.now() : 0;
      const tick = () => (this.time = Date.now() + skew);
      tick();
      clearInterval(this.timer);
      if (this.rows.some((row) => row.state === "running")) this.timer = setInterval(tick, TICK_MS);
    },
    left(row) {
      return ((row.start - this.begin) / this.total) * 100;
    },
    right(row) {
      return Math.min(100, this.left(row) + Math.max(0.4, (this.lasted(row) / this.total) * 100));
    },
    bar(row) {
      const colour = this.colour(this.services.indexOf(row.service));
      return { left: `${this.left(row)}%`, width: `${(this.lasted(row) / this.total) * 100}%`, "--bar": row.error ? "var(--bad)" : colour };
    },
    all(open) {
      for (const row of this.rows) this.opened[row.key] = open;
    },
    // A second press on the same button confirms.
    cancel(row) {
      if (this.asked !== row.key) {
        this.asked = row.key;
        setTimeout(() => this.asked === row.key && (this.asked = ""), CONFIRM_MS);
        return;
      }
      this.asked = "";
      this.pending = row.key;
      setTimeout(() => (this.pending = ""), CONFIRM_MS);
      this.$emit("cancel", row.cancel);
    },
  },
};
