// Search, filters, sorting and enlarged pictures: the script of all pages.
function startFilters(form) {
  const list = document.getElementById("pictures");
  const cards = [...list.querySelectorAll("article")];
  const facets = JSON.parse(document.getElementById("facets").textContent);
  const ids = new Set(cards.map((card) => card.dataset.id));
  const plain = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();
  const nothing = document.getElementById("nothing");
  let texts; // What the search looks through; read from the page at the first search.
  let sorted = "";

  const textOf = (card) => {
    const found = [...card.querySelectorAll(".text")].map((text) => text.textContent);
    return plain([card.dataset.id, ...found].join(" \n "));
  };

  // A facet is a list of values, one value, or true or false.
  const has = (facet, value) =>
    Array.isArray(facet) ? (value ? facet.includes(value) : facet.length > 0)
      : value ? String(facet) === value : Boolean(facet);

  function test(state) {
    const query = plain(state.get("search") ?? "");
    if (query && !ids.has(query)) texts ??= cards.map(textOf);
    const controls = [...form.elements].filter((one) => state.has(one.name));
    const boxes = controls.filter((one) => one.type === "checkbox");
    const selects = controls.filter((one) => one.tagName === "SELECT" && one.name !== "sort");
    const wanted = boxes.map((box) => [box.name, ""]).concat(selects.map((select) => {
      // A checked box may replace the facet that a list chooses from by its own.
      const box = boxes.find((one) => one.dataset.refines === select.name);
      return [box?.name ?? select.dataset.facet ?? select.name, state.get(select.name)];
    }));
    return (at) => wanted.every(([name, value]) => has(facets[at][name], value)) &&
      (!query || (ids.has(query) ? cards[at].dataset.id === query : texts[at].includes(query)));
  }

  // Missing values are last in either direction.
  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (typeof one === "number" && typeof other === "number" ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true }));
  }

  function sort(by) {
    if (by === sorted) return;
    sorted = by;
    const [sign, key] = by.startsWith("-") ? [-1, by.slice(1)] : [1, by];
    const order = cards.map((_, at) => at);
    if (key) order.sort((one, other) => compare(facets[one][key], facets[other][key], sign) || one - other);
    list.append(...order.map((at) => cards[at]), nothing);
  }

  function show() {
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const fits = test(state);
    let shown = 0;
    cards.forEach((card, at) => {
      const hidden = !fits(at);
      if (card.hidden !== hidden) card.hidden = hidden;
      shown += !hidden;
    });
    sort(state.get("sort") ?? "");
    document.getElementById("count").textContent = `${shown} of ${cards.length} pictures shown`;
    nothing.hidden = shown > 0;
    const object = state.get("object");
    document.getElementById("chosen").textContent = object
      ? `mark[data-object=${CSS.escape(object)}] { margin: 0 2px; outline: 1.5px solid; }`
      : "";
    return state;
  }

  function change() {
    const hash = show().toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    if (list.getBoundingClientRect().top < 0) list.scrollIntoView();
  }

  function restore() {
    form.reset();
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const control = form.querySelector(`[name=${CSS.escape(name)}]`);
      if (control?.type === "checkbox") control.checked = true;
      else if (control) control.value = value;
    }
    show();
  }

  const narrow = matchMedia("(max-width: 40rem)");
  const fold = () => { form.querySelector("details").open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("show-all").addEventListener("click", () => { form.reset(); change(); });
  addEventListener("hashchange", restore);
  fold();
  form.hidden = false;
  restore();
}

// The browser closes a modal dialog on Escape, and keeps the focus inside while it is open.
function startEnlarging(dialog) {
  let opener = null;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.enlarge");
    if (!button) return;
    const image = button.querySelector("img");
    const large = new Image();
    [large.src, large.alt] = [image.src, image.alt];
    dialog.querySelector("figure").replaceChildren(large);
    dialog.querySelector("span").textContent = image.alt;
    opener = button;
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("button, img")) dialog.close();
  });
  dialog.addEventListener("close", () => opener.focus());
  document.querySelectorAll("button.enlarge").forEach((button) => { button.disabled = false; });
}

const filters = document.getElementById("filters");
if (filters) startFilters(filters);
startEnlarging(document.getElementById("enlarged"));
