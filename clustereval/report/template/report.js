"use strict";
// Draws the figures and browses the answers. Text from the run only ever goes through textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  }

  // -- theme ------------------------------------------------------------------------------
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const printing = window.matchMedia("print");
  const chosen = () => root.dataset.theme;
  const isDark = () => !printing.matches && (chosen() ? chosen() === "dark" : system.matches);
  // A page opened from a file may have no storage; the choice then lasts as long as the page.
  function stored(value) {
    try {
      if (value === undefined) return localStorage.getItem("clustereval-theme");
      localStorage.setItem("clustereval-theme", value);
    } catch { /* no storage */ }
    return null;
  }
  function setTheme(value) {
    if (value === "light" || value === "dark") root.dataset.theme = value;
    else delete root.dataset.theme;
    redraw();
  }

  // -- figures ----------------------------------------------------------------------------
  const darkOf = new Map(data.palette.map(([light, dark]) => [light, dark]));
  function themed(value) {
    if (!isDark()) return structuredClone(value);
    const walk = (item) => {
      if (Array.isArray(item)) return item.map(walk);
      if (item && typeof item === "object") {
        return Object.fromEntries(Object.entries(item).map(([key, inner]) => [key, walk(inner)]));
      }
      if (typeof item !== "string") return item;
      return darkOf.get(item) ?? item.replace(/color:(#[0-9a-f]{6})/g,
        (whole, light) => `color:${darkOf.get(light) ?? light}`);
    };
    return walk(value);
  }
  const drawn = new Set();
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  function draw(node) {
    const figure = data.figures[node.dataset.figure];
    if (!figure || typeof Plotly === "undefined") return;
    const { data: traces, layout } = themed(figure);
    drawn.add(node);
    Plotly.react(node, traces, layout, config);
  }
  function redraw() { for (const node of drawn) draw(node); }
  const plots = [...document.querySelectorAll("[data-figure]")];
  function drawRest() { for (const node of plots) if (!drawn.has(node)) draw(node); }
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const node of plots) {
    node.querySelector("noscript")?.remove();
    seen.observe(node);
  }
  // The first screen paints before anything below it is drawn; print needs all of it.
  window.addEventListener("load", () => (window.requestIdleCallback ?? setTimeout)(drawRest));
  window.addEventListener("beforeprint", () => { drawRest(); redraw(); });
  window.addEventListener("afterprint", redraw);
  system.addEventListener("change", redraw);

  const theme = document.querySelector(".theme");
  theme.hidden = false;
  const saved = stored();
  if (saved === "light" || saved === "dark") {
    theme.querySelector(`[value="${saved}"]`).checked = true;
    setTheme(saved);
  }
  theme.addEventListener("change", (event) => {
    stored(event.target.value);
    setTheme(event.target.value);
  });

  // -- answers ----------------------------------------------------------------------------
  const { items, prompts, left_out: leftOut } = data.examples;
  if (!items.length) return;
  const byId = new Map(items.map((item) => [item.id, item]));
  const PAGE = 40;
  let shown = PAGE;
  let current = null;

  const filters = [
    ["check", "Check", (item) => item.checks, (name) => data.titles[name] ?? name],
    ["outcome", "Outcome", (item) => [item.outcome]],
    ["replica", "Replica", (item) => [item.replica_id]],
    ["saturation", "Saturation", (item) => [item.saturation_bucket]],
    ["cache", "Cache hit", (item) => [item.cache_bucket]],
    ["pattern", "Traffic", (item) => [item.traffic_pattern]],
    ["tenant", "Tenant", (item) => [item.tenant]],
    ["rubric", "Rubric below 1", (item) => item.scores
      .filter(([, , value]) => value !== null && value < 1).map(([name]) => name)],
  ];
  const picked = new Map();
  const form = $("filters");
  for (const [key, label, of, say = (name) => name] of filters) {
    const options = [...new Set(items.flatMap(of).filter((name) => name !== null))].sort();
    if (options.length < (key === "rubric" || key === "check" ? 1 : 2)) continue;
    const wrapper = make("label", "", label);
    const select = make("select");
    select.name = key;
    select.append(new Option("all", ""));
    for (const name of options) select.append(new Option(say(name), name));
    select.addEventListener("change", () => {
      picked.set(key, select.value);
      shown = PAGE;
      list();
    });
    wrapper.append(select);
    form.append(wrapper);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = form.childElementCount === 0;
  $("browser").hidden = false;

  const matching = () => items.filter((item) => filters.every(([key, , of]) =>
    !picked.get(key) || of(item).includes(picked.get(key))));

  function list() {
    const rows = matching();
    $("list").replaceChildren(...rows.slice(0, shown).map((item) => {
      const button = make("button");
      button.type = "button";
      button.dataset.request = item.id;
      if (item.id === current) button.setAttribute("aria-current", "true");
      const first = make("span", "l1");
      first.append(make("span", "", item.name), make("span", "", outcomeOf(item)));
      button.append(first, make("span", "l2", summaryOf(item)));
      button.addEventListener("click", () => { location.hash = `request=${encodeURIComponent(item.id)}`; });
      const entry = make("li");
      entry.append(button);
      return entry;
    }));
    $("more").hidden = rows.length <= shown;
    const more = leftOut ? ` ${leftOut} more are in requests.parquet.` : "";
    $("count").textContent = rows.length ? `${rows.length} of ${items.length}.${more}` : "None of the answers matches.";
  }
  const outcomeOf = (item) => {
    if (item.outcome !== "ok") return `✗ ${item.error.split(" · ")[0] || item.outcome}`;
    const low = item.scores.filter(([, , value]) => value !== null).sort((a, b) => a[2] - b[2])[0];
    return low ? `${low[0]} ${low[2].toFixed(2)}` : "not scored";
  };
  const summaryOf = (item) => [item.replica_id, item.saturation_bucket, item.tenant,
    ...item.checks.map((name) => data.titles[name] ?? name)].filter(Boolean).join(" · ") || item.phase;
  $("more").addEventListener("click", () => { shown += PAGE; list(); });

  const time = (value) => value === null ? "–"
    : value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toFixed(2)} s`;
  const plain = (value) => value === null ? "–" : String(value);
  const share = (value) => value === null ? "–" : `${(value * 100).toFixed(0)}%`;

  // `code` in backticks, as everywhere on the page.
  function prose(text) {
    const box = make("p", "why");
    const parts = text.split("`");
    if (parts.length % 2 === 0) box.append(text);
    else parts.forEach((part, index) => box.append(index % 2 ? make("code", "", part) : part));
    return box;
  }

  function textBox(runs, why) {
    if (!runs) return make("p", "text none", why);
    const box = make("pre", "text");
    box.tabIndex = 0;
    for (const [mark, text] of runs) {
      if (mark === "=") box.append(text);
      else box.append(make(mark === "-" ? "del" : "ins", "", text));
    }
    return box;
  }

  function detail(item) {
    const article = $("detail");
    article.replaceChildren();
    article.append(make("h3", "", item.name), prose(item.why));
    const texts = make("div", "texts");
    const left = make("div");
    const heading = make("h4", "", "Idle answer ");
    if (item.idleFrom) heading.append(make("small", "", `from ${item.idleFrom}`));
    left.append(heading, textBox(item.idle, "No idle answer to this prompt was recorded."));
    const right = make("div");
    const mine = make("h4", "", item.role === "baseline" ? "This answer (idle too) " : "This answer, under load ");
    if (item.replica_id) mine.append(make("small", "", `from ${item.replica_id}`));
    right.append(mine, textBox(item.answer, item.error ? `No answer: ${item.error}` : "No text arrived."));
    texts.append(left, right);
    article.append(texts);
    if (item.answer && item.error) article.append(make("p", "gap", item.error));
    article.append(promptBox(item), scoreBox(item), metaBox(item));
    article.setAttribute("aria-label", `Request ${item.name}`);
  }
  function promptBox(item) {
    const prompt = prompts[item.prompt];
    const box = make("details", "prompt");
    box.append(make("summary", "", `Prompt ${item.prompt}${item.family ? ` (${item.family})` : ""}`));
    if (!prompt) {
      box.append(make("p", "gap", "The prompt is not among this run's files."));
      return box;
    }
    if (prompt.earlier) box.append(make("p", "muted", `${prompt.earlier} earlier messages left out`));
    for (const [role, text] of prompt.messages) {
      box.append(make("p", "role", role), make("pre", "text", text));
    }
    if (prompt.reference) box.append(make("p", "role", "reference"), make("pre", "text", prompt.reference));
    return box;
  }
  function scoreBox(item) {
    if (!item.scores.length) return make("p", "muted", "Not scored.");
    const wrapper = make("div", "scroll");
    const table = make("table");
    const head = make("tr");
    for (const [index, name] of ["rubric", "score", "why"].entries()) {
      const cell = make("th", index === 1 ? "num" : "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = make("tbody");
    for (const [name, status, value, reason] of item.scores) {
      const row = make("tr");
      const first = make("th", "", name);
      first.scope = "row";
      row.append(first, make("td", "num", value === null ? status : value.toFixed(2)), make("td", "", reason ?? ""));
      body.append(row);
    }
    const top = make("thead");
    top.append(head);
    table.append(top, body);
    wrapper.append(table);
    return wrapper;
  }
  function metaBox(item) {
    const box = make("dl", "meta");
    const pairs = [
      ["outcome", item.cancelled ? `${item.outcome}, the client hung up` : item.outcome], ["finish reason", plain(item.finish_reason)],
      ["TTFT from due", time(item.ttft_due_s)], ["E2E from due", time(item.e2e_due_s)],
      ["due at", `${item.due_s.toFixed(1)} s`], ["phase", item.phase], ["tenant", plain(item.tenant)],
      ["traffic", plain(item.traffic_pattern)], ["replica", plain(item.replica_id)],
      ["router's wait", time(item.router_wait_s)], ["engine's queue", time(item.engine_queue_s)],
      ["prefill", time(item.engine_prefill_s)], ["queue depth met", plain(item.queue_depth)], ["in the deployment", plain(item.cluster_queue_depth)],
      ["replicas running", plain(item.replica_count)], ["replica's age", time(item.replica_age_s)],
      ["saturation", item.saturation === null ? "–" : `${item.saturation.toFixed(1)} (${item.saturation_bucket})`],
      ["cache hit", item.cache_hit_ratio === null ? "–" : `${share(item.cache_hit_ratio)} (${item.cache_bucket})`],
      ["KV cache in use", share(item.kv_cache_usage)],
      ["tokens in / out", `${plain(item.prompt_tokens)} / ${plain(item.output_tokens)}`], ["node", plain(item.node_id)],
    ];
    for (const [name, value] of pairs) {
      const cell = make("div");
      cell.append(make("dt", "", name), make("dd", "", value));
      box.append(cell);
    }
    const trace = make("div", "wide");
    trace.append(make("dt", "", "trace id"), make("dd", "", plain(item.trace_id)));
    box.append(trace);
    return box;
  }

  function wanted() {
    const match = /^#request=(.*)$/.exec(location.hash);
    if (!match) return null;
    try { return decodeURIComponent(match[1]); } catch { return null; }
  }
  function open(id, scroll) {
    const item = byId.get(id);
    if (!item) {
      $("detail").replaceChildren(make("p", "gap", `Request ${id.replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd")} is not among the answers shown here; look it up in requests.parquet.`));
      current = null;
    } else {
      current = id;
      const place = matching().indexOf(item);
      if (place >= shown) shown = place + 1;
      detail(item);
    }
    list();
    if (scroll) {
      $("answers").scrollIntoView({ behavior: "instant" });
      $("detail").focus({ preventScroll: true });
    }
  }
  window.addEventListener("hashchange", () => {
    const id = wanted();
    if (id === null) return;
    const inside = $("browser").contains(document.activeElement);
    open(id, !inside);
    if (inside) $("list").querySelector('[aria-current="true"]')?.focus();
  });
  const first = wanted();
  open(first ?? items[0].id, first !== null);
})();
