"use strict";
// Sorts and filters a table that reads well without: the rows are all in the page.
(() => {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row) => ({
    row,
    text: ["Team", "Model"].map((name) => of(row, name)).join(" ").toLowerCase(),
    tier: Number(row.dataset.tier),
    reference: row.classList.contains("reference"),
    values: [...row.cells].map((cell) => cell.dataset.value),
  }));
  const controls = document.querySelector(".controls");
  const [find, tier, sort, turn, references] = ["find", "tier", "sort", "turn", "references"].map(
    (id) => document.getElementById(id),
  );
  const count = controls.querySelector(".count");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  let by = 0;
  let down = false;

  function of(row, name) {
    return row.querySelector(`[data-name="${name}"]`)?.textContent ?? "";
  }

  // Numbers are better high or low by column: the first turn shows the better end.
  const highFirst = (column) => heads[column].classList.contains("high");

  function compare(a, b) {
    const [one, other] = [a.values[by], b.values[by]];
    if (one === other) return 0;
    if (one === "") return 1; // unknown ones come last in both directions
    if (other === "") return -1;
    const numeric = heads[by].classList.contains("number");
    const order = numeric ? Number(one) - Number(other) : collator.compare(one, other);
    return down ? -order : order;
  }

  function arrange(column, descending) {
    by = column;
    down = descending;
    rows.sort(compare);
    body.append(...rows.map((one) => one.row));
    heads.forEach((head, number) => {
      if (number === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    sort.value = String(by);
    tell();
  }

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of rows) {
      one.row.hidden = one.reference
        ? !references.checked
        : one.tier < Number(tier.value) || !words.every((word) => one.text.includes(word));
    }
    tell();
  }

  function tell() {
    const all = rows.filter((one) => !one.reference);
    const shown = all.filter((one) => !one.row.hidden).length;
    const order = `sorted by ${heads[by].textContent.toLowerCase()}, ${down ? "descending" : "ascending"}`;
    count.textContent = `${shown} of ${all.length} submissions, ${order}`;
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () =>
      arrange(column, column === by ? !down : highFirst(column)),
    );
  });
  find.addEventListener("input", filter);
  tier.addEventListener("change", filter);
  references.addEventListener("change", filter);
  sort.addEventListener("change", () => {
    const column = Number(sort.value);
    arrange(column, highFirst(column));
  });
  turn.addEventListener("click", () => arrange(by, !down));
  controls.hidden = false;
  filter();
})();
