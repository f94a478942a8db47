const SIDE = 320; // CANVAS_SIDE of server.py
const PEN = 28; // stroke width: MNIST's, for a digit that nearly fills the canvas
const STEP = 8; // pixels that an arrow key moves the pen
const PAUSE = 600; // milliseconds without a new answer before screen readers get it
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const FOR = [64, 168, 255]; // red, green and blue where ink raises the answer's score
const AGAINST = [255, 128, 32]; // and where it lowers it

const [canvas, pen, preview, heat, bars, guess, status, layers, maps] = ["canvas", "pen",
  "preview", "heat", "bars", "guess", "status", "layers", "maps"].map((id) =>
  document.getElementById(id));
const paper = canvas.getContext("2d", { willReadFrequently: true });
Object.assign(paper, { lineWidth: PEN, lineCap: "round", lineJoin: "round" });

let drawn = false; // is there any ink?
let last = null; // end of the pointer's stroke
let key = { x: SIDE / 2, y: SIDE / 4, down: false }; // the pen that arrow keys move
const held = new Set(); // arrow keys that are down: two of them move it diagonally

function line(from, to) {
  paper.beginPath();
  paper.moveTo(from.x, from.y);
  paper.lineTo(to.x, to.y + 0.01); // Chromium 156 does not draw a line of length 0, a dot
  paper.stroke();
  drawn = true;
  ask();
}

function clear() {
  paper.clearRect(0, 0, SIDE, SIDE);
  drawn = false;
  show(null);
  say("Cleared.");
}

// Mouse, finger, stylus

function position(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) * SIDE) / box.width,
    y: ((event.clientY - box.top) * SIDE) / box.height,
  };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pen.hidden = true;
  last = position(event);
  line(last, last);
});

canvas.addEventListener("pointermove", (event) => {
  if (!event.isPrimary || last === null) return;
  const parts = event.getCoalescedEvents?.() ?? []; // not in Safari before 18
  for (const part of parts.length > 0 ? parts : [event]) {
    const next = position(part);
    line(last, next);
    last = next;
  }
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (event.isPrimary) last = null;
  });
}

document.getElementById("clear").addEventListener("click", clear);

// Keys

function showPen() {
  pen.hidden = false;
  pen.classList.toggle("down", key.down);
  pen.style.left = `${(100 * key.x) / SIDE}%`;
  pen.style.top = `${(100 * key.y) / SIDE}%`;
}

canvas.addEventListener("focus", () => {
  if (canvas.matches(":focus-visible")) showPen();
});

canvas.addEventListener("blur", () => {
  held.clear();
  key.down = false;
  pen.hidden = true;
});

canvas.addEventListener("keyup", (event) => held.delete(event.key));

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in ARROWS) {
    held.add(event.key);
    const from = key;
    key = { ...from };
    for (const arrow of held) {
      key.x = Math.min(Math.max(key.x + STEP * ARROWS[arrow][0], 0), SIDE);
      key.y = Math.min(Math.max(key.y + STEP * ARROWS[arrow][1], 0), SIDE);
    }
    if (key.down) line(from, key);
  } else if (event.key === " ") {
    if (event.repeat) return event.preventDefault();
    key.down = !key.down;
    if (key.down) line(key, key);
    say(key.down ? "Pen down." : "Pen up.");
  } else if (event.key.toLowerCase() === "c") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  showPen();
});

// Answers

let asking = false;
let changed = false; // since the drawing was last sent

async function ask() {
  changed = true;
  if (asking) return;
  asking = true;
  try {
    while (changed && drawn) {
      changed = false;
      const answer = await classify();
      if (drawn) show(answer);
    }
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer: is it running?" : error.message);
  } finally {
    asking = false;
  }
}

async function classify() {
  const pixels = paper.getImageData(0, 0, SIDE, SIDE).data;
  const ink = new Uint8Array(SIDE * SIDE);
  for (let i = 0; i < ink.length; i++) ink[i] = pixels[4 * i + 3]; // opacity
  const response = await fetch("classify", {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: ink,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

for (let digit = 0; digit < 10; digit++) {
  const item = document.createElement("li");
  for (const part of ["digit", "track", "percent"]) {
    const element = document.createElement("span");
    element.className = part;
    item.append(element);
  }
  item.querySelector(".digit").textContent = digit;
  item.querySelector(".track").append(document.createElement("span"));
  item.querySelector(".track > span").className = "fill";
  bars.append(item);
}

function show(answer) {
  const probabilities = answer ? answer.probabilities : Array(10).fill(0);
  const best = answer ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  [...bars.children].forEach((item, digit) => {
    item.classList.toggle("best", digit === best);
    item.querySelector(".fill").style.height = `${100 * probabilities[digit]}%`;
    item.querySelector(".percent").textContent = percent(probabilities[digit]);
  });
  guess.textContent = answer ? best : "?";
  if (answer) see(answer);
  else document.querySelectorAll("figure canvas").forEach(blank);
  if (answer) say(`It is a ${best}, ${percent(probabilities[best])} sure.`, PAUSE);
}

function percent(probability) {
  return `${Math.round(100 * probability)}%`;
}

// What the network sees

function see({ digit, gradient, layers: found }) {
  const [height, width] = [digit.length, digit[0].length];
  const [ink, slopes] = [digit.flat(), gradient.flat()];
  paint(preview, height, width, (i) => [ink[i], ink[i], ink[i]]);
  paint(heat, height, width, (i) => {
    const share = Math.abs(slopes[i]) / 127;
    const colour = slopes[i] > 0 ? FOR : AGAINST;
    return colour.map((part) => share * part + ((1 - share) * ink[i]) / 2);
  });
  layers.hidden = found.length === 0;
  const shapes = JSON.stringify(found.map(({ shape }) => shape));
  if (maps.dataset.shapes !== shapes) maps.replaceChildren(...found.map(layer));
  maps.dataset.shapes = shapes;
  found.forEach(({ shape: [, rows, columns], maps: bytes }, position) => {
    const levels = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    maps.children[position].querySelectorAll("canvas").forEach((canvas, map) => {
      const start = map * rows * columns;
      paint(canvas, rows, columns, (i) => Array(3).fill(levels[start + i]));
    });
  });
}

function layer({ shape: [count, rows, columns] }, position) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent =
    `Convolution ${position + 1}: ${count} filters, ${rows} × ${columns} responses each`;
  const grid = document.createElement("div");
  grid.className = "maps";
  grid.setAttribute("role", "img");
  grid.setAttribute("aria-label", `Responses of convolution ${position + 1}`);
  grid.append(...Array.from({ length: count }, () => document.createElement("canvas")));
  figure.append(caption, grid);
  return figure;
}

function paint(canvas, height, width, colour) {
  if (canvas.height !== height || canvas.width !== width) {
    [canvas.height, canvas.width] = [height, width];
  }
  const pixels = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    pixels.data.set(colour(i), 4 * i);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function blank(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

// Messages

let later; // timer of the next message

function say(text, pause = 0) {
  clearTimeout(later);
  later = setTimeout(() => (status.textContent = text), pause);
}

show(null);
