// A table whose cells are text, links, badges or buttons. All text is shown as text, never as markup.

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
            <span v-if="cell.time">{{ clock(cell.time) }}</span>
            <a v-else-if="cell.href" :href="cell.href" :class="{ mono: cell.mono }" :rel="cell.outside ? 'noreferrer' : undefined">{{ cell.text }}</a>
            <span v-else-if="cell.tone" class="badge" :class="cell.tone">{{ cell.text }}</span>
            <span v-else>{{ cell.text }}</span>
            <small v-if="cell.note">{{ cell.note }}</small>
            <i v-if="cell.share !== undefined" class="meter" :style="{ width: cell.share + '%' }"></i>
            <details v-if="cell.more"><summary>{{ cell.summary }}</summary><pre>{{ cell.more }}</pre></details>
          </template>
        </template>
      </td></tr></tbody>
  </table>
  <div v-else class="empty small">{{ empty }}</div>`,
  props: { columns: Array, rows: Array, empty: String },
  emits: ["action"],
  data: () => ({ asked: "", pending: "" }),
  watch: {
    rows() {
      this.pending = "";
    },
  },
  methods: {
    clock(time) {
      const day = new Date(time);
      const today = day.toDateString() === new Date().toDateString();
      return (today ? "" : `${day.toLocaleDateString("en-CA")} `) + day.toLocaleTimeString("en-GB");
    },
    wrap: (cell) => (cell !== null && typeof cell === "object" ? cell : { text: cell ?? "" }),
    // What can't be undone needs a second press on the same button.
    act(action, row) {
      const name = action.name + row.key;
      if (action.sure && this.asked !== name) {
        this.asked = name;
        setTimeout(() => this.asked === name && (this.asked = ""), 4000);
        return;
      }
      this.asked = "";
      this.pending = row.key;
      setTimeout(() => (this.pending = ""), 3000);
      this.$emit("action", action.name, row.key);
    },
  },
};
