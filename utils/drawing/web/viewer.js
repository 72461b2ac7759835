"use strict";
// Meshes that can be turned. All canvases share one hidden WebGL context, since browsers allow only a few;
// without WebGL the triangles are painted back to front.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const shared = JSON.parse(document.getElementById("faces").textContent);
  const faceLists = shared.map((text) => new Uint16Array(bytes(text).buffer));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const swing = 0.55;  // radians to either side until somebody takes hold
  const focal = 3.2, near = 0.5;  // of the viewer's own camera; the mesh has radius 1

  function readMesh(canvas) {
    const raw = new Int16Array(bytes(canvas.dataset.vertices).buffer);
    const faces = faceLists[Number(canvas.dataset.faces)];
    const position = Float32Array.from(raw, (value) => value / 32767);
    const normal = new Float32Array(position.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const u = [0, 1, 2].map((k) => position[b + k] - position[a + k]);
      const v = [0, 1, 2].map((k) => position[c + k] - position[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normal[corner + k] += n[k];
    }
    for (let i = 0; i < normal.length; i += 3) {
      const length = Math.hypot(normal[i], normal[i + 1], normal[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normal[i + k] /= length;
    }
    const colour = canvas.dataset.colour.split(",").map((value) => Number(value) / 255);
    return { position, normal, faces, colour };
  }

  // Turn about the vertical, then tilt; the mesh's axes are the camera's (x right, y down, z forward).
  function rotation(yaw, tilt) {
    const [cy, sy, cx, sx] = [Math.cos(yaw), Math.sin(yaw), Math.cos(tilt), Math.sin(tilt)];
    return [cy, 0, sy, sx * sy, cx, -sx * cy, -cx * sy, sx, cx * cy];  // rows
  }

  const shade = (n, colour) => {  // n: unit normal towards the viewer, y down
    const dot = (x, y, z) => Math.max(0, n[0] * x + n[1] * y + n[2] * z);
    const light = 0.30 + 0.10 * (0.5 - 0.5 * n[1]) + 0.62 * dot(-0.45, -0.62, -0.64) + 0.16 * dot(0.83, 0.12, -0.55);
    const shine = 0.16 * Math.pow(dot(-0.25, -0.36, -0.9), 24);
    return colour.map((value) => Math.min(255, 255 * (Math.pow(value, 0.95) * light * 1.12 + shine)));
  };

  function webgl() {
    const surface = document.createElement("canvas");
    const gl = surface.getContext("webgl", { antialias: true, alpha: true, preserveDrawingBuffer: true });
    if (!gl) return null;
    const program = gl.createProgram();
    const add = (type, text) => {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    };
    add(gl.VERTEX_SHADER, `
      attribute vec3 position, normal; uniform mat3 turn; uniform float focal, near; varying vec3 n;
      void main() {
        vec3 p = turn * position; n = turn * normal;
        float depth = p.z + focal + near;
        gl_Position = vec4(focal * p.x, -focal * p.y, (depth - near - focal) * 0.5 * depth / (focal + 2.0), depth);
      }`);
    add(gl.FRAGMENT_SHADER, `
      precision highp float; varying vec3 n; uniform vec3 colour;
      float dot0(vec3 a, vec3 b) { return max(0.0, dot(a, b)); }
      void main() {
        vec3 m = normalize(n); if (m.z > 0.0) m = -m;
        float light = 0.30 + 0.10 * (0.5 - 0.5 * m.y) + 0.62 * dot0(m, vec3(-0.45, -0.62, -0.64))
          + 0.16 * dot0(m, vec3(0.83, 0.12, -0.55));
        float rim = 0.12 * pow(1.0 - abs(m.z), 3.0);
        float shine = 0.16 * pow(dot0(m, vec3(-0.25, -0.36, -0.9)), 24.0);
        gl_FragColor = vec4(pow(colour, vec3(0.95)) * light * 1.12 + rim + shine, 1.0);
      }`);
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    const places = Object.fromEntries(["turn", "focal", "near", "colour"].map((k) => [k, gl.getUniformLocation(program, k)]));
    const upload = (target, data) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(target, buffer);
      gl.bufferData(target, data, gl.STATIC_DRAW);
      return buffer;
    };
    return (mesh, size, yaw, tilt, pen) => {
      if (surface.width !== size) surface.width = surface.height = size;
      mesh.buffers ??= {
        position: upload(gl.ARRAY_BUFFER, mesh.position), normal: upload(gl.ARRAY_BUFFER, mesh.normal),
        faces: upload(gl.ELEMENT_ARRAY_BUFFER, mesh.faces),
      };
      for (const name of ["position", "normal"]) {
        const place = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh.buffers[name]);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.buffers.faces);
      const rows = rotation(yaw, tilt);
      gl.uniformMatrix3fv(places.turn, false, [0, 3, 6, 1, 4, 7, 2, 5, 8].map((k) => rows[k]));
      gl.uniform1f(places.focal, focal);
      gl.uniform1f(places.near, near);
      gl.uniform3fv(places.colour, mesh.colour);
      gl.viewport(0, 0, size, size);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_SHORT, 0);
      pen.clearRect(0, 0, size, size);
      pen.drawImage(surface, 0, 0);
    };
  }

  function painter(mesh, size, yaw, tilt, pen) {
    const r = rotation(yaw, tilt), count = mesh.position.length / 3, points = [];
    for (let i = 0; i < count; i++) {
      const [x, y, z] = mesh.position.subarray(3 * i, 3 * i + 3);
      const p = [0, 1, 2].map((k) => r[3 * k] * x + r[3 * k + 1] * y + r[3 * k + 2] * z);
      const scale = (focal / (p[2] + focal + near)) * (size / 2);
      points.push([p[0] * scale + size / 2, p[1] * scale + size / 2, p]);
    }
    const triangles = [];
    for (let f = 0; f < mesh.faces.length; f += 3) {
      const [a, b, c] = [0, 1, 2].map((k) => points[mesh.faces[f + k]]);
      const u = [0, 1, 2].map((k) => b[2][k] - a[2][k]), v = [0, 1, 2].map((k) => c[2][k] - a[2][k]);
      let n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      const length = (Math.hypot(...n) || 1) * (n[2] > 0 ? -1 : 1);
      triangles.push([a[2][2] + b[2][2] + c[2][2], a, b, c, n.map((value) => value / length)]);
    }
    triangles.sort((one, other) => other[0] - one[0]);
    pen.clearRect(0, 0, size, size);
    pen.lineWidth = 0.7;
    for (const [, a, b, c, n] of triangles) {
      pen.fillStyle = pen.strokeStyle = `rgb(${shade(n, mesh.colour).map(Math.round).join(",")})`;
      pen.beginPath();
      pen.moveTo(a[0], a[1]);
      pen.lineTo(b[0], b[1]);
      pen.lineTo(c[0], c[1]);
      pen.closePath();
      pen.fill();
      pen.stroke();
    }
  }

  const draw = webgl() ?? painter;
  document.documentElement.dataset.renderer = draw === painter ? "canvas" : "webgl";

  function mount(canvas) {
    const pen = canvas.getContext("2d");
    const view = { yaw: 0, tilt: 0, held: false, touched: still, visible: false, born: 0, mesh: null };
    const paint = () => {
      const size = Math.max(64, Math.round(canvas.clientWidth * Math.min(devicePixelRatio || 1, 2)));
      if (canvas.width !== size) canvas.width = canvas.height = size;
      view.mesh ??= readMesh(canvas);
      draw(view.mesh, size, view.yaw, view.tilt, pen);
      canvas.dataset.drawn = "yes";
    };
    const tick = (now) => {
      if (!view.visible || view.touched) return;
      view.born ||= now;
      view.yaw = swing * Math.sin((now - view.born) / 1600);
      paint();
      requestAnimationFrame(tick);
    };
    const turn = (dx, dy) => {
      view.touched = true;
      view.yaw += dx;
      view.tilt = Math.max(-1.5, Math.min(1.5, view.tilt + dy));
      paint();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      view.held = view.touched = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (view.held) turn(-event.movementX * 0.01, event.movementY * 0.01);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { view.held = false; });
    canvas.addEventListener("dblclick", () => { view.yaw = view.tilt = 0; view.touched = true; paint(); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (step) { event.preventDefault(); turn(...step); }
    });
    new IntersectionObserver((entries) => {
      view.visible = entries[entries.length - 1].isIntersecting;
      if (view.visible) { paint(); requestAnimationFrame(tick); }
    }, { rootMargin: "200px" }).observe(canvas);
    new ResizeObserver(() => { if (view.visible) paint(); }).observe(canvas);
  }
  document.querySelectorAll("canvas[data-vertices]").forEach(mount);
})();
