// The page follows the server: every few seconds, while it is looked at, it asks for what is new. What the server has
// rendered is put in place as it is (it has been escaped there); nothing here makes HTML out of data.
"use strict";
(() => {
  const main = document.getElementById("main");
  const page = main.dataset.page;
  const $ = (id) => document.getElementById(id);
  const state = { number: 0, times: [], lines: new Map(), server: null, targets: {}, span: 900, paused: false, timer: 0, fails: 0,
    asked: main.dataset.q || "", at: main.dataset.at || "0", prints: new Map(), asking: null };
  const MOST = 720;

  // -- panels: the old tree becomes the new one in place, so that focus, selection and scrolling stay -------------------
  function become(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh.cloneNode(true));
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return undefined;
    }
    if (old.nodeType !== Node.ELEMENT_NODE || old.isEqualNode(fresh)) return undefined;
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    become.children(old, fresh);
    return undefined;
  }
  become.children = (old, fresh) => {
    const wanted = [...fresh.childNodes];
    while (old.childNodes.length > wanted.length) old.lastChild.remove();
    wanted.forEach((node, at) => {
      if (at < old.childNodes.length) become(old.childNodes[at], node);
      else old.append(node.cloneNode(true));
    });
  };

  const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit",
    hour12: false });
  const dated = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit",
    minute: "2-digit", hour12: false });

  function local(tree) {
    for (const time of tree.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      const format = Date.now() - moment < 43200000 ? exact : dated;
      time.textContent = format.format(moment);
      time.title = time.dateTime;
    }
  }

  function show(panels) {
    for (const [id, panel] of Object.entries(panels)) {
      state.prints.set(id, panel.print);
      const place = document.querySelector(`[data-panel="${CSS.escape(id)}"]`);
      if (!place) continue;
      const fresh = document.createElement(place.nodeName);
      fresh.innerHTML = panel.html;
      local(fresh);
      become.children(place, fresh);
    }
  }

  // -- numbers --------------------------------------------------------------------------------------------------------
  const key = (line) => line.endpoint + "\n" + line.variant;

  function take(told) {
    if (told.reset) {
      state.times = [];
      state.lines = new Map();
      state.server = null;
    }
    const before = state.times.length;
    state.times = [...state.times, ...told.times].slice(-MOST);
    state.server = joined(state.server, told.server, before);
    const lines = new Map();
    for (const line of told.lines) lines.set(key(line), joined(state.lines.get(key(line)), line, before));
    state.lines = lines;
    state.targets = told.targets;
    state.number = told.number;
  }

  function joined(old, fresh, before) {
    const made = {};
    for (const [name, values] of Object.entries(fresh)) {
      if (!Array.isArray(values)) made[name] = values;
      else made[name] = [...(old ? old[name] : new Array(before).fill(null)), ...values].slice(-MOST);
    }
    return made;
  }

  const charts = [...document.querySelectorAll("[data-chart]")].map((place) => new Charts.Chart(place));

  function draw(anew) {
    if (!state.server) return;
    const from = state.times.findIndex((time) => time >= state.times.at(-1) - state.span);
    const cut = (line) => Object.fromEntries(Object.entries(line).map(([name, values]) =>
      [name, Array.isArray(values) ? values.slice(from) : values]));
    const data = { times: state.times.slice(from), lines: [...state.lines.values()].map(cut), server: cut(state.server),
      targets: state.targets };
    for (const chart of charts) chart.draw(data, state.span, anew);
  }

  // -- asking ---------------------------------------------------------------------------------------------------------
  function tell(word, mood) {
    const live = $("live");
    if (live.textContent !== word) live.textContent = word;
    live.className = "live " + mood;
  }

  async function ask() {
    clearTimeout(state.timer);
    if (state.paused || document.hidden || !page) return;
    state.asking?.abort();
    const asking = state.asking = new AbortController();
    const query = new URLSearchParams({ since: state.number, q: state.asked, at: state.at });
    if (main.dataset.endpoint) query.set("endpoint", main.dataset.endpoint);
    query.set("have", [...state.prints].map(([id, print]) => id + ":" + print).join(","));
    let pause = 5;
    try {
      const answer = await fetch("/console?" + query, { signal: asking.signal, headers: { Accept: "application/vnd.serving.numbers" } });
      if (!answer.ok) throw new Error(answer.status === 400 ? "Gone" : answer.status === 403 ? "Not allowed" : "No answer");
      const told = await answer.json();
      take(told);
      show(told.panels);
      draw(false);
      for (const place of document.querySelectorAll("[data-follow]")) fetched(place, place.dataset.fetch);
      pause = told.next;
      state.fails = 0;
      tell("Live", "on");
      document.documentElement.dataset.live = "yes";
    } catch (error) {
      if (asking.signal.aborted) return;
      state.fails += 1;
      pause = Math.min(30, 2 ** state.fails);
      tell(error instanceof TypeError ? "No answer" : error.message, "off");
    }
    state.timer = setTimeout(ask, 1000 * pause + 200 * Math.random());
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  window.addEventListener("resize", () => draw(false));

  // -- pause, theme, time shown, search -------------------------------------------------------------------------------
  const pause = $("pause");
  if (page) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      state.paused = !state.paused;
      pause.setAttribute("aria-pressed", String(state.paused));
      if (state.paused) {
        clearTimeout(state.timer);
        tell("Paused", "");
      } else ask();
    });
  }

  const theme = $("theme");
  theme.hidden = false;
  const dark = () => document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const named = () => { theme.textContent = dark() ? "Light theme" : "Dark theme"; };
  named();
  theme.addEventListener("click", () => {
    const chosen = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem("serving-theme", chosen);
    } catch (error) {
      // storage is forbidden: the choice lasts as long as the page
    }
    named();
    draw(true);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { named(); draw(true); });

  if ($("spans")) {
    $("spans").hidden = false;
    $("spans").addEventListener("change", (event) => {
      state.span = Number(event.target.value);
      draw(true);
    });
  }

  const search = document.querySelector("form[role=search]");
  search?.addEventListener("submit", (event) => {
    event.preventDefault();
    state.asked = $("q").value.trim();
    state.at = "0";
    ask();
  });
  document.addEventListener("click", (event) => {
    const to = event.target.closest?.("a[data-at]");
    if (!to) return;
    event.preventDefault();
    state.at = to.dataset.at;
    ask();
  });

  // -- what is worked out on request: verdicts, shadow reports ---------------------------------------------------------
  async function fetched(place, url) {
    if (!place.hasAttribute("data-follow")) place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { headers: { Accept: "text/vnd.serving.part" } });
      const text = await answer.text();
      if (!answer.ok) throw new Error(JSON.parse(text).Message);
      const fresh = document.createElement("div");
      fresh.innerHTML = text;
      local(fresh);
      become.children(place, fresh);
    } catch (error) {
      place.textContent = error instanceof TypeError || !error.message ? "This could not be worked out now." : error.message;
    }
    place.removeAttribute("aria-busy");
  }
  for (const place of document.querySelectorAll("[data-fetch]")) fetched(place, place.dataset.fetch);
  for (const by of document.querySelectorAll("form[data-fetches]")) {
    by.addEventListener("submit", (event) => {
      event.preventDefault();
      fetched($(by.dataset.fetches), by.action + "?" + new URLSearchParams(new FormData(by)));
    });
  }

  // -- trying an endpoint ---------------------------------------------------------------------------------------------
  const form = $("try-form");
  const LONGEST = 65536;

  function element(tag, text, kind) {
    const made = document.createElement(tag);
    if (text != null) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function headers(fields) {
    const given = { "Content-Type": fields.get("type"), "X-Serving-Timing": "1" };
    const names = { accept: "Accept", model: "X-Amzn-SageMaker-Target-Model",
      variant: "X-Amzn-SageMaker-Target-Variant", component: "X-Amzn-SageMaker-Inference-Component" };
    for (const [field, name] of Object.entries(names)) if (fields.get(field)) given[name] = fields.get(field);
    return given;
  }

  async function sent() {
    const fields = new FormData(form);
    const file = fields.get("file");
    const body = file && file.size ? file : fields.get("body");
    const path = "/endpoints/" + encodeURIComponent(main.dataset.endpoint);
    const began = performance.now();
    const later = form.dataset.later;
    let answer = await fetch(path + (later ? "/async-invocations" : "/invocations"),
      { method: "POST", body, headers: headers(fields) });
    if (later && answer.status === 202) {
      const place = answer.headers.get("Location");
      $("try-answer").replaceChildren(element("p", "Accepted; the answer comes later.", "note"));
      const ended = await (await fetch(place + "?wait=30")).json();
      if (["Completed", "Failed"].includes(ended.Status)) answer = await fetch(place + "/output");
      else throw new Error("It is still " + ended.Status + "; ask for " + place + " later.");
    }
    return { answer, bytes: new Uint8Array(await answer.arrayBuffer()), took: performance.now() - began };
  }

  function readable(type, bytes) {
    if (!/json|csv|text|xml|jsonl/i.test(type)) return null;
    const text = new TextDecoder().decode(bytes.subarray(0, LONGEST));
    if (!/json/i.test(type) || /jsonl/i.test(type) || bytes.length > LONGEST) return text;
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch (error) {
      return text;
    }
  }

  function told({ answer, bytes, took }) {
    const type = answer.headers.get("content-type") || "";
    const head = element("h3");
    head.append(element("span", answer.status + " " + (answer.ok ? "OK" : answer.headers.get("x-amzn-errortype") || "failed"),
      "badge " + (answer.ok ? "good" : "bad")));
    head.append(element("span", "in " + Charts.milliseconds(took) + ", " + bytes.length + " bytes, " + type, "note"));
    const made = [head];
    const steps = element("ul", null, "steps");
    const variant = answer.headers.get("x-amzn-invoked-production-variant");
    if (variant) steps.append(element("li", "variant " + variant));
    for (const [, step, value] of (answer.headers.get("x-serving-timing") || "").matchAll(/(\w+)=(\d+)/g)) {
      if (step === "batch") { if (value !== "1") steps.append(element("li", "batch of " + value)); }
      else if (step === "hit") { if (value !== "1") steps.append(element("li", "model was not in memory")); }
      else if (value !== "0") steps.append(element("li", step + " " + Charts.milliseconds(value / 1000)));
    }
    steps.append(element("li", "request " + answer.headers.get("x-amzn-requestid")));
    made.push(steps);
    const text = readable(type, bytes);
    made.push(text == null ? element("p", "The body is not text.", "note") : element("pre", text));
    if (text != null && bytes.length > LONGEST) made.push(element("p", "Cut after 64 kB.", "note"));
    return made;
  }

  if (form) {
    form.hidden = false;
    const button = form.querySelector("button");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        $("try-answer").replaceChildren(...told(await sent()));
      } catch (error) {
        $("try-answer").replaceChildren(element("p", error.message || "The server does not answer.", "bad"));
      } finally {
        button.disabled = false;
        $("try-answer").focus();
      }
    });
    $("try-body").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  local(document);
  ask();
})();
