// The lanes of one side of an incident: requests and tasks, each a link to its trace. Many lanes are thin and have no names.

const FEW = 12;
const SHORTEST_PERCENT = 0.5;

export default {
  template: `<div class="lanes" :class="{ thin }" role="group" :aria-label="summary">
    <a class="lane-line" v-for="(lane, at) in lanes" :key="at" :href="'/traces/' + encodeURIComponent(lane.trace_id)" :title="lane.label"
      :tabindex="thin ? -1 : undefined" :aria-hidden="thin ? 'true' : undefined">
      <span class="lane-name" v-if="!thin">{{ lane.label }}</span>
      <span class="lane-track"><i v-for="piece in lane.pieces" class="tone" :class="piece.tone" :style="place(piece)"></i></span>
    </a>
    <div class="lane-axis" aria-hidden="true"><span v-for="part in [0, 25, 50, 75, 100]" :style="{ left: part + '%' }">{{ clock(part) }}</span></div></div>`,
  props: { label: String, lanes: { type: Array, default: () => [] }, seconds: { type: Number, default: 1 } },
  computed: {
    thin() {
      return this.lanes.length > FEW;
    },
    summary() {
      return `${this.label}: ${this.lanes.length} lanes over ${this.seconds.toFixed(1)} s`;
    },
  },
  methods: {
    clock(part) {
      return `${((this.seconds * part) / 100).toFixed(1)} s`;
    },
    place(piece) {
      const width = Math.max(SHORTEST_PERCENT, ((piece.end - piece.start) / this.seconds) * 100);
      return { left: `${(piece.start / this.seconds) * 100}%`, width: `${width}%` };
    },
  },
};
