// Curves over the last minutes, in the page's own colours.

import { echarts } from "nicegui-echart";

export default {
  template: `<div class="card trend"><h3>{{ title }}</h3>
    <div class="keys"><span v-for="(one, at) in series ?? []"><i :style="{ background: 'var(--series-' + (at % 8) + ')' }"></i>{{ one.name }} <b>{{ last(one) }}</b></span></div>
    <div class="plot-small" ref="plot" role="img" :aria-label="summary"></div></div>`,
  props: { title: String, unit: String, logarithmic: Boolean, top: Number, series: Array },
  computed: {
    summary() {
      const words = (this.series ?? []).map((one) => `${one.name} ${this.last(one)} ${this.unit}`);
      return `${this.title}: ${words.join(", ") || "no values yet"}`;
    },
  },
  watch: {
    series() {
      this.draw();
    },
  },
  mounted() {
    this.chart = echarts.init(this.$refs.plot);
    this.resizing = new ResizeObserver(() => this.chart.resize());
    this.resizing.observe(this.$refs.plot);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.draw);
    this.draw();
  },
  beforeUnmount() {
    this.resizing.disconnect();
    this.scheme.removeEventListener("change", this.draw);
    this.chart.dispose();
  },
  methods: {
    last: (one) => one.points.findLast((point) => point[1] !== null)?.[1].toLocaleString("en-US") ?? "none",
    draw() {
      const style = getComputedStyle(this.$el);
      const token = (name) => style.getPropertyValue(name).trim();
      const [ink, muted, line, surface] = ["--ink", "--muted", "--line", "--surface"].map(token);
      const minutes = this.series?.[0]?.points ?? []; // an axis would leave out those without a value
      const label = { color: muted, fontSize: 11, hideOverlap: true };
      this.chart.setOption(
        {
          animation: false,
          color: [0, 1, 2, 3, 4, 5, 6, 7].map((number) => token(`--series-${number}`)),
          textStyle: { fontFamily: style.fontFamily, color: ink },
          grid: { left: 8, right: 18, top: 10, bottom: 4, containLabel: true },
          tooltip: { trigger: "axis", renderMode: "richText", backgroundColor: surface, borderColor: line, textStyle: { color: ink, fontSize: 12 }, valueFormatter: (value) => ((value ?? null) === null ? "none" : `${value.toLocaleString("en-US")} ${this.unit}`) },
          xAxis: { type: "time", min: minutes[0]?.[0], max: minutes.at(-1)?.[0], axisLabel: { ...label, formatter: "{HH}:{mm}" }, axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, splitLine: { show: false } },
          yAxis: { type: this.logarithmic ? "log" : "value", max: this.top ?? undefined, splitNumber: 3, axisLabel: { ...label, formatter: (value) => value.toLocaleString("en-US") }, splitLine: { lineStyle: { color: line, opacity: 0.7 } } },
          series: (this.series ?? []).map((one) => ({
            name: one.name, type: "line", data: this.logarithmic ? one.points.map(([time, value]) => [time, value === null ? null : Math.max(value, 1)]) : one.points,
            symbol: "circle", symbolSize: 4, lineStyle: { width: 2 },
          })),
        },
        { notMerge: true },
      );
    },
  },
};
