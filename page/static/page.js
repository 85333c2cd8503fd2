// Brings the parts of the page up to date that the node says have changed. Without it, the
// page works all the same: load it again.
"use strict";

(function () {
  const go = document.getElementById("go");
  if (go) {
    location.replace(go.href);
    return;
  }
  if (!document.body.hasAttribute("data-live") || !window.EventSource) return;

  const connection = document.getElementById("connection");
  const fresh = document.getElementById("fresh");
  const here = new URL(location.href);
  here.searchParams.delete("done");
  here.searchParams.set("live", "");
  if (here.pathname.startsWith("/progress/")) {
    here.pathname += "/live";
    here.search = "";
  }
  const stale = (is) => { connection.hidden = !is; };
  const connect = () => {
    const events = new EventSource(here);
    events.addEventListener("part", (e) => {
      const part = JSON.parse(e.data);
      const at = document.getElementById(part.id);
      // Not under the hands of somebody who types there, or has selected text.
      if (!at || (at.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"))) return;
      const link = at.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      const opened = [...at.querySelectorAll("details")].map((d) => d.open);
      at.innerHTML = part.html;
      at.querySelectorAll("details").forEach((d, i) => { if (opened[i] !== undefined) d.open = opened[i]; });
      if (link) {
        const again = [...at.querySelectorAll("a")].find((a) => a.getAttribute("href") === link);
        if (again) again.focus({ preventScroll: true });
      }
    });
    events.addEventListener("fresh", (e) => {
      const at = JSON.parse(e.data);
      fresh.dateTime = at;
      fresh.textContent = at.replace("T", " ").replace("Z", " UTC");
      stale(false);
    });
    events.addEventListener("stale", () => stale(true));
    events.addEventListener("end", () => {
      events.close();
      location.reload();
    });
    events.addEventListener("error", () => {
      stale(true);
      // Refused, since too many look: asked again, not all at once.
      if (events.readyState === EventSource.CLOSED) setTimeout(connect, 30000 + Math.random() * 30000);
    });
  };
  connect();
})();
