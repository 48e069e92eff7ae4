// Tables that change while they are read: rows are kept by their key, so that focus and selection stay where they are.
//
// Where there is no room for columns a row becomes a card (see parts.css). The roles say what that display takes away.

import { h, put } from "./element.js";

export class Table {
  #columns;
  #key;
  #rows = [];
  #most = Infinity;
  #order = null;
  #known = new Map();
  #body = h("tbody", { role: "rowgroup" });

  /**
   * `columns`: `{head, cell(row), kind?, order?(row)}`, where `kind` is a class and `order` makes the column sortable.
   * `empty` is what stands there without rows.
   */
  constructor({ caption, columns, key, empty, order = null, reverse = false }) {
    this.#columns = columns;
    this.#key = key;
    this.empty = empty;
    if (order !== null) this.#order = { column: columns[order], reverse };
    this.heads = columns.map((column) => this.#head(column));
    this.table = h(
      "table",
      { role: "table" },
      h("caption", { class: "heard" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)),
      this.#body,
    );
    this.element = h("div", { class: "table" }, this.table);
    this.#mark();
  }

  #head(column) {
    const attributes = { role: "columnheader", scope: "col", class: column.kind };
    if (!column.order) return h("th", attributes, column.head);
    const sort = () => {
      const reverse = this.#order?.column === column ? !this.#order.reverse : column.kind === "number";
      this.#order = { column, reverse };
      this.#mark();
      this.update(this.#rows, this.#most);
    };
    return h("th", attributes, h("button", { type: "button", class: "sort", onclick: sort }, column.head));
  }

  #mark() {
    this.#columns.forEach((column, index) => {
      if (!column.order) return;
      const sorted = this.#order?.column === column ? (this.#order.reverse ? "descending" : "ascending") : "none";
      this.heads[index].setAttribute("aria-sort", sorted);
    });
  }

  /** Shows these rows, in the table's order and the first `most` of them. Those that are as they were are not touched. */
  update(rows, most = Infinity) {
    [this.#rows, this.#most] = [rows, most];
    if (rows.length === 0 && this.empty) {
      this.#known.clear();
      put(this.#body);
      put(this.element, this.empty);
      return;
    }
    if (this.table.parentNode !== this.element) put(this.element, this.table);
    const known = new Map();
    let before = null;
    for (const row of this.#sorted(rows).slice(0, most)) {
      const key = this.#key(row);
      const seen = JSON.stringify(row);
      let kept = this.#known.get(key);
      if (!kept) kept = { seen, line: h("tr", { role: "row" }, this.#cells(row)) };
      else if (kept.seen !== seen) this.#renew(kept, row, seen);
      known.set(key, kept);
      const place = before ? before.nextSibling : this.#body.firstChild;
      if (place !== kept.line) this.#body.insertBefore(kept.line, place);
      before = kept.line;
    }
    for (const [key, { line }] of this.#known) if (!known.has(key)) line.remove();
    this.#known = known;
  }

  #sorted(rows) {
    if (!this.#order) return rows;
    const { column, reverse } = this.#order;
    const sign = reverse ? -1 : 1;
    const compare = (left, right) => (typeof left === "string" ? left.localeCompare(right) : left - right);
    return [...rows].sort((left, right) => sign * compare(column.order(left), column.order(right)));
  }

  #renew(kept, row, seen) {
    kept.seen = seen;
    const focusable = "a, button, input, select";
    const at = [...kept.line.querySelectorAll(focusable)].indexOf(document.activeElement);
    put(kept.line, this.#cells(row));
    if (at >= 0) kept.line.querySelectorAll(focusable)[at]?.focus();
  }

  #cells(row) {
    return this.#columns.map(({ head, cell, kind }) =>
      h("td", { role: "cell", class: kind, "data-head": head }, h("div", {}, cell(row))),
    );
  }
}
