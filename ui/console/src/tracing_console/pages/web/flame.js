// A flame picture, the outermost call on top: a frame is as wide as its share of the samples. A click widens one frame to
// the whole picture, a click on the whole goes back. All text is shown as text, never as markup.

const ROW = 24; // px
const CHARACTER = 7.1; // px, of the monospaced text
const PADDING = 6;
const LEAST = 1; // px: what is narrower is not drawn
const format = new Intl.NumberFormat("en-US");

export default {
  template: `
  <div class="flame">
    <svg ref="picture" role="group" :aria-label="label" width="100%" :height="height" :viewBox="'0 0 ' + width + ' ' + height">
      <g v-for="frame in drawn" :key="frame.key" role="button" tabindex="0" :aria-label="frame.words" :class="{ sits: frame.sits * 2 > frame.samples, outer: frame.outer }"
        :style="{ '--fill': 'var(--series-' + frame.depth % 3 + ')' }" @click="widen(frame)" @keydown.enter.prevent="widen(frame)" @keydown.space.prevent="widen(frame)">
        <title>{{ frame.words }}</title>
        <rect :x="frame.x" :y="frame.depth * row" :width="frame.wide" :height="row - 2" rx="3" />
        <text :x="frame.x + padding" :y="frame.depth * row + 15">{{ frame.text }}</text>
      </g>
    </svg>
    <button type="button" class="button small" v-if="chosen" @click="chosen = null">Show all</button>
  </div>`,
  props: { frames: { type: Array, default: () => [] }, samples: { type: Number, default: 0 } },
  data: () => ({ width: 600, chosen: null, row: ROW, padding: PADDING }),
  computed: {
    label() {
      return `Flame picture of ${format.format(this.samples)} stacks`;
    },
    height() {
      return ROW * (1 + Math.max(0, ...this.drawn.map((frame) => frame.depth)));
    },
    drawn() {
      const { left, samples } = this.chosen ?? { left: 0, samples: this.samples };
      const scale = this.width / Math.max(1, samples);
      const shown = [];
      for (const [number, frame] of this.frames.entries()) {
        const from = Math.max(frame.left, left);
        const to = Math.min(frame.left + frame.samples, left + samples);
        const wide = (to - from) * scale - 1;
        if (wide < LEAST) continue;
        const share = ((100 * frame.samples) / this.samples).toFixed(1);
        const sits = frame.sits ? `, ${format.format(frame.sits)} of them sat here` : "";
        const words = `${frame.function} ${frame.place}: ${format.format(frame.samples)} stacks, ${share} %${sits}`;
        const outer = Boolean(this.chosen) && frame.depth < this.chosen.depth;
        shown.push({ ...frame, key: number, x: (from - left) * scale, wide, words, outer, text: this.fitting(frame, wide) });
      }
      return shown;
    },
  },
  watch: {
    frames() {
      this.chosen = null;
    },
  },
  mounted() {
    this.observer = new ResizeObserver(([entry]) => (this.width = Math.max(120, entry.contentRect.width)));
    this.observer.observe(this.$refs.picture);
  },
  beforeUnmount() {
    this.observer.disconnect();
  },
  methods: {
    // The function and where it is; only the function, cut off, where there is less room.
    fitting(frame, wide) {
      const room = Math.floor((wide - 2 * PADDING) / CHARACTER);
      const whole = `${frame.function}  ${frame.place}`;
      if (whole.length <= room) return whole;
      if (frame.function.length <= room) return frame.function;
      return room < 3 ? "" : `${frame.function.slice(0, room - 1)}…`;
    },
    widen(frame) {
      this.chosen = this.chosen && frame.depth <= this.chosen.depth && !frame.depth ? null : this.frames[frame.key];
    },
  },
};
