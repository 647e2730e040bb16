// The charts: uPlot on what /console/data tells. Each kind says which lines it draws; all share one time axis.
"use strict";
const Charts = (() => {
  const HUES = 8;
  const STEPS = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const three = (x) => (Math.abs(x) < 10 ? x.toFixed(2) : Math.abs(x) < 100 ? x.toFixed(1) : x.toFixed(0))
    .replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  const number = (x) => {
    if (x == null) return "–";
    for (const [step, sign] of STEPS) if (Math.abs(x) >= step) return three(x / step) + sign;
    return three(x);
  };
  const milliseconds = (x) => x == null ? "–" : x < 1 ? three(x * 1000) + " µs" : x < 1000 ? three(x) + " ms"
    : three(x / 1000) + " s";
  const bytes = (x) => {
    if (x == null) return "–";
    for (const [step, sign] of STEPS) if (Math.abs(x) >= step) return three(x / step) + " " + sign + "B";
    return x.toFixed(0) + " B";
  };
  const rate = (x) => x == null ? "–" : number(x) + "/s";
  const sum = (a, b) => a.map((x, at) => x == null && b[at] == null ? null : (x || 0) + (b[at] || 0));
  const part = (line) => line.variant.includes("/");
  const variants = (data) => data.lines.filter((line) => line.variant && !part(line));
  const crews = (data) => data.lines.filter((line) => line.variant && line.ready.some((x) => x));
  const own_name = (line) => line.variant + (line.shadow ? " (shadow)" : "");
  const name = (line, many) => many ? line.endpoint + " · " + own_name(line) : own_name(line);
  const own = (data) => data.lines.find((line) => !line.variant);
  const many = (data) => new Set(data.lines.map((line) => line.endpoint)).size > 1;
  const quiet = (line) => line.values.every((x) => !x);

  // kind -> how numbers are written, and the lines: {name, values, hue, dash, fill, bars}
  const KINDS = {
    traffic: { format: rate, lines: (d) => variants(d).map((one, at) => ({ name: name(one, many(d)), values: one.calls,
      hue: at, fill: variants(d).length < 4 })) },
    latency: { format: milliseconds, log: true, lines: (d) => [{ name: "p50", values: d.server.p50, hue: 0 },
      { name: "p99", values: d.server.p99, hue: 1 }] },
    errors: { format: rate, lines: (d) => [{ name: "4xx", values: d.server.errors_4xx, hue: 1 },
      { name: "5xx", values: d.server.errors_5xx, hue: 6 }, { name: "refused", values: d.server.rejected, hue: 7 }] },
    workers: { format: number, whole: true, lines: (d) => [{ name: "ready", values: d.server.ready, hue: 2, fill: true, stepped: true },
      { name: "all", values: d.server.workers, hue: 7, dash: true, stepped: true }] },
    cache: { format: bytes, lines: (d) => [{ name: "in memory", values: d.server.model_bytes, hue: 0, fill: true },
      { name: "evictions", values: d.server.evictions, hue: 1, bars: true, format: number }] },
    backlog: { format: number, whole: true, lines: (d) => [{ name: "waiting or running", values: d.server.backlog, hue: 4, fill: true }] },
    flight: { format: number, whole: true, lines: (d) => [{ name: "in flight", values: d.server.concurrent, hue: 2, fill: true }] },
    flights: { format: number, whole: true, lines: (d) => variants(d).map((one, at) => ({ name: one.variant,
      values: one.concurrent, hue: at })) },
    latencies: { format: milliseconds, log: true, lines: (d) => variants(d).flatMap((one, at) => [
      { name: one.variant + " p50", values: one.p50, hue: at }, { name: one.variant + " p99", values: one.p99, hue: at,
        dash: true }]) },
    failures: { format: rate, lines: (d) => variants(d).map((one, at) => ({ name: one.variant, hue: at,
      values: sum(one.errors_4xx, one.errors_5xx) })) },
    crew: { format: number, whole: true, lines: (d) => crews(d).flatMap((one, at) => [{ name: one.variant, values: one.ready,
      hue: at, stepped: true }, { name: one.variant + " wanted", values: one.desired, hue: at, dash: true, stepped: true,
      same: one.desired.every((x, n) => x === one.ready[n]) }]).filter((line) => !line.same) },
    load: { format: number, lines: (d) => crews(d).filter((one) => one.variant in d.targets).flatMap((one, at) => [
      { name: one.variant, hue: at, values: one.calls.map((x, n) => x == null || !one.ready[n] ? null : 60 * x / one.ready[n]) },
      { name: one.variant + " target", hue: at, dash: true, values: one.calls.map(() => d.targets[one.variant]) }]) },
    memory: { format: bytes, lines: (d) => crews(d).flatMap((one, at) => [{ name: one.variant, values: one.model_bytes,
      hue: at, fill: true }, { name: one.variant + " evictions", values: one.evictions, hue: at + 3, bars: true,
      format: number }]).filter((line) => !line.bars || !quiet(line)) },
    queue: { format: number, whole: true, lines: (d) => own(d) ? [{ name: "waiting or running", values: own(d).backlog, hue: 4,
      fill: true }] : [] },
  };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clear = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
  const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit",
    hour12: false });

  function series(line, kind) {
    const stroke = colour("--s" + (line.hue % HUES + 1));
    const format = line.format || kind.format;
    return {
      label: line.name, scale: line.bars ? "bars" : "y", stroke, width: line.bars ? 0 : 1.75,
      dash: line.dash ? [5, 4] : undefined, fill: line.bars ? clear(stroke, 0.55) : line.fill ? clear(stroke, 0.12) : undefined,
      paths: line.bars ? uPlot.paths.bars({ size: [0.7, 8] }) : line.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: false }, value: (u, x) => format(x == null ? lately(u, line.index) : x),
    };
  }

  // With no pointer over the chart its legend tells the newest value.
  function lately(u, index) {
    const values = u.data[index];
    return values && values.length ? values[values.length - 1] : null;
  }

  function options(kind, lines, width, span) {
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--soft"), font: "12px system-ui, sans-serif", grid, ticks: { show: false } };
    const right = lines.some((line) => line.bars);
    const tens = (u, at, min, max) => Array.from({ length: 12 }, (_, n) => 10 ** (n - 4)).filter((x) => x >= min * 0.999 && x <= max * 1.001);
    const outside = (u, at) => at < 26 || at > u.bbox.width / devicePixelRatio - 14;
    const moments = (u, list, at, space, step) => list.map((x) => outside(u, u.valToPos(x, "x")) ? "" : (step < 60 ? exact : clock).format(x * 1000));
    const font = (u, list) => list.map((x) => x == null ? "" : kind.format(x));
    const now = Date.now() / 1000;
    return {
      width, height: 170, legend: { live: true, markers: { fill: (u, at) => u.series[at].stroke(u, at), width: 0 } }, cursor: { y: false, sync: { key: "console" }, points: { size: 7 } },
      padding: [8, right ? 0 : 12, 0, 0],
      scales: { x: { time: true, range: (u, min, max) => [Math.max((max || now) - span, Math.min(min || now, (max || now) - 60)), max || now] },
        y: kind.log ? { distr: 3, range: (u, min, max) => uPlot.rangeLog(Math.min(min || 0.1, 0.1), Math.max(max || 10, 10), 10, false) }
          : { range: (u, min, max) => [0, max > 0 ? max * 1.12 : 1] },
        bars: { range: (u, min, max) => [0, Math.max(4, max * 2.5)] } },
      axes: [{ ...axis, space: (u, at, min, max) => (max - min > 240 ? 44 : 64), size: 26, values: moments, grid: { show: false } },
        { ...axis, size: 62, space: 36, values: font, splits: kind.log ? tens : undefined, incrs: kind.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000, 100000] : undefined },
        ...(right ? [{ ...axis, scale: "bars", side: 1, size: 34, space: 36, grid: { show: false },
          incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], values: (u, list) => list.map(number) }] : [])],
      series: [{ value: (u, x) => x == null ? "" : exact.format(x * 1000), label: "" },
        ...lines.map((line) => series(line, kind))],
    };
  }

  function table(kind, lines, times) {
    const body = document.createElement("tbody");
    for (const line of lines) {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = line.name;
      row.append(head);
      const known = line.values.filter((x) => x != null);
      const format = line.format || kind.format;
      for (const value of [known.at(-1), Math.min(...known), Math.max(...known)]) {
        const cell = row.insertCell();
        cell.className = "n";
        cell.textContent = known.length ? format(value) : "–";
      }
    }
    return body;
  }

  class Chart {
    constructor(place) {
      this.place = place;
      this.kind = KINDS[place.dataset.chart];
      this.plot = null;
      this.shape = "";
      const details = document.createElement("details");
      const title = place.closest("figure").querySelector("h3").textContent;
      details.innerHTML = "<summary>In numbers</summary><table><caption class=\"unseen\"></caption><thead><tr>" +
        "<th scope=\"col\">Line</th><th scope=\"col\" class=\"n\">Newest</th><th scope=\"col\" class=\"n\">Least</th>" +
        "<th scope=\"col\" class=\"n\">Most</th></tr></thead></table>";
      details.querySelector("caption").textContent = title + " over the time shown";
      details.addEventListener("toggle", () => this.tell());
      place.after(details);
      this.details = details;
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", title + ", drawn; the same stands in numbers below");
    }

    draw(data, span, anew) {
      const lines = this.kind.lines(data);
      lines.forEach((line, at) => { line.index = at + 1; });
      this.lines = lines;
      this.times = data.times;
      const width = Math.max(200, Math.floor(this.place.clientWidth));
      const shape = JSON.stringify([lines.map((line) => [line.name, line.hue]), span]);
      if (!data.times.length || !lines.length) this.nothing();
      else if (anew || !this.plot || this.shape !== shape) this.make(lines, width, span);
      else {
        if (this.plot.width !== width) this.plot.setSize({ width, height: 170 });
        this.plot.setData([data.times, ...lines.map((line) => line.values)]);
      }
      this.shape = shape;
      this.tell();
    }

    make(lines, width, span) {
      if (this.plot) this.plot.destroy();
      this.place.replaceChildren();
      this.plot = new uPlot(options(this.kind, lines, width, span), [this.times, ...lines.map((line) => line.values)],
        this.place);
      this.place.dataset.drawn = "yes";
    }

    nothing() {
      if (this.plot) this.plot.destroy();
      this.plot = null;
      const said = document.createElement("p");
      said.className = "none";
      said.textContent = "Nothing to draw yet; a new point comes every few seconds.";
      this.place.replaceChildren(said);
    }

    tell() {
      if (!this.details.open || !this.lines) return;
      const table_ = this.details.querySelector("table");
      table_.querySelector("tbody")?.remove();
      table_.append(table(this.kind, this.lines, this.times));
    }
  }
  return { Chart, milliseconds, number };
})();
