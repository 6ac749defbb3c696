// Tables of class "sorts": a click on a column's name sorts by it, a second one the other way round; rows without a value stay
// last. Long tables get a field that keeps only the rows with what is typed there.
const MANY = 10;
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const sort = (column, up) => {
    const isNumber = rows.some((row) => typeof value(row, column) === "number");
    const isEmpty = (x) => x === "" || (isNumber && typeof x === "string");
    const sorted = [...body.rows].sort((a, b) => {
      const x = value(a, column), y = value(b, column);
      if (isEmpty(x) || isEmpty(y)) return isEmpty(x) - isEmpty(y);
      const order = isNumber ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return up ? order : -order;
    });
    body.append(...sorted);
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.onclick = () => {
      const was = head.getAttribute("aria-sort");
      sort(column, was ? was === "descending" : !head.classList.contains("figure"));
    };
    head.replaceChildren(button);
  });
  if (rows.length > MANY) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = `Search ${rows.length} rows`;
    field.setAttribute("aria-label", field.placeholder);
    field.oninput = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    };
    table.parentElement.before(field);
  }
}
