// Tables as text: commas or tabs, quotes as in RFC 4180.

/** The rows of `text`, at most so many. */
export function rows(text, separator, max) {
  const found = [];
  let [row, cell, quoted] = [[], "", false];
  const endCell = () => {
    row.push(cell);
    cell = "";
  };
  const endRow = () => {
    endCell();
    found.push(row);
    row = [];
  };
  for (let index = 0; index < text.length && found.length < max; index += 1) {
    const char = text[index];
    if (quoted) {
      if (char !== '"') cell += char;
      else if (text[index + 1] === '"') {
        cell += '"';
        index += 1;
      } else quoted = false;
    } else if (char === '"' && cell === "") quoted = true;
    else if (char === separator) endCell();
    else if (char === "\n") endRow();
    else if (char !== "\r") cell += char;
  }
  if (found.length < max && (cell || row.length)) endRow();
  return found;
}

/** The separator of a table by its file's name; nothing for what is none. */
export function separatorOf(name) {
  if (/\.csv$/i.test(name)) return ",";
  return /\.(tsv|tab)$/i.test(name) ? "\t" : null;
}
