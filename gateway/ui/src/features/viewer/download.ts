// Saves the current result as a file, made from what the server answers.
import { images } from "../../api/endpoints";
import type { Image, PolygonFeature } from "../../api/types";
import { toCsv } from "./measures";
import type { ResultState } from "./state";

const PAGE = 5_000;

function save(name: string, type: string, parts: BlobPart[]): void {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function baseName(image: Image): string {
  const last = image.name.split(/[/\\]/).at(-1) ?? "image";
  return last.replace(/\.[^.]+$/, "").replace(/[^\p{L}\p{N}._ -]/gu, "_") || "image";
}

export function saveCsv(image: Image, result: ResultState): void {
  const set = result.outlines.peek();
  if (!set) return;
  // The mark at the start makes spreadsheets read the text as UTF-8.
  save(`${baseName(image)}.csv`, "text/csv;charset=utf-8", ["\uFEFF", toCsv(image.name, set, result.columns.peek(), image.pixelSizeUm)]);
}

export async function saveGeoJson(image: Image): Promise<void> {
  const features: PolygonFeature[] = [];
  let segmentationId = "";
  let after: number | null = null;
  do {
    const page: Awaited<ReturnType<typeof images.features>> = await images.features(image.id, after, PAGE);
    // A result that was replaced meanwhile: start over, never mix two.
    if (segmentationId && page.segmentationId !== segmentationId) {
      features.length = 0;
      segmentationId = "";
      after = null;
      continue;
    }
    segmentationId = page.segmentationId;
    for (const feature of page.features) features.push(feature);
    after = page.nextAfter;
  } while (after !== null || segmentationId === "");
  save(`${baseName(image)}.geojson`, "application/geo+json", [JSON.stringify({ type: "FeatureCollection", features })]);
}
