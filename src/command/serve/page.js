"use strict";
// The page of `flip serve`: a text, an image that is dropped, pasted or chosen, or an image that was found, and what is nearest.
const at = id => document.getElementById(id);
// Of several questions that wait, only the answer to the last is shown.
let turn = 0;
let address = "";

function element(kind, attributes, ...children) {
  const made = Object.assign(document.createElement(kind), attributes);
  made.append(...children);
  return made;
}

function asked(url) {
  at("asked").hidden = !url;
  if (address) URL.revokeObjectURL(address);
  address = url && url.startsWith("blob:") ? url : "";
  if (url) at("asked-image").src = url; else at("asked-image").removeAttribute("src");
}

async function ask(path, options) {
  const own = ++turn;
  at("note").textContent = "Searching ...";
  try {
    const response = await fetch(path, options);
    const answer = await response.json();
    if (own !== turn) return;
    if (!response.ok) throw new Error(answer.error);
    at("note").textContent = answer.note || "";
    at("found").replaceChildren(...answer.found.map(shown));
  } catch (error) {
    if (own !== turn) return;
    at("note").textContent = error.message;
    at("found").replaceChildren();
  }
}

function shown(hit, rank) {
  const image = element("img", { src: `thumbnail?id=${hit.id}`, alt: hit.caption || `Found ${rank + 1}`, loading: "lazy" });
  const similar = element("button", { type: "button", title: "Images like this one" }, image);
  similar.addEventListener("click", () => {
    at("text").value = "";
    asked(`thumbnail?id=${hit.id}`);
    ask(`neighbours?id=${hit.id}`);
    scrollTo(0, 0);
  });
  const score = element("span", { className: "score" }, `${rank + 1}. ${hit.score.toFixed(3)} `);
  const name = element("a", { href: `image?id=${hit.id}`, target: "_blank" }, hit.key ? `${hit.file}: ${hit.key}` : hit.file);
  return element("figure", {}, similar, element("figcaption", {}, score, hit.caption || ""), element("p", { className: "name" }, name));
}

function byText() {
  const text = at("text").value.trim();
  if (!text) return;
  asked("");
  ask(`search?text=${encodeURIComponent(text)}`);
}

function byImage(file) {
  if (!file) return;
  at("text").value = "";
  asked(URL.createObjectURL(file));
  ask("search", { method: "POST", body: file });
}

at("form").addEventListener("submit", event => { event.preventDefault(); byText(); });
at("file").addEventListener("change", () => { byImage(at("file").files[0]); at("file").value = ""; });
addEventListener("paste", event => byImage([...event.clipboardData.files].find(file => file.type.startsWith("image/"))));
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, event => { event.preventDefault(); document.body.classList.add("over"); });
}
addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("over");
  byImage(event.dataTransfer.files[0]);
});
fetch("info").then(response => response.json()).then(info => {
  const out = info.left_out ? `, ${info.left_out.toLocaleString("en")} left out` : "";
  at("about").textContent = `${info.images.toLocaleString("en")} images${out}; model ${info.checkpoint}`;
});
// `/#two dogs` searches at once.
if (location.hash.length > 1) {
  try { at("text").value = decodeURIComponent(location.hash.slice(1)); } catch { at("text").value = location.hash.slice(1); }
  byText();
}
