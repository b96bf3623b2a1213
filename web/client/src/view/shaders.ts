/**
 * Draws small frames large: crisp but smooth, turned by a homography, and blended with the frame
 * before. Both are sampled with a cubic filter (Mitchell-Netravali over 4x4 texels with nine bilinear
 * reads: the two middle weights share one). Points are shares of the picture, (0, 0) at its top left.
 */

export const VERTEX = `#version 300 es
out vec2 at;
void main() {
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1)) * 2.0;
  at = vec2(corner.x, 1.0 - corner.y);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

export const FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D frame;
uniform sampler2D before;
uniform mat3 turn;
uniform mat3 turnBefore;
uniform float share;
in vec2 at;
out vec4 color;
vec2 inner(vec2 x) { return (x * x * (7.0 * x - 12.0) + 16.0 / 3.0) / 6.0; }
vec2 outer(vec2 x) { return (x * (x * (12.0 - 7.0 / 3.0 * x) - 20.0) + 32.0 / 3.0) / 6.0; }
vec3 cubic(sampler2D from, vec2 point) {
  vec2 size = vec2(textureSize(from, 0));
  vec2 texel = point * size;
  vec2 base = floor(texel - 0.5) + 0.5;
  vec2 f = texel - base;
  vec2 w0 = outer(1.0 + f);
  vec2 w1 = inner(f);
  vec2 w2 = inner(1.0 - f);
  vec2 w3 = outer(2.0 - f);
  vec2 w12 = w1 + w2;
  vec2 p0 = (base - 1.0) / size;
  vec2 p12 = (base + w2 / w12) / size;
  vec2 p3 = (base + 2.0) / size;
  vec3 sum =
    (texture(from, vec2(p0.x, p0.y)).rgb * w0.x + texture(from, vec2(p12.x, p0.y)).rgb * w12.x +
     texture(from, vec2(p3.x, p0.y)).rgb * w3.x) * w0.y +
    (texture(from, vec2(p0.x, p12.y)).rgb * w0.x + texture(from, p12).rgb * w12.x +
     texture(from, vec2(p3.x, p12.y)).rgb * w3.x) * w12.y +
    (texture(from, vec2(p0.x, p3.y)).rgb * w0.x + texture(from, vec2(p12.x, p3.y)).rgb * w12.x +
     texture(from, p3).rgb * w3.x) * w3.y;
  return clamp(sum, 0.0, 1.0);
}
vec2 turned(mat3 by) {
  vec3 point = by * vec3(at, 1.0);
  return point.xy / max(point.z, 1e-4);
}
void main() {
  vec3 now = cubic(frame, turned(turn));
  if (share < 1.0) now = mix(cubic(before, turned(turnBefore)), now, share);
  color = vec4(now, 1.0);
}`;
