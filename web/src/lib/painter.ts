/**
 * Draws small frames large: crisp but smooth. With a graphics card a shader scales with a cubic
 * filter; without one a 2D canvas does nearly the same on the processor, at fewer pixels, because the
 * model may be running on that very processor.
 */

const MAX_GL_SIDE = 2560;
const MAX_2D_SIDE = 960;
const GL_OPTIONS: WebGLContextAttributes = {
  alpha: false,
  antialias: false,
  depth: false,
  failIfMajorPerformanceCaveat: true, // not every browser heeds it, hence hasGraphicsCard
};

export interface Painter {
  readonly kind: "webgl" | "2d";
  /** Takes ownership of the frame and closes the one before. */
  draw(frame: ImageBitmap): void;
  /** Draws the last frame again, for a new window size. */
  redraw(): void;
  dispose(): void;
}

export function createPainter(canvas: HTMLCanvasElement): Painter {
  const gl = hasGraphicsCard() ? canvas.getContext("webgl2", GL_OPTIONS) : null;
  if (gl) return new GlPainter(canvas, gl);
  const context = canvas.getContext("2d", { alpha: false });
  if (!context) throw new Error("This browser cannot draw on a canvas.");
  return new FlatPainter(canvas, context);
}

const SOFTWARE_RENDERERS = /swiftshader|llvmpipe|software|basic render/i;

/** False when WebGL would be computed on the processor; asked on a canvas of its own. */
function hasGraphicsCard(): boolean {
  const gl = document.createElement("canvas").getContext("webgl2", GL_OPTIONS);
  if (!gl) return false;
  let name = String(gl.getParameter(gl.RENDERER));
  if (name === "WebKit WebGL") {
    const info = gl.getExtension("WEBGL_debug_renderer_info"); // what that mask hides
    if (info) name = String(gl.getParameter(info.UNMASKED_RENDERER_WEBGL));
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !SOFTWARE_RENDERERS.test(name);
}

/** Size of the drawing buffer: the shown size in device pixels, capped, in the frame's own shape. */
export function bufferSize(
  frame: { width: number; height: number },
  shown: { width: number; height: number },
  options: { ratio: number; maxSide: number },
): { width: number; height: number } {
  const fit = Math.min(shown.width / frame.width, shown.height / frame.height) * options.ratio;
  const cap = options.maxSide / Math.max(frame.width, frame.height);
  const scale = Math.max(1, Math.min(fit, cap));
  return { width: Math.round(frame.width * scale), height: Math.round(frame.height * scale) };
}

function resize(canvas: HTMLCanvasElement, frame: ImageBitmap, maxSide: number): void {
  const shown = { width: canvas.clientWidth, height: canvas.clientHeight };
  const size = bufferSize(frame, shown, { ratio: globalThis.devicePixelRatio || 1, maxSide });
  if (canvas.width !== size.width) canvas.width = size.width;
  if (canvas.height !== size.height) canvas.height = size.height;
}

class FlatPainter implements Painter {
  readonly kind = "2d";
  readonly #canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  #frame: ImageBitmap | null = null;

  constructor(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D) {
    this.#canvas = canvas;
    this.#context = context;
  }

  draw(frame: ImageBitmap): void {
    this.#frame?.close();
    this.#frame = frame;
    this.redraw();
  }

  redraw(): void {
    if (!this.#frame) return;
    resize(this.#canvas, this.#frame, MAX_2D_SIDE);
    this.#context.imageSmoothingQuality = "high";
    this.#context.drawImage(this.#frame, 0, 0, this.#canvas.width, this.#canvas.height);
  }

  dispose(): void {
    this.#frame?.close();
    this.#frame = null;
  }
}

const VERTEX = `#version 300 es
out vec2 uv;
void main() {
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 2.0;
  uv = vec2(corner.x, 1.0 - corner.y);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

// Mitchell-Netravali over 4x4 texels with nine bilinear reads (the two middle weights share one read).
const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D frame;
in vec2 uv;
out vec4 color;
vec2 inner(vec2 x) { return (x * x * (7.0 * x - 12.0) + 16.0 / 3.0) / 6.0; }
vec2 outer(vec2 x) { return (x * (x * (12.0 - 7.0 / 3.0 * x) - 20.0) + 32.0 / 3.0) / 6.0; }
void main() {
  vec2 size = vec2(textureSize(frame, 0));
  vec2 at = uv * size;
  vec2 base = floor(at - 0.5) + 0.5;
  vec2 f = at - base;
  vec2 w0 = outer(1.0 + f);
  vec2 w1 = inner(f);
  vec2 w2 = inner(1.0 - f);
  vec2 w3 = outer(2.0 - f);
  vec2 w12 = w1 + w2;
  vec2 p0 = (base - 1.0) / size;
  vec2 p12 = (base + w2 / w12) / size;
  vec2 p3 = (base + 2.0) / size;
  vec3 sum =
    (texture(frame, vec2(p0.x, p0.y)).rgb * w0.x + texture(frame, vec2(p12.x, p0.y)).rgb * w12.x +
     texture(frame, vec2(p3.x, p0.y)).rgb * w3.x) * w0.y +
    (texture(frame, vec2(p0.x, p12.y)).rgb * w0.x + texture(frame, p12).rgb * w12.x +
     texture(frame, vec2(p3.x, p12.y)).rgb * w3.x) * w12.y +
    (texture(frame, vec2(p0.x, p3.y)).rgb * w0.x + texture(frame, vec2(p12.x, p3.y)).rgb * w12.x +
     texture(frame, vec2(p3.x, p3.y)).rgb * w3.x) * w3.y;
  color = vec4(clamp(sum, 0.0, 1.0), 1.0);
}`;

class GlPainter implements Painter {
  readonly kind = "webgl";
  readonly #canvas: HTMLCanvasElement;
  readonly #gl: WebGL2RenderingContext;
  #frame: ImageBitmap | null = null;

  constructor(canvas: HTMLCanvasElement, gl: WebGL2RenderingContext) {
    this.#canvas = canvas;
    this.#gl = gl;
    setUp(gl);
    canvas.addEventListener("webglcontextlost", this.#lost);
    canvas.addEventListener("webglcontextrestored", this.#restored);
  }

  draw(frame: ImageBitmap): void {
    this.#frame?.close();
    this.#frame = frame;
    this.redraw();
  }

  redraw(): void {
    const gl = this.#gl;
    if (!this.#frame || gl.isContextLost()) return;
    resize(this.#canvas, this.#frame, MAX_GL_SIDE);
    gl.viewport(0, 0, this.#canvas.width, this.#canvas.height);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, this.#frame);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  dispose(): void {
    this.#frame?.close();
    this.#frame = null;
    this.#canvas.removeEventListener("webglcontextlost", this.#lost);
    this.#canvas.removeEventListener("webglcontextrestored", this.#restored);
  }

  readonly #lost = (event: Event): void => event.preventDefault();

  readonly #restored = (): void => {
    setUp(this.#gl);
    this.redraw();
  };
}

function setUp(gl: WebGL2RenderingContext): void {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
    const shader = gl.createShader(type);
    if (!shader) return; // only when the context is lost; it comes back with an event
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
    gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  }
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
    gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
  }
}
