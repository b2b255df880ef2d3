// The length of the scale bar.

/** A round length whose bar is about a fifth of the view. */
export function scaleBar(pixelsPerUnit: number, target: number): { units: number; pixels: number } {
  const wanted = target / pixelsPerUnit;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [5, 2, 1].find((n) => n * power <= wanted) ?? 1;
  return { units: step * power, pixels: step * power * pixelsPerUnit };
}
