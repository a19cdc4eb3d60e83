// A table whose cells are text, links, badges or buttons. All text is shown as text, never as markup.

const CONFIRM_MS = 4000;
const PENDING_MS = 3000;

export default {
  template: `
  <table class="grid" v-if="rows.length">
    <thead><tr><th scope="col" v-for="column in columns" :class="column.align">{{ column.label }}</th></tr></thead>
    <tbody><tr v-for="row in rows" :key="row.key">
      <td v-for="column in columns" :class="column.align" :data-label="column.label">
        <template v-for="cell in [wrap(row[column.key])]">
          <template v-if="cell.actions">
            <div class="actions"><button type="button" v-for="action in cell.actions" class="button small" :class="action.tone"
              :disabled="action.off || pending === row.key" :title="action.off" @click="act(action, row)">{{ asked === action.name + row.key ? action.sure : action.label }}</button></div>
          </template>
          <template v-else>
            <time v-if="cell.time">{{ clock(cell.time) }}</time>
            <span v-else-if="cell.since" role="timer" aria-live="off">{{ elapsed(cell.since) }}</span>
            <a v-else-if="cell.href" :href="cell.href" :class="{ mono: cell.mono }" :rel="cell.outside ? 'noreferrer' : undefined">{{ cell.text }}</a>
            <span v-else-if="cell.tone" class="badge" :class="cell.tone">{{ cell.text }}</span>
            <span v-else :class="{ mono: cell.mono }">{{ cell.text }}</span>
            <small v-if="cell.note">{{ cell.note }}</small>
            <small v-if="cell.links" class="links"><a v-for="link in cell.links" :href="link.href" :rel="link.outside ? 'noreferrer' : undefined">{{ link.text }}</a></small>
            <i v-if="cell.share !== undefined" class="meter" :style="{ width: cell.share + '%' }"></i>
            <details v-if="cell.more"><summary>{{ cell.summary }}</summary><pre>{{ cell.more }}</pre></details>
          </template>
        </template>
      </td></tr></tbody>
  </table>
  <div v-else class="empty small">{{ empty }}</div>`,
  props: { columns: Array, rows: Array, empty: String, now: { type: Number, default: 0 } },
  emits: ["action"],
  data: () => ({ asked: "", pending: "", time: Date.now() }),
  watch: {
    rows: {
      immediate: true,
      handler(rows) {
        this.pending = "";
        clearInterval(this.timer);
        const ticks = rows.some((row) => Object.values(row).some((cell) => cell?.since));
        if (ticks) this.timer = setInterval(() => (this.time = Date.now()), 1000);
      },
    },
    now(now) {
      this.skew = now ? now - Date.now() : 0;
    },
  },
  created() {
    this.skew = this.now ? this.now - Date.now() : 0;
  },
  beforeUnmount() {
    clearInterval(this.timer);
  },
  methods: {
    clock(time) {
      const day = new Date(time);
      const today = day.toDateString() === new Date().toDateString();
      return (today ? "" : `${day.toLocaleDateString("en-CA")} `) + day.toLocaleTimeString("en-GB");
    },
    elapsed(since) {
      const seconds = Math.max(0, Math.floor((this.time + this.skew - since) / 1000));
      const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
      if (parts[0]) return `${parts[0]} h ${parts[1]} min`;
      return parts[1] ? `${parts[1]} min ${parts[2]} s` : `${parts[2]} s`;
    },
    wrap: (cell) => (cell !== null && typeof cell === "object" ? cell : { text: cell ?? "" }),
    // What can't be undone needs a second press on the same button.
    act(action, row) {
      const name = action.name + row.key;
      if (action.sure && this.asked !== name) {
        this.asked = name;
        setTimeout(() => this.asked === name && (this.asked = ""), CONFIRM_MS);
        return;
      }
      this.asked = "";
      this.pending = row.key;
      setTimeout(() => (this.pending = ""), PENDING_MS);
      this.$emit("action", action.name, row.key);
    },
  },
};
