// Shows the list of several pipelines, as /events sends it. Writes text with textContent only.
"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const full = (n) => (n == null ? "–" : Math.round(n).toLocaleString("en"));
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const span = (s) => (s == null ? "–" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`);
  const WRITTEN = 2; // its place in a point: see Point in recorder.py
  let heard = 0, apart = 1000, opened = false;

  const clock = (at) => {
    const when = new Date(at * 1000), today = when.toDateString() === new Date().toDateString();
    return when.toLocaleString("en-GB", { ...(today ? {} : { month: "short", day: "numeric" }), hour: "2-digit", minute: "2-digit" });
  };
  const stateOf = ({ snapshot }) => {
    const bad = Object.entries(snapshot.ready).find(([, check]) => !check.ok);
    const failed = snapshot.restart;
    if (snapshot.state === "failed" && failed) return ["bad", `failed: ${failed.code}, starts again in ${span(failed.again_s)}`];
    if (snapshot.state !== "running") return ["warn", failed ? `${snapshot.state} after ${failed.code}` : snapshot.state];
    if (snapshot.processes === 0) return ["warn", "its worker is starting"];
    if (!snapshot.well) return ["bad", "stalled"];
    if (snapshot.pause) return ["warn", `paused since ${clock(snapshot.pause.since)}${snapshot.pause.code === "quarantine_share" ? " by itself" : ""}`];
    if (snapshot.paused) return ["bad", "paused: the database is away"];
    if (bad) return ["warn", bad[1].detail === "not read yet" ? "starting" : `not ready: ${bad[0]}`];
    return ["good", "running"];
  };

  const rowOf = (name) => {
    const row = document.createElement("tr");
    const link = document.createElement("a");
    link.href = `/pipelines/${encodeURIComponent(name)}`;
    link.textContent = name;
    const head = document.createElement("th");
    head.scope = "row";
    head.append(link);
    row.append(head);
    for (let cell = 0; cell < 7; cell += 1) {
      const made = document.createElement("td");
      made.className = cell > 1 ? "number" : cell ? "route" : "shown";
      row.append(made);
    }
    row.dataset.name = name;
    return row;
  };

  const draw = (moments) => {
    // Those that need a look come first.
    const states = Object.fromEntries(Object.entries(moments).map(([name, moment]) => [name, stateOf(moment)]));
    const order = ["bad", "warn", "good"], place = (name) => order.indexOf(states[name][0]);
    const names = Object.keys(moments).sort().sort((a, b) => place(a) - place(b)), rows = id("rows");
    const there = new Map([...rows.children].map((row) => [row.dataset.name, row]));
    const well = names.filter((name) => states[name][0] === "good").length;
    const paused = names.filter((name) => states[name][0] === "warn" && moments[name].snapshot.pause).length;
    rows.replaceChildren(...names.map((name) => {
      const row = there.get(name) || rowOf(name), { snapshot, point } = moments[name];
      const [state, text] = states[name], old = snapshot.stale.queue;
      const [, shown, route, waiting, oldest, rate, written, quarantined] = row.children;
      row.dataset.state = state;
      put(shown, text);
      put(route, `${snapshot.queue} → ${snapshot.table}`);
      put(waiting, full(snapshot.gauges.queue_visible_messages));
      for (const cell of [waiting, oldest]) {
        cell.classList.toggle("stale", old != null);
        cell.title = old == null ? "" : `read ${span(old)} ago`;
      }
      put(oldest, old != null ? `${span(old)} ago` : span(snapshot.gauges.queue_oldest_age_seconds));
      put(rate, full(point[WRITTEN]));
      put(written, full(snapshot.counts.written));
      put(quarantined, full(snapshot.counts.quarantined));
      return row;
    }));
    put(id("count"), `${well} of ${names.length} run`);
    id("pill").dataset.state = well === names.length ? "good" : well ? "warn" : "bad";
    const bad = names.length - well - paused, parts = [];
    if (bad) parts.push(bad === 1 ? "1 needs a look" : `${bad} need a look`);
    if (paused) parts.push(`${paused} paused`);
    put(id("pill-text"), parts.join(", ") || "all run");
    document.title = `${well} of ${names.length} pipelines run`;
  };

  const listen = () => {
    const events = new EventSource("/events");
    events.addEventListener("moments", (event) => {
      const now = Date.now();
      if (opened) apart = Math.max(1000, now - heard);
      opened = true; heard = now;
      draw(JSON.parse(event.data));
      document.body.dataset.live = "yes";
    });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(listen, 2000); }
    });
  };
  setInterval(() => {
    if (!opened || Date.now() - heard < 4 * apart) return;
    id("pill").dataset.state = "bad";
    put(id("pill-text"), "no answer, retrying");
  }, 1000);
  listen();
})();
