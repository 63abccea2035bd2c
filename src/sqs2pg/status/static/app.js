// Shows what /events sends. Writes text with textContent only. Keeps its data while a pipeline
// restarts. A point has the fields of Point in recorder.py, in the same order.
"use strict";
(() => {
  const { compact, span, percent } = Charts;
  const KEPT = 1800;
  // One of several pipelines has its page below /pipelines/.
  const base = location.pathname.startsWith("/pipelines/") ? location.pathname.replace(/\/$/, "") : "";
  let every = 1;  // seconds between two moments
  const id = (name) => document.getElementById(name);
  const full = (n) => (n == null ? "–" : Math.round(n).toLocaleString("en"));
  let points = [], snapshot = null, heard = 0, opened = false, faultsSeen = [];

  const put = (name, text) => { const node = id(name); if (node && node.textContent !== text) node.textContent = text; };
  const make = (tag, text, cls) => { const node = document.createElement(tag); if (text != null) node.textContent = text; if (cls) node.className = cls; return node; };
  const mean = (place, seconds = 5) => {
    const last = points.length && points[points.length - 1][0];
    const some = points.filter((p) => p.length > 1 && p[0] > last - seconds);
    return some.length ? some.reduce((sum, p) => sum + (p[place] ?? 0), 0) / some.length : 0;
  };
  const old = (reading) => snapshot.stale[reading];
  const asOf = (reading, text) => (old(reading) == null ? text : `${text} (${span(old(reading))} ago)`);
  // A reading that is no longer fresh is greyed, and has its age.
  const aged = (name, reading, text) => { put(name, asOf(reading, text)); id(name).classList.toggle("stale", old(reading) != null); };
  const ago = (s) => (s < 1.5 ? "now" : `${span(Math.round(s))} ago`);
  const latest = (place) => { for (let i = points.length - 1; i >= 0 && i > points.length - 60; i--) if (points[i][place] != null) return points[i][place]; return null; };

  // -- keeping ------------------------------------------------------------------------------
  const take = (fresh) => {
    if (!fresh.length) return;
    const first = fresh[0][0];
    points = points.filter((p) => p[0] < first);
    const last = points.length ? points[points.length - 1][0] : null;
    if (last != null && first - last > 3 * every) points.push([last + 1]); // shown as a gap in the lines
    points.push(...fresh);
    points = points.slice(-KEPT);
  };

  // -- drawing ------------------------------------------------------------------------------
  const pill = () => {
    const silent = Date.now() - heard > 4000 * every;
    let [state, text] = ["good", "running"];
    const bad = snapshot && Object.entries(snapshot.ready).find(([, check]) => !check.ok);
    if (!opened) [state, text] = ["waiting", "connecting"];
    else if (silent) [state, text] = ["bad", "no answer, retrying"];
    else if (snapshot.processes === 0) [state, text] = ["warn", "workers are starting"];
    else if (snapshot.restart && snapshot.state === "failed") [state, text] = ["bad", `failed: ${snapshot.restart.code}, starts again in ${span(Math.round(snapshot.restart.again_s))}`];
    else if (!snapshot.well) [state, text] = ["bad", "stalled"];
    else if (snapshot.pause) [state, text] = ["warn", snapshot.gauges.in_flight_messages ? "pausing: finishing what is held" : snapshot.pause.code === "quarantine_share" ? "paused itself: most messages are bad" : `paused by ${snapshot.pause.by}`];
    else if (snapshot.paused) [state, text] = ["bad", "paused: the database is away"];
    else if (old("database") != null && !bad) [state, text] = ["warn", `the database has not answered for ${span(old("database"))}`];
    else if (bad) [state, text] = ["warn", bad[1].detail === "not read yet" ? "starting" : `not ready: ${bad[0]}`];
    else if (mean(1) + mean(2) < 0.05 && !(snapshot.gauges.queue_visible_messages > 0)) [state, text] = ["good", "running, queue empty"];
    id("pill").dataset.state = state;
    put("pill-text", text);
  };

  const pace = (node, rate) => {
    node.classList.toggle("moving", rate > 0.05);
    node.style.setProperty("--pace", `${Math.max(0.18, 1.6 / (1 + Math.log10(1 + rate))).toFixed(2)}s`);
  };

  const stages = () => {
    // Over the last ten seconds if there was work in them, else since the start.
    const now = snapshot.stages, past = stages.past || (stages.past = []);
    past.push({ at: snapshot.at, stages: now });
    while (past.length > 2 && past[0].at < snapshot.at - 10) past.shift();
    const before = past[0].stages, each = {}, spent = {};
    for (const [name, stage] of Object.entries(now)) {
      let seconds = stage.seconds - (before[name]?.seconds ?? 0), count = stage.count - (before[name]?.count ?? 0);
      if (count <= 0) { seconds = stage.seconds; count = stage.count; }
      each[name] = count > 0 && seconds > 0 ? seconds / count : null; // what was done within another stage has no time
      spent[name] = seconds;
    }
    const inside = (spent.decode || 0) + (spent.mask || 0) + (spent.write || 0);
    for (const node of document.querySelectorAll(".hop")) {
      const name = node.dataset.stage, share = inside ? (spent[name] || 0) / inside : 0;
      const ms = node.querySelector(".ms"), text = span(each[name]);
      if (ms.textContent !== text) ms.textContent = text;
      const label = node.querySelector(".share");
      if (label) { const of = inside ? `${percent(share)} of time` : "–"; if (label.textContent !== of) label.textContent = of; }
      node.querySelector(".bar i").style.setProperty("--w", name === "receive" ? "0%" : `${(share * 100).toFixed(1)}%`);
    }
    put("f-commit", span(each.commit));
    put("f-ack", span(each.acknowledge));
  };

  const flow = () => {
    const { counts, gauges } = snapshot;
    put("f-visible", compact(gauges.queue_visible_messages));
    for (const name of ["f-visible", "f-oldest", "c-oldest"]) id(name).classList.toggle("stale", old("queue") != null);
    const read = old("queue") ?? snapshot.resting.queue;  // rarely, while the queue is empty
    put("u-visible", read == null ? "waiting" : `waiting, ${span(read)} ago`);
    put("f-oldest", gauges.queue_oldest_age_seconds === 0 ? "none" : span(gauges.queue_oldest_age_seconds));
    put("f-held", compact(gauges.in_flight_messages));
    put("f-written", compact(counts.written));
    put("f-dup", compact(counts.duplicate));
    put("f-quarantined", compact(counts.quarantined));
    // Of a log every row is inserted; what else rows did is worth a line.
    const rows = ["inserted", "updated", "superseded", "ignored", "deleted"].map((name) => [counts[`rows_${name}`] || 0, name]);
    id("f-rows").hidden = !rows.slice(1).some(([count]) => count);
    put("f-rows", `Rows: ${rows.filter(([count]) => count).map(([count, name]) => `${full(count)} ${name}`).join(" · ")}`);
    id("f-lines").hidden = !counts.object_lines;
    put("f-lines", `Lines of S3 objects: ${full(counts.object_lines || 0)}`);
    for (const [name, place] of [["received", 1], ["written", 2], ["quarantined", 4], ["deleted", 5]]) put(`r-${name}`, compact(mean(place)));
    const links = document.querySelectorAll(".flow .link");
    links.forEach((link, index) => pace(link, mean(index === links.length - 1 ? 2 : 1)));
    pace(id("n-quarantine"), mean(4));
    pace(id("n-return"), mean(5));
    put("c-rate", compact(mean(2) + mean(3) + mean(4)));
    put("c-lag", span(latest(8)));
    put("c-oldest", gauges.queue_oldest_age_seconds === 0 ? "none" : span(gauges.queue_oldest_age_seconds));
    const last = points.length ? points[points.length - 1][13] || {} : {};
    put("c-busy", percent(Math.min(1, (last.decode || 0) + (last.mask || 0) + (last.write || 0))));
    id("chart-rate").setAttribute("aria-label", `Messages per second over time, now ${compact(mean(2))} written`);
    id("chart-lag").setAttribute("aria-label", `Lag over time, now ${span(latest(8))} at the 95th percentile`);
    id("chart-depth").setAttribute("aria-label", `Messages waiting over time, now ${compact(gauges.queue_visible_messages)}`);
  };

  const outcomes = () => {
    const { counts, gauges } = snapshot;
    const names = ["written", "duplicate", "quarantined", "released"];
    const total = names.reduce((sum, name) => sum + (counts[name] || 0), 0);
    put("o-total", full(total));
    for (const name of names) {
      id("stack").querySelector(`[data-k="${name}"]`).style.setProperty("--w", `${total ? (100 * (counts[name] || 0)) / total : 0}%`);
      const value = id("legend").querySelector(`[data-k="${name}"] dd`), share = total ? (counts[name] || 0) / total : 0;
      value.textContent = full(counts[name]) + (share && share < 0.9995 ? `  ${percent(share)}` : "");
    }
    id("stack").setAttribute("aria-label", names.map((name) => `${name} ${full(counts[name])}`).join(", "));
    put("l-ext", full(counts.lease_extensions)); put("l-lost", full(counts.leases_lost)); put("l-del", full(counts.deletes_failed));
    put("l-isolated", full(gauges.isolated_messages));
    aged("l-dlq", "dead_letters", gauges.dlq_visible_messages == null ? "no dead-letter queue" : full(gauges.dlq_visible_messages));
  };

  const checks = () => {
    const { ready, gauges } = snapshot;
    const all = [["alive", { ok: snapshot.well, detail: snapshot.well ? "" : "no poll or commit for too long" }], ...Object.entries(ready), ...Object.entries(snapshot.stale).map(([name, s]) => [`reading: ${name.replace("_", " ")}`, { ok: false, detail: `last worked ${span(s)} ago` }])];
    const { pause, rate_max } = snapshot;
    const since = pause && new Date(pause.since * 1000).toLocaleString();
    if (pause) all.unshift(["paused", { ok: false, detail: `since ${since}, ${pause.code === "quarantine_share" ? "by itself: the share of bad messages is above quarantine_share_max" : `by ${pause.by}${pause.reason ? `: ${pause.reason}` : ""}`}` }]);
    if (rate_max != null) all.push(["rate limit", { ok: true, detail: `${full(rate_max)} messages/s received by each process` }]);
    id("checks").replaceChildren(...all.map(([name, check]) => {
      const item = make("li", `${check.ok ? "✓" : "✕"} ${name}`, check.ok ? "" : "bad");
      if (check.detail) item.append(make("small", check.detail));
      return item;
    }));
    aged("d-conn", "database", gauges.database_connections == null ? "–" : `${full(gauges.database_connections)} of ${full(gauges.database_connections_max)}`);
    const size = gauges.database_size_bytes;
    aged("d-size", "database", size == null ? "–" : size > 1e9 ? `${(size / 1e9).toFixed(1)} GB` : `${(size / 1e6).toFixed(0)} MB`);
    const until = (at, never) => (at == null ? never : at < snapshot.at ? "expired" : `expire in ${span(at - snapshot.at)}`);
    put("d-cred", until(gauges.credential_expiry_timestamp_seconds, "do not expire"));
    put("d-cert", until(gauges.certificate_expiry_timestamp_seconds, "no TLS"));
  };

  const rows = (body, columns, cells, none) => {
    if (!cells.length) { const cell = make("td", none, "none"); cell.colSpan = columns; const row = make("tr"); row.append(cell); cells = [row]; }
    body.replaceChildren(...cells);
  };
  const row = (...cells) => {
    const tr = make("tr");
    for (const cell of cells) {
      if (cell instanceof Node) { const td = make("td"); td.append(cell); tr.append(td); }
      else if (Array.isArray(cell)) tr.append(make("td", cell[0], "n"));
      else tr.append(make("td", cell));
    }
    return tr;
  };

  // What a code means, and where to read on; most codes are never seen, so the list comes apart.
  let meanings = {};
  const meaningOf = (code) => meanings[code] ?? Object.entries(meanings).find(([name]) => name.endsWith("…") && code.startsWith(name.slice(0, -1)))?.[1];
  const codeOf = (code) => {
    const cell = make("span"), meaning = meaningOf(code), link = make("a");
    link.append(make("code", code));
    link.href = `/faults#${encodeURIComponent(code)}`;
    cell.append(meaning ? link : make("code", code));
    if (meaning) cell.append(make("small", meaning, "meaning"));
    return cell;
  };
  fetch("/faults.json").then((answer) => (answer.ok ? answer.json() : {})).then((all) => { meanings = all; quarantineShown = ""; if (snapshot) draw(); }).catch(() => {});

  const faults = () => {
    faultsSeen.push([snapshot.at, snapshot.faults]);
    while (faultsSeen.length > 2 && faultsSeen[0][0] < snapshot.at - 10) faultsSeen.shift();
    const before = faultsSeen[0][1];
    const list = Object.entries(snapshot.faults).sort((a, b) => b[1] - a[1]).slice(0, 30);
    rows(id("faults"), 4, list.map(([key, times]) => {
      const [stage, ...code] = key.split(" "), recent = Math.max(0, times - (before[key] ?? 0));
      const tr = row(codeOf(code.join(" ")), stage, [full(times)]);
      const cell = make("td", null, "n");
      cell.append(make("span", full(recent), recent ? "hot" : ""));
      tr.append(cell);
      return tr;
    }), "no faults so far");
  };

  let quarantineShown = "";
  const quarantine = () => {
    // Only if it changed, so that a button keeps its focus.
    const now = JSON.stringify(snapshot.quarantine.map((q) => [q.reason, q.messages]));
    if (now === quarantineShown) return;
    quarantineShown = now;
    rows(id("quarantine"), 4, snapshot.quarantine.map((q) => {
      const command = make("span", null, "command"), text = `sqs2pg quarantine replay --code ${q.reason}`;
      const button = make("button", "copy", "copy");
      button.type = "button";
      button.setAttribute("aria-label", `Copy: ${text}`);
      button.addEventListener("click", async () => {
        try { await navigator.clipboard.writeText(text); button.textContent = "copied"; }
        catch { getSelection().selectAllChildren(command.firstChild); button.textContent = "selected"; }
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      });
      command.append(make("code", text), button);
      return row(codeOf(q.reason), [full(q.messages)], [ago(Math.max(0, snapshot.at - q.latest_at))], command);
    }), "no messages to replay");
  };

  const unknown = () => {
    id("unknown-card").hidden = !snapshot.unknown.length;
    rows(id("unknown"), 4, snapshot.unknown.map((u) =>
      row(u.path ? make("code", u.path) : "not recorded", u.type, [full(u.seen)], [ago(Math.max(0, snapshot.at - u.latest_at))])), "none");
  };

  const workers = () => {
    rows(id("workers"), 9, snapshot.workers.map((w) => {
      // What a worker does is known from its heartbeats alone, and they are read from the database.
      const lost = old("database") != null, late = lost || w.heartbeat_s > 30;
      const state = make("span", lost ? "not known" : late ? "late" : w.state, `state ${late ? "late" : w.state}`);
      const cells = [make("code", `${w.host} · ${w.pid}`), state, [late ? "–" : compact(w.per_second)], [full(w.written)], [full(w.quarantined)], [full(w.in_flight)], [span(snapshot.at - w.started_at)], [ago(w.heartbeat_s)], w.last_fault ? make("code", w.last_fault) : "–"];
      const made = row(...cells);
      made.classList.toggle("stale", lost);
      return made;
    }), "no heartbeat yet");
  };

  // Rows as they are written: asked for only while somebody looks.
  let tapped = [], tapSince = 0, tapOpen = false;
  const drawTap = () => rows(id("tap"), 3, tapped.map((t) => {
    const line = Object.entries(t.row).map(([name, text]) => `${name}=${text == null ? "NULL" : text}`).join("  ");
    return row(new Date(t.at * 1000).toLocaleTimeString(), make("code", t.table), make("code", line));
  }), "no row yet");
  const readTap = async () => {
    if (!tapOpen) return;
    if (!document.hidden) {
      try {
        const answer = await fetch(`${base}/tap?since=${tapSince}`);
        if (answer.ok) {
          const fresh = (await answer.json()).rows;
          if (fresh.length) {
            tapSince = Math.max(tapSince, ...fresh.map((t) => t.at));
            tapped = [...fresh.reverse(), ...tapped].slice(0, 30);
            drawTap();
          }
        }
      } catch { /* the pill says that there is no answer */ }
    }
    setTimeout(readTap, 1000);
  };
  id("tap-toggle").addEventListener("click", () => {
    tapOpen = !tapOpen;
    id("tap-toggle").setAttribute("aria-pressed", String(tapOpen));
    put("tap-toggle", tapOpen ? "Hide rows" : "Show rows");
    id("tap-rows").hidden = !tapOpen;
    if (tapOpen) { drawTap(); readTap(); }
  });

  const draw = () => {
    put("pipeline", snapshot.pipeline || "sqs2pg");
    put("route-queue", snapshot.queue); put("route-table", snapshot.table);
    put("version", snapshot.version); put("uptime", span(snapshot.at - snapshot.started_at));
    put("processes", snapshot.processes > 1 ? `${snapshot.processes} here, ${snapshot.workers.length} in all` : String(snapshot.workers.length || snapshot.processes));
    document.title = `${compact(mean(2))}/s · ${snapshot.pipeline || "sqs2pg"}`;
    pill(); stages(); flow(); outcomes(); checks(); faults(); quarantine(); unknown(); workers();
    Charts.update(points);
  };

  // -- listening ----------------------------------------------------------------------------
  const listen = () => {
    const events = new EventSource(`${base}/events`);
    events.addEventListener("hello", (event) => {
      const { history, now, every_s, tap } = JSON.parse(event.data);
      every = every_s;
      id("tap-card").hidden = !tap;
      opened = true; heard = Date.now(); snapshot = now.snapshot;
      take(history.length ? history : [now.point]);
      stages.past = []; faultsSeen = [];
      draw();
      document.body.dataset.live = "yes";
    });
    events.addEventListener("moment", (event) => {
      const now = JSON.parse(event.data);
      heard = Date.now(); snapshot = now.snapshot;
      take([now.point]);
      if (!document.hidden) draw();
    });
    events.addEventListener("error", () => {
      pill();
      // The browser reconnects by itself, unless the answer was an error (no token, too many clients).
      if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(listen, 2000); }
    });
  };
  setInterval(() => { if (opened) pill(); }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && snapshot) draw(); });
  for (const button of document.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => {
      for (const other of document.querySelectorAll("[data-range]")) other.setAttribute("aria-pressed", String(other === button));
      Charts.setRange(Number(button.dataset.range));
      Charts.rebuild(points);
    });
  }
  const recolour = () => { if (snapshot) Charts.rebuild(points); };
  document.addEventListener("themechange", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  if (base) id("all").hidden = false;
  listen();
})();
