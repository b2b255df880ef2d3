// The picture beside the sign-in form: spheroids with their outlines, drawn from a fixed recipe.
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";

interface Blob {
  x: number;
  y: number;
  path: string;
  hole: string | null;
  radius: number;
}

/** A small repeatable generator, so that the picture is the same at each visit. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

function wobblyCircle(x: number, y: number, radius: number, random: () => number): string {
  const waves = [2, 3, 5].map((k) => ({ k, a: (random() * 0.13) / Math.sqrt(k), p: random() * 6.283 }));
  const points: string[] = [];
  for (let i = 0; i < 64; i++) {
    const angle = (i / 64) * 2 * Math.PI;
    const r = waves.reduce((sum, w) => sum + w.a * Math.sin(w.k * angle + w.p), 1) * radius;
    points.push(`${(x + r * Math.cos(angle)).toFixed(1)} ${(y + r * Math.sin(angle)).toFixed(1)}`);
  }
  return `M${points.join("L")}Z`;
}

function makeBlobs(): Blob[] {
  const random = generator(1234);
  const blobs: Blob[] = [];
  for (let tries = 0; tries < 600 && blobs.length < 26; tries++) {
    const radius = 24 + random() ** 2 * 78;
    const x = 40 + random() * 720;
    const y = 40 + random() * 920;
    if (blobs.some((b) => Math.hypot(b.x - x, b.y - y) < (b.radius + radius) * 1.16)) continue;
    const path = wobblyCircle(x, y, radius, random);
    const hole = radius > 52 && random() > 0.35 ? wobblyCircle(x + radius * 0.1, y - radius * 0.08, radius * 0.34, random) : null;
    blobs.push({ x, y, path, hole, radius });
  }
  return blobs;
}

export function Specimen(): JSX.Element {
  const blobs = useMemo(makeBlobs, []);
  return (
    <svg class="specimen" viewBox="0 0 800 1000" preserveAspectRatio="xMidYMid slice">
      <defs>
        <radialGradient id="sp-body" cx="45%" cy="42%" r="65%">
          <stop offset="0" stop-color="#2f6f86" />
          <stop offset="0.62" stop-color="#1d4a60" />
          <stop offset="1" stop-color="#123346" />
        </radialGradient>
      </defs>
      <rect width="800" height="1000" fill="#0a1c28" />
      {blobs.map((blob) => (
        <g key={blob.path}>
          <path d={blob.path} fill="url(#sp-body)" />
          <path d={blob.path} fill="none" stroke="#5cc8f2" stroke-width="2.2" />
          {blob.hole && <path d={blob.hole} fill="#0a1c28" stroke="#ffb454" stroke-width="2" stroke-dasharray="6 5" />}
        </g>
      ))}
    </svg>
  );
}
