"use strict";
// Slices of cases. Images of slices become volumes of bytes (red, green, blue and opacity of a voxel), which slices in
// any plane are cut out of. Of the masks red is the class predicted, green the true one.
{
  const LONGEST = 720;  // side of a slice, in pixels of the canvas
  const OPACITY = 0.35;
  const LETTERS = ["APSI", "RLSI", "RLAP"];  // left, right, top and bottom of slices across each axis
  const PLANES = ["Sagittal", "Coronal", "Axial"];
  const viewer = document.getElementById("viewer"), canvas = viewer.querySelector("canvas");
  const views = JSON.parse(document.getElementById("view-data").textContent);
  const control = name => viewer.querySelector(`[name="${name}"]`);
  const [slice, level, width, channels] = ["slice", "level", "width", "channel"].map(control);
  let view, volumes, axis, at;  // what is shown: a case, its volumes, a plane, and a voxel that the slice goes through

  function sheet(columns, rows) {
    return Object.assign(document.createElement("canvas"), { width: columns, height: rows }).getContext("2d", { willReadFrequently: true });
  }

  async function decoded(source, [across, down, deep], columns) {
    const image = new Image();
    image.src = source;
    await image.decode();
    const context = sheet(image.width, image.height), volume = new Uint8ClampedArray(4 * across * down * deep);
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    for (let row = 0; row < down * deep; row++) {
      const number = Math.floor(row / down), top = Math.floor(number / columns) * down + row % down;
      const first = top * image.width + number % columns * across;
      volume.set(pixels.subarray(4 * first, 4 * (first + across)), 4 * row * across);
    }
    return volume;
  }

  // The two axes of the slice, how many voxels lie along them, and where in a volume the bytes of each voxel begin.
  function plane() {
    const strides = [1, view.shape[0], view.shape[0] * view.shape[1]];
    const [across, down] = [0, 1, 2].filter(each => each !== axis);
    const place = (x, y) => 4 * (x * strides[across] + y * strides[down] + at[axis] * strides[axis]);
    return { across, down, columns: view.shape[across], rows: view.shape[down], place };
  }

  function draw() {
    const { across, down, columns, rows, place } = plane(), { masks, grey } = volumes;
    const lengths = [columns * view.spacing[across], rows * view.spacing[down]];
    const scale = LONGEST / Math.max(...lengths), [right, bottom] = lengths.map(length => Math.max(1, Math.round(length * scale)));
    const scan = sheet(columns, rows), fill = sheet(columns, rows);
    const shown = scan.createImageData(columns, rows), filled = fill.createImageData(columns, rows);
    const black = level.value - width.value / 2;
    for (let y = 0, to = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, to += 4) {
        const from = place(x, y), colour = view.classes[masks[from]]?.colour;
        for (let part = 0; part < 3; part++) shown.data[to + part] = (grey[from + part] - black) / width.value * 255;
        shown.data[to + 3] = 255;
        if (colour) filled.data.set([...colour, 255 * OPACITY], to);
      }
    }
    scan.putImageData(shown, 0, 0);
    fill.putImageData(filled, 0, 0);
    Object.assign(canvas, { width: right, height: bottom });
    const context = canvas.getContext("2d");
    context.drawImage(scan.canvas, 0, 0, right, bottom);
    context.imageSmoothingEnabled = false;
    if (control("predicted").checked) {
      context.drawImage(fill.canvas, 0, 0, right, bottom);
      for (const [index, path] of outlines(0, right, bottom)) {
        for (const [colour, thickness] of [["#0009", 4], [`rgb(${view.classes[index].colour})`, 2]]) stroke(context, path, colour, thickness);
      }
    }
    if (control("true").checked) {
      const paths = [...outlines(1, right, bottom).values()];
      for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) paths.forEach(path => stroke(context, path, colour, thickness));
    }
    letter(context, right, bottom);
    tell();
  }

  // The borders of a mask's classes in the slice, a path for each class; the picture's own border is none.
  function outlines(part, right, bottom) {
    const { columns, rows, place } = plane(), paths = new Map();
    const line = (index, ...ends) => {
      if (!paths.has(index)) paths.set(index, new Path2D());
      const [x0, y0, x1, y1] = ends.map((end, which) => which % 2 ? end / rows * bottom : end / columns * right);
      paths.get(index).moveTo(x0, y0);
      paths.get(index).lineTo(x1, y1);
    };
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const own = volumes.masks[place(x, y) + part];
        const beside = x + 1 < columns ? volumes.masks[place(x + 1, y) + part] : own;
        const below = y + 1 < rows ? volumes.masks[place(x, y + 1) + part] : own;
        if (own !== beside) line(own || beside, x + 1, y, x + 1, y + 1);
        if (own !== below) line(own || below, x, y + 1, x + 1, y + 1);
      }
    }
    return paths;
  }

  function stroke(context, path, colour, thickness) {
    Object.assign(context, { strokeStyle: colour, lineWidth: thickness, lineCap: "square" });
    context.stroke(path);
  }

  function letter(context, right, bottom) {
    if (!view.isVolume) return;
    const places = [[14, bottom / 2], [right - 14, bottom / 2], [right / 2, 16], [right / 2, bottom - 16]];
    Object.assign(context, { font: "bold 22px sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 4, strokeStyle: "#000", fillStyle: "#fff" });
    [...LETTERS[axis]].forEach((side, which) => {
      context.strokeText(side, ...places[which]);
      context.fillText(side, ...places[which]);
    });
  }

  // What controls and picture say of themselves.
  function tell() {
    const { low, high } = view.channels[channels.value], value = grey => Number((low + grey / 255 * (high - low)).toPrecision(3));
    const words = `${at[axis] + 1} of ${view.shape[axis]}`;
    slice.setAttribute("aria-valuetext", words);
    const texts = { slice: words, level: value(+level.value), width: Number((width.value / 255 * (high - low)).toPrecision(3)) };
    for (const [name, text] of Object.entries(texts)) control(name).closest("label").querySelector("span").textContent = text;
    const what = view.isVolume ? `${PLANES[axis]} slice ${words} of ${view.case}; its left side is the patient's ${LETTERS[axis][0] === "R" ? "right" : "front"}` : view.case;
    canvas.setAttribute("aria-label", what);
  }

  function press(name, value) {
    for (const button of viewer.querySelectorAll(`button[name="${name}"]`)) button.setAttribute("aria-pressed", String(+button.value === value));
  }

  async function choose(number) {
    const chosen = views[number];
    chosen.decoded ??= Promise.all([chosen.masks, ...chosen.channels.map(each => each.slices)].map(source => decoded(source, chosen.shape, chosen.columns)));
    const [masks, ...greys] = await chosen.decoded;
    view = chosen;
    volumes = { masks, greys };
    at = [...view.start];
    press("case", number);
    channels.replaceChildren(...view.channels.map((each, index) => new Option(each.name, index)));
    channels.closest("label").hidden = view.channels.length < 2 && !view.channels[0].name;
    control("axis").parentElement.hidden = !view.isVolume || view.shape.includes(1);
    viewer.querySelector(".legend").replaceChildren(...Object.values(view.classes).map(({ name, colour }) => {
      const item = document.createElement("li"), swatch = document.createElement("i");
      swatch.style.background = `rgb(${colour})`;
      item.append(swatch, name);
      return item;
    }));
    Object.assign(viewer.querySelector(".note"), { textContent: view.note, hidden: !view.note });
    const single = view.shape.indexOf(1);
    cut(single < 0 ? 2 : single);
    show(0);
  }

  function cut(across) {
    axis = across;
    press("axis", axis);
    slice.max = view.shape[axis] - 1;
    slice.value = at[axis];
    for (const part of [slice.closest("label"), viewer.querySelector(".note:last-child")]) part.hidden = view.shape[axis] === 1;
  }

  function show(channel) {
    const { low, high, window: [black, white] } = view.channels[channel], grey = value => (value - low) / Math.max(high - low, 1e-6) * 255;
    channels.value = channel;
    volumes.grey = volumes.greys[channel];
    width.value = grey(white) - grey(black);
    level.value = (grey(white) + grey(black)) / 2;
    draw();
  }

  function go(number) {
    at[axis] = Math.min(Math.max(number, 0), view.shape[axis] - 1);
    slice.value = at[axis];
    draw();
  }

  viewer.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button?.name === "case") choose(+button.value);
    else if (button?.name === "axis") { cut(+button.value); draw(); }
    else if (button?.name === "reset") show(+channels.value);
  });
  viewer.addEventListener("input", ({ target }) => {
    if (target === slice) go(+slice.value);
    else if (target === channels) show(+channels.value);
    else draw();
  });

  const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  const SWITCHES = { p: "predicted", g: "true" };
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const toggled = control(SWITCHES[event.key.toLowerCase()]);
    if (event.key in STEPS) go(at[axis] + STEPS[event.key]);
    else if (toggled) { toggled.checked = !toggled.checked; draw(); }
    else return;
    event.preventDefault();
  });

  // Wheels turn by notches, touch pads by pixels; past the first and the last slice the page scrolls on.
  let turned = 0;
  canvas.addEventListener("wheel", event => {
    if (event.ctrlKey || (event.deltaY < 0 ? at[axis] === 0 : at[axis] === view.shape[axis] - 1)) return;
    event.preventDefault();
    turned += event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY / 40 : event.deltaY;
    const whole = Math.sign(turned) * Math.min(1, Math.floor(Math.abs(turned)));
    if (whole) { turned = 0; go(at[axis] + whole); }
  }, { passive: false });

  // Dragging over the whole picture goes through all slices; up and down a finger scrolls the page.
  let grip = null;
  canvas.addEventListener("pointerdown", event => {
    grip = { x: event.clientX, first: at[axis] };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (grip) go(grip.first + Math.round((event.clientX - grip.x) / canvas.clientWidth * view.shape[axis]));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { grip = null; });

  viewer.hidden = false;
  choose(0);
}
