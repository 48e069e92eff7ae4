// A long list, read as far as it is looked at.
//
// The API gives pages and a token for the next. What it does not filter by is sifted here, from larger pages.

const SIFTED = 1_000;

export class Pager {
  #found = [];
  #next = "";
  #ended = false;

  /** `fetch(token, limit)` gives `{items, next}`; `wanted` sifts, if it is there. */
  constructor(fetch, size, wanted = null) {
    Object.assign(this, { fetch, size, wanted });
  }

  /** The items of page `number`, counted from 0, and whether there is another. */
  async page(number) {
    const end = (number + 1) * this.size;
    while (this.#found.length <= end && !this.#ended) {
      const { items, next } = await this.fetch(this.#next, this.wanted ? SIFTED : this.size);
      for (const item of items) if (!this.wanted || this.wanted(item)) this.#found.push(item);
      this.#next = next;
      this.#ended = !next;
    }
    return { items: this.#found.slice(end - this.size, end), more: this.#found.length > end || !this.#ended };
  }

  /** Puts this in the place of what it is a newer state of. */
  renew(item, key) {
    const index = this.#found.findIndex((known) => key(known) === key(item));
    if (index >= 0) this.#found[index] = item;
    return index >= 0;
  }
}
