// The four charts, drawn by uPlot (MIT, see uPlot.LICENSE.txt). A point comes every second; see
// recorder.py.
"use strict";
const Charts = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const alpha = (name, share) => {
    const hex = colour(name).replace("#", "");
    const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgb(${r} ${g} ${b} / ${share})`;
  };
  const compact = (n) => {
    if (n == null) return "–";
    const size = Math.abs(n);
    if (size >= 1e9) return `${(n / 1e9).toFixed(1)} G`;
    if (size >= 1e6) return `${(n / 1e6).toFixed(1)} M`;
    if (size >= 1e4) return `${(n / 1e3).toFixed(size >= 1e5 ? 0 : 1)} k`;
    return n.toLocaleString("en", { maximumFractionDigits: size < 10 && n % 1 ? 1 : 0 });
  };
  const span = (s) => {
    if (s == null) return "–";
    if (s === 0) return "0 s";
    if (s < 0.001) return `${(s * 1000).toFixed(s < 0.0001 ? 2 : 1)} ms`;
    if (s < 0.0995) return `${(s * 1000).toFixed(s < 0.00995 ? 1 : 0)} ms`;
    if (s < 10) return `${s.toFixed(s < 1 ? 2 : 1)} s`;
    if (s < 90) return `${Math.round(s)} s`;
    if (s < 5400) return `${Math.round(s / 60)} min`;
    if (s < 129600) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} d`;
  };
  const percent = (s) => (s == null ? "–" : `${(s * 100).toFixed(s < 0.1 ? 1 : 0)} %`);

  // Each series: colour, label, value in a point. Stacked series are drawn on top of each other.
  const KINDS = {
    rate: { show: compact, stacked: true, series: [["written", "written", (p) => p[2]], ["duplicate", "duplicate", (p) => p[3]], ["quarantined", "quarantined", (p) => p[4]]] },
    lag: { show: span, log: true, series: [["quarantined", "p95", (p) => (p[8] == null ? null : Math.max(p[8], 0.001))], ["written", "p50", (p) => (p[7] == null ? null : Math.max(p[7], 0.001))]] },
    depth: { show: compact, series: [["receive", "waiting", (p) => p[10]], ["released", "held", (p) => p[9]], ["quarantined", "dead letters", (p) => p[12]]] },
    busy: { show: percent, stacked: true, series: ["decode", "mask", "write"].map((s) => [s, s, (p) => (p[13] || {})[s]]) },
  };
  const HEIGHT = 180;
  const made = {};
  let range = 300;

  const data = (kind, points) => {
    const { series, stacked } = KINDS[kind];
    const columns = [points.map((p) => p[0]), ...series.map(([, , of]) => points.map((p) => (p.length > 1 ? of(p) ?? null : null)))];
    const plain = columns.map((column) => column.slice());
    if (stacked) for (let i = columns.length - 2; i >= 1; i--) columns[i] = columns[i].map((v, j) => (v == null ? null : v + (columns[i + 1][j] ?? 0)));
    return [columns, plain];
  };

  const build = (kind, host, points) => {
    const { series, stacked, show, log } = KINDS[kind];
    const [columns, plain] = data(kind, points);
    const axis = { stroke: () => colour("soft"), grid: { stroke: () => colour("edge"), width: 1 }, ticks: { show: false }, font: "12px system-ui, 'DejaVu Sans', sans-serif" };
    const options = {
      width: host.clientWidth || 300, height: HEIGHT, pxAlign: 1,
      cursor: { y: false, points: { size: 7 }, sync: { key: "time" } },
      scales: { x: { time: true }, y: log
        ? { distr: 3, log: 10, range: (_u, min, max) => [Math.min(0.01, 10 ** Math.floor(Math.log10(Math.max(min || 0.01, 0.001)))), 10 ** Math.ceil(Math.log10(Math.max(max || 1, 0.1) * 1.01))] }
        : { range: (_u, _min, max) => [0, Math.max((max || 0) * 1.12, kind === "busy" ? 0.05 : 5)] } },
      axes: [{ ...axis, size: 30, space: 78, values: (_u, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(range <= 300 ? { second: "2-digit" } : {}) })) }, { ...axis, size: 58, values: (_u, ticks) => ticks.map((t) => (t == null ? "" : t === 0 ? "0" : show(t))) }],
      legend: { live: true },
      series: [{}, ...series.map(([name, label], index) => ({
        label, scale: "y", width: 1.8, spanGaps: kind === "lag", points: { show: false },
        stroke: () => colour(name),
        fill: stacked ? () => alpha(name, 0.24) : kind === "depth" && index === 0 ? () => alpha(name, 0.14) : undefined,
        value: (_u, _v, si, i) => show(i == null ? null : (made[kind]?.plain ?? plain)[si][i]),
      }))],
    };
    made[kind] = { plain, host };
    made[kind].plot = new uPlot(options, columns, host);
  };

  const update = (points) => {
    const last = points.length ? points[points.length - 1][0] : Date.now() / 1000;
    const first = points.length ? points[0][0] : last;
    for (const kind of Object.keys(KINDS)) {
      const host = document.getElementById(`chart-${kind}`);
      const fresh = !made[kind];
      if (fresh) build(kind, host, points);
      const [columns, plain] = data(kind, points);
      made[kind].plain = plain;
      const plot = made[kind].plot;
      plot.setData(columns, false);
      // The legend shows the moment under the cursor, else the last one that has a value.
      let shown = columns[0].length - 1;
      while (shown > 0 && plain[1][shown] == null) shown -= 1;
      const tell = () => plot.setLegend({ idx: plot.cursor.idx ?? shown }, false);
      tell();
      if (fresh) requestAnimationFrame(tell); // a new plot clears its legend once it is laid out
      // The data of a young pipeline fills the whole chart.
      plot.setScale("x", { min: Math.max(last - range, Math.min(first, last - 60)), max: last });
    }
  };
  const rebuild = (points) => {
    for (const kind of Object.keys(made)) { made[kind].plot.destroy(); delete made[kind]; }
    update(points);
  };
  let due = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(() => {
      for (const { plot, host } of Object.values(made)) plot.setSize({ width: host.clientWidth, height: HEIGHT });
    });
  });
  return { update, rebuild, compact, span, percent, setRange: (seconds) => { range = seconds; } };
})();
