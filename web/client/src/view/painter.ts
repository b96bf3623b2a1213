/** Chooses where frames become pixels: a shader where a graphics card runs it, else a 2D canvas. */

import type { Painter, PainterKind } from "./drawing.js";
import { FlatPainter } from "./flat.js";
import { GlPainter } from "./webgl.js";

const GL_OPTIONS: WebGLContextAttributes = {
  alpha: false,
  antialias: false,
  depth: false,
  failIfMajorPerformanceCaveat: true, // not every browser heeds it, hence hasGraphicsCard
};

export function createPainter(canvas: HTMLCanvasElement, wish: "auto" | PainterKind): Painter {
  if (wish === "webgl" || (wish === "auto" && hasGraphicsCard(canvas.ownerDocument))) {
    const gl = canvas.getContext("webgl2", { ...GL_OPTIONS, failIfMajorPerformanceCaveat: wish === "auto" });
    if (gl) return new GlPainter(canvas, gl);
  }
  const context = canvas.getContext("2d", { alpha: false });
  if (!context) throw new Error("this browser cannot draw on a canvas");
  return new FlatPainter(canvas, context);
}

const SOFTWARE_RENDERERS = /swiftshader|llvmpipe|software|basic render/i;

/** False when WebGL would be computed on the processor; asked on a canvas of its own. */
function hasGraphicsCard(page: Document): boolean {
  const gl = page.createElement("canvas").getContext("webgl2", GL_OPTIONS);
  if (!gl) return false;
  let name = String(gl.getParameter(gl.RENDERER));
  if (name === "WebKit WebGL") {
    const info = gl.getExtension("WEBGL_debug_renderer_info"); // what that mask hides
    if (info) name = String(gl.getParameter(info.UNMASKED_RENDERER_WEBGL));
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !SOFTWARE_RENDERERS.test(name);
}
