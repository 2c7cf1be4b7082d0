// A table is sorted by the column whose heading is chosen, by mouse or keyboard; a second time turns it.
function first(text) {
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;  // words and dashes come last
}
for (const heading of document.querySelectorAll("th")) {
  const sort = () => {
    const table = heading.closest("table"), column = heading.cellIndex;
    const down = heading.ariaSort === "ascending";
    const rows = [...table.rows].slice(1);
    for (const other of table.rows[0].cells) other.removeAttribute("aria-sort");
    heading.ariaSort = down ? "descending" : "ascending";
    const value = (row) => first(row.cells[column].textContent);
    rows.sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
    rows[0].parentNode.append(...rows);
  };
  heading.tabIndex = 0;
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
  });
}
