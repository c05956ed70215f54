// Keeps the parts of a page marked data-live up to date. Without this file the pages reload themselves instead.
"use strict";

const part = document.querySelector("[data-live]");
const notice = document.getElementById("connection");
let pointerIsDown = false;

function swap(html) {
  const focused = document.activeElement;
  const focusedId = focused && part.contains(focused) ? focused.id : "";
  part.innerHTML = html; // from our own server, which escapes every text in it
  if (focusedId) {
    document.getElementById(focusedId)?.focus();
  }
}

async function refresh() {
  const answer = await fetch(part.dataset.live, { credentials: "same-origin", cache: "no-store" });
  if (answer.status === 401) {
    location.assign("/login");
    return;
  }
  if (!answer.ok) {
    throw new Error(`status ${answer.status}`);
  }
  const html = await answer.text();
  if (!pointerIsDown && html !== refresh.shown) {
    refresh.shown = html;
    swap(html);
  }
  const stage = part.querySelector("[data-stage]")?.dataset.stage;
  if (stage && stage !== part.dataset.stage) {
    location.reload();
  }
}

async function keepFresh() {
  let delay = Number(part.dataset.every);
  try {
    if (!document.hidden) {
      await refresh();
    }
    notice.hidden = true;
  } catch {
    notice.hidden = false;
    delay = 5000;
  }
  setTimeout(keepFresh, delay);
}

if (part && part.dataset.stage !== "final") {
  document.addEventListener("pointerdown", () => { pointerIsDown = true; });
  for (const kind of ["pointerup", "pointercancel"]) {
    document.addEventListener(kind, () => { setTimeout(() => { pointerIsDown = false; }, 300); });
  }
  setTimeout(keepFresh, Number(part.dataset.every));
}
