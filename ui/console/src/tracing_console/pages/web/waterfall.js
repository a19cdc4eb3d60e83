// The spans of one trace. Each is a row with details that open. All that a service sent is shown as text, never as markup.

const format = new Intl.NumberFormat("en-US");

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
          <span v-if="row.error" class="badge bad">failed</span>
          <small>{{ row.kind }}<template v-if="row.component"> · {{ row.component }}</template><template v-if="row.peer"> · {{ row.peer }}</template></small></span></span>
        <span class="lane"><i :class="{ bad: row.error }" :style="bar(row)"></i>
          <span :style="{ left: right(row) + '%' }">{{ length(row.duration) }}</span></span>
      </button>
      <div class="detail" v-if="opened[row.key]">
        <dl class="pairs">
          <dt>service</dt><dd>{{ row.service }}, instance <span class="mono">{{ row.instance }}</span></dd>
          <dt>time</dt><dd>{{ moment(row.start) }}, {{ length(row.start - begin) }} after the trace began; {{ length(row.duration) }} long</dd>
          <template v-for="ref in row.refs"><dt>came from</dt><dd>{{ ref.name || "a span that has not arrived" }} ({{ ref.type }}), <span class="mono">segment {{ ref.segment }}, span {{ ref.span }}</span></dd></template>
          <dt>segment</dt><dd class="mono">{{ row.segment }}, span {{ row.span }}</dd>
        </dl>
        <div v-if="row.tags.length"><h3>Tags</h3><dl class="pairs"><template v-for="[key, value] in row.tags"><dt>{{ key }}</dt><dd class="mono">{{ value }}</dd></template></dl></div>
        <div v-for="log in row.logs"><h3>{{ log.event || "Log" }} after {{ length(log.time - begin) }}</h3>
          <template v-for="[key, value] in log.data"><pre v-if="value.includes('\\n')" tabindex="0">{{ value }}</pre>
          <dl class="pairs" v-else><dt>{{ key }}</dt><dd>{{ value }}</dd></dl></template></div>
      </div>
    </div>
  </div>`,
  props: { rows: { type: Array, default: () => [] }, services: { type: Array, default: () => [] } },
  data: () => ({ opened: {} }),
  computed: {
    begin() {
      return Math.min(...this.rows.map((row) => row.start));
    },
    total() {
      return Math.max(1, Math.max(...this.rows.map((row) => row.start + row.duration)) - this.begin);
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
      },
    },
  },
  methods: {
    length: (ms) => (ms < 10000 ? `${format.format(Math.round(ms))} ms` : `${(ms / 1000).toFixed(2)} s`),
    moment: (time) => `${new Date(time).toLocaleTimeString("en-GB")}.${String(time % 1000).padStart(3, "0")}`,
    colour: (at) => `var(--series-${at % 8})`,
    left(row) {
      return ((row.start - this.begin) / this.total) * 100;
    },
    right(row) {
      return Math.min(100, this.left(row) + Math.max(0.4, (row.duration / this.total) * 100));
    },
    bar(row) {
      return { left: `${this.left(row)}%`, width: `${(row.duration / this.total) * 100}%`, background: this.colour(this.services.indexOf(row.service)) };
    },
    all(open) {
      for (const row of this.rows) this.opened[row.key] = open;
    },
  },
};
