/** The painter of a graphics card; two textures take turns, so a frame is uploaded once. */

import type { Picture } from "../media/codecs.js";
import { PLAIN, resize, type Drawing, type Painter } from "./drawing.js";
import { FRAGMENT, VERTEX } from "./shaders.js";

const MAX_SIDE = 2560;

interface Uniforms {
  readonly frame: WebGLUniformLocation | null;
  readonly before: WebGLUniformLocation | null;
  readonly turn: WebGLUniformLocation | null;
  readonly turnBefore: WebGLUniformLocation | null;
  readonly share: WebGLUniformLocation | null;
}

export class GlPainter implements Painter {
  readonly kind = "webgl";
  readonly #canvas: HTMLCanvasElement;
  readonly #gl: WebGL2RenderingContext;
  #uniforms: Uniforms | null;
  #frame: Picture | null = null;
  #unit = 0;
  #hasBefore = false;
  #last: Drawing = PLAIN;

  constructor(canvas: HTMLCanvasElement, gl: WebGL2RenderingContext) {
    this.#canvas = canvas;
    this.#gl = gl;
    this.#uniforms = setUp(gl);
    canvas.addEventListener("webglcontextlost", this.#lost);
    canvas.addEventListener("webglcontextrestored", this.#restored);
  }

  get frame(): Picture | null {
    return this.#frame;
  }

  take(frame: Picture): void {
    this.#hasBefore = this.#frame !== null;
    this.#frame?.close(); // its texture stays
    this.#frame = frame;
    this.#unit = 1 - this.#unit;
    this.#upload();
  }

  draw(drawing: Drawing): void {
    const gl = this.#gl;
    this.#last = drawing;
    if (!this.#frame || !this.#uniforms || gl.isContextLost()) return;
    resize(this.#canvas, this.#frame, MAX_SIDE);
    gl.viewport(0, 0, this.#canvas.width, this.#canvas.height);
    gl.uniform1i(this.#uniforms.frame, this.#unit);
    gl.uniform1i(this.#uniforms.before, 1 - this.#unit);
    gl.uniform1f(this.#uniforms.share, this.#hasBefore ? drawing.share : 1);
    // Row-major here, hence transposed there.
    gl.uniformMatrix3fv(this.#uniforms.turn, true, drawing.turn);
    gl.uniformMatrix3fv(this.#uniforms.turnBefore, true, drawing.turnBefore);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  dispose(): void {
    this.#frame?.close();
    this.#frame = null;
    this.#canvas.removeEventListener("webglcontextlost", this.#lost);
    this.#canvas.removeEventListener("webglcontextrestored", this.#restored);
  }

  #upload(): void {
    const gl = this.#gl;
    if (!this.#frame || gl.isContextLost()) return;
    gl.activeTexture(gl.TEXTURE0 + this.#unit);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, this.#frame);
  }

  readonly #lost = (event: Event): void => event.preventDefault();

  readonly #restored = (): void => {
    this.#uniforms = setUp(this.#gl);
    this.#hasBefore = false;
    this.#upload();
    this.draw(this.#last);
  };
}

/** Null only when the context is lost; it comes back with an event. */
function setUp(gl: WebGL2RenderingContext): Uniforms | null {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
    const shader = gl.createShader(type);
    if (!shader) return null;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  for (const unit of [0, 1]) {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
      gl.texParameteri(gl.TEXTURE_2D, side, gl.MIRRORED_REPEAT); // what a turn lays bare looks like its edge
    }
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
    }
  }
  const at = (name: string): WebGLUniformLocation | null => gl.getUniformLocation(program, name);
  return {
    frame: at("frame"),
    before: at("before"),
    turn: at("turn"),
    turnBefore: at("turnBefore"),
    share: at("share"),
  };
}
